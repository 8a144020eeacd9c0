"""Fields that the API has and the SDK does not: they are passed through as they are, with a warning.

Whether the service supports them for Ray clusters is not documented (docs/service-facts.md). Source of the names: the
API's reference of PersistentResource, v1beta1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_choice, check_text, check_whole, has_template, is_number
from airflow_provider_vertex_ray.core.cluster.spec_parts import as_sequence, refuse_unknown_keys
from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.cluster.spec_fields import SpecFields
    from airflow_provider_vertex_ray.core.cluster.spec_parts import Resources

__all__ = ["check_passthrough", "passthrough_warnings"]

LONGEST_DISPLAY_NAME = 128
AFFINITIES = ("NO_RESERVATION", "ANY_RESERVATION", "SPECIFIC_RESERVATION")

_DNS_FIELDS = ("domain", "targetProject", "targetNetwork")


def check_passthrough(spec: SpecFields) -> None:
    """Validate the form of these fields; templates pass.

    :raises InvalidArgumentError: names the field that has another form than the API's
    """
    check_text("display_name", spec.display_name)
    if isinstance(spec.display_name, str) and len(spec.display_name) > LONGEST_DISPLAY_NAME:
        raise InvalidArgumentError("display_name", spec.display_name, f"Use at most {LONGEST_DISPLAY_NAME} characters.")
    if spec.psc_interface_config is not None:
        _check_dns(spec.psc_interface_config.dns_peering_configs)
    _check_autoscaling(spec.ray_cluster_autoscaling_spec)
    for field, machine in _machines(spec):
        _check_affinity(machine.reservation_affinity, f"{field}.reservation_affinity")


def passthrough_warnings(spec: SpecFields) -> list[str]:
    """Return a warning for each of these fields that is set and that the service may reject."""
    fields = []
    if spec.psc_interface_config is not None and spec.psc_interface_config.dns_peering_configs:
        fields.append("psc_interface_config.dns_peering_configs")
    if spec.ray_cluster_autoscaling_spec:
        fields.append("ray_cluster_autoscaling_spec")
    fields += [f"{field}.reservation_affinity" for field, machine in _machines(spec) if machine.reservation_affinity]
    return [f"{field}: it is passed through as it is; Vertex AI may reject it for Ray clusters" for field in fields]


def _machines(spec: SpecFields) -> list[tuple[str, Resources]]:
    workers = [(f"worker_node_types[{place}]", worker) for place, worker in enumerate(spec.worker_node_types)]
    return [("head_node_type", spec.head_node_type), *workers]


def _check_dns(configs: Any) -> None:
    field = "psc_interface_config.dns_peering_configs"
    for place, config in enumerate(as_sequence(configs, field)):
        _check_mapping(config, f"{field}[{place}]", _DNS_FIELDS)
        for name in _DNS_FIELDS:
            check_text(f"{field}[{place}].{name}", config.get(name), required=True)


def _check_autoscaling(given: Any) -> None:
    if given is None:
        return
    field = "ray_cluster_autoscaling_spec"
    _check_mapping(given, field, ("idleTimeoutMinutes", "upscalingSpeed"))
    minutes, speed = given.get("idleTimeoutMinutes"), given.get("upscalingSpeed")
    if minutes is not None:
        check_whole(f"{field}.idleTimeoutMinutes", minutes, 1, None, "Use a whole number of minutes of at least 1.")
    if speed is not None and not has_template(speed) and not (is_number(speed) and speed > 0):
        raise InvalidArgumentError(f"{field}.upscalingSpeed", speed, "Use a positive number.")


def _check_affinity(given: Any, field: str) -> None:
    if given is None:
        return
    _check_mapping(given, field, ("reservationAffinityType", "key", "values"))
    kind = given.get("reservationAffinityType")
    if not has_template(kind):
        check_choice(f"{field}.reservationAffinityType", kind, AFFINITIES)
    if kind == "SPECIFIC_RESERVATION":
        check_text(f"{field}.key", given.get("key"), required=True)
        if not as_sequence(given.get("values"), f"{field}.values"):
            raise InvalidArgumentError(f"{field}.values", given.get("values"), "Use a list of reservations.")


def _check_mapping(given: Any, field: str, known: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping):
        raise InvalidArgumentError(field, given, f"Use a dict with {', '.join(known)}.")
    refuse_unknown_keys(given, set(known), field)
