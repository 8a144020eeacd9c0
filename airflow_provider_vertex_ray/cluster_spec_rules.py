"""What a cluster spec must keep to, so that a mistake shows at DAG parse, not after minutes of provisioning.

Nodes have rules of their own in ``cluster_pool_rules``, whose docstring explains the sources' letters.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.cluster_pool_rules import check_pools, pool_warnings
from airflow_provider_vertex_ray.cluster_pools import SUPPORTED_VERSIONS
from airflow_provider_vertex_ray.spec_checks import check_flag, check_match, check_text
from airflow_provider_vertex_ray.spec_error import SpecError, has_template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_vertex_ray.cluster_spec import ClusterSpec
    from airflow_provider_vertex_ray.cluster_spec_parts import NfsMount

__all__ = ["check_key_location", "check_spec", "spec_warnings"]

MAX_LABELS = 64  # (D)

_NETWORK = re.compile(r"projects/(?P<project>[^/]+)/global/networks/[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PROJECT_NUMBER = re.compile(r"[0-9]+")
_ATTACHMENT = re.compile(r"(projects/[^/\s]+/regions/[a-z0-9-]+/networkAttachments/)?[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_KMS_KEY = re.compile(r"projects/[^/\s]+/locations/(?P<location>[^/\s]+)/keyRings/[^/\s]+/cryptoKeys/[^/\s]+")
_SERVICE_ACCOUNT = re.compile(r"[^@\s/]+@[^@\s/]+\.[^@\s/]+")
_IP_RANGE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
# Lower-case letters, and letters of scripts that have no case.
_LETTERS = frozenset({"Ll", "Lo"})


def check_spec(spec: ClusterSpec) -> None:
    """Raise SpecError for the first rule that ``spec`` breaks."""
    check_pools(spec)
    _check_versions(spec)
    check_flag("enable_metrics_collection", spec.enable_metrics_collection)
    check_flag("enable_logging", spec.enable_logging)
    _check_network(spec)
    for place, mount in enumerate(spec.nfs_mounts):
        _check_nfs_mount(mount, f"nfs_mounts[{place}]")
    _check_labels(spec.labels)
    check_match("service_account", spec.service_account, _SERVICE_ACCOUNT, "give the account's e-mail address")
    check_match(
        "encryption_spec_key_name",
        spec.encryption_spec_key_name,
        _KMS_KEY,
        "give projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY",
    )


def check_key_location(key_name: str | None, location: str) -> None:
    """Refuse an encryption key of another region than the cluster's (D: they must be the same)."""
    match = _KMS_KEY.fullmatch(key_name or "")
    if match and match["location"] != location:
        raise SpecError("encryption_spec_key_name", key_name, f"use a key of the cluster's region, {location}")


def spec_warnings(spec: ClusterSpec) -> list[str]:
    """Return what the service takes but the user may regret."""
    found = pool_warnings(spec)
    if spec.service_account and spec.network:
        found.append(
            "service_account: with a peered network the Ray Client (vertex_ray://) does not work with a "
            "custom service account; jobs do"
        )
    return found


def _check_versions(spec: ClusterSpec) -> None:
    check_text("ray_version", spec.ray_version, required=True)
    check_text("python_version", spec.python_version)
    if has_template(spec.ray_version) or has_template(spec.python_version) or not _uses_official_image(spec):
        return
    if spec.python_version in SUPPORTED_VERSIONS.get(spec.ray_version, ()):
        return
    known_ray = spec.ray_version in SUPPORTED_VERSIONS
    offered = "; ".join(f"Ray {ray} with Python {' or '.join(pythons)}" for ray, pythons in SUPPORTED_VERSIONS.items())
    raise SpecError(
        "python_version" if known_ray else "ray_version",
        spec.python_version if known_ray else spec.ray_version,
        f"the service has no image of Ray {spec.ray_version} with this Python; it offers {offered}",
    )


def _uses_official_image(spec: ClusterSpec) -> bool:
    """Tell whether the versions matter: they choose among the service's images and are sent nowhere else."""
    if spec.custom_images is not None:
        return False
    head = spec.head_node_type
    own_pools = [worker for worker in spec.worker_node_types if not worker.shares_machine(head)]
    return any(machine.custom_image is None for machine in (head, *own_pools))


def _check_network(spec: ClusterSpec) -> None:
    rule = "give projects/PROJECT_NUMBER/global/networks/NAME"
    check_match("network", spec.network, _NETWORK, rule)
    match = None if has_template(spec.network) else _NETWORK.fullmatch(spec.network or "")
    if match and not _PROJECT_NUMBER.fullmatch(match["project"]):
        raise SpecError("network", spec.network, f"{rule}: the service takes the number of the project, not its id")
    psc = spec.psc_interface_config
    if psc is not None:
        check_match(
            "psc_interface_config.network_attachment",
            psc.network_attachment,
            _ATTACHMENT,
            "give the attachment's name, or projects/NUMBER/regions/REGION/networkAttachments/NAME",
            required=True,
        )
        if spec.network:
            raise SpecError("psc_interface_config", psc, "use either this or a peered network, not both")
    for place, name in enumerate(spec.reserved_ip_ranges):
        check_match(
            f"reserved_ip_ranges[{place}]",
            name,
            _IP_RANGE,
            "give the name of a reserved range",
            required=True,
        )
    if spec.reserved_ip_ranges and not spec.network:
        raise SpecError(
            "reserved_ip_ranges",
            list(spec.reserved_ip_ranges),
            "the ranges are those of a network: set network too",
        )


def _check_nfs_mount(mount: NfsMount, field: str) -> None:
    check_text(f"{field}.server", mount.server, required=True)
    check_text(f"{field}.path", mount.path, required=True)
    check_text(f"{field}.mount_point", mount.mount_point, required=True)
    if mount.path and not has_template(mount.path) and not mount.path.startswith("/"):
        raise SpecError(f"{field}.path", mount.path, "begin it with '/'")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        raise SpecError("labels", len(labels), f"a cluster may have {MAX_LABELS} labels at most")
    for key, value in labels.items():
        if not has_template(key) and not (_is_label(key) and key and unicodedata.category(key[0]) in _LETTERS):
            raise SpecError(
                "labels",
                key,
                "a key has 1 to 63 lower-case letters, digits, underscores and hyphens, a letter first",
            )
        if not has_template(value) and not _is_label(value):
            raise SpecError(
                f"labels[{key!r}]",
                value,
                "a value has up to 63 lower-case letters, digits, underscores and hyphens",
            )


def _is_label(text: object) -> bool:
    if not isinstance(text, str) or len(text) > 63 or len(text.encode()) > 128:
        return False
    return all(letter in "_-" or unicodedata.category(letter) in (*_LETTERS, "Nd") for letter in text)
