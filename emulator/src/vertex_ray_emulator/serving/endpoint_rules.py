"""Checks on endpoints: ids, traffic splits, and the resources of a deployment.

The rules come from the API's reference; where only the rule is known, the text was made up here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from vertex_ray_emulator.clusters.rules import SERVICE_ACCOUNT_PATTERN, check_labels
from vertex_ray_emulator.project.catalog import GIB, MACHINES, Machine, accelerator_problem
from vertex_ray_emulator.serving.model_rules import check_display_name, found_errors, required
from vertex_ray_emulator.wire.errors import ApiError, invalid
from vertex_ray_emulator.wire.protos import accelerator_name

ENDPOINT_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9][0-9]{0,8}")
"""A word that starts with a letter, or a number of up to 9 digits; ids that the service assigns have 19."""
DEPLOYED_MODEL_ID = re.compile(r"[0-9]{1,10}")
NEW = "0"
"""Key in the traffic split of a deploy request that stands for the model being deployed."""
UPDATABLE = ("display_name", "description", "labels", "traffic_split")

# Offered for serving in addition to those for training (page "Configure compute resources for inference").
_SMALL: dict[str, Machine] = {
    name: Machine(name, 2, int(gib * GIB), MACHINES["n1-standard-4"].attachable if name.startswith("n1") else ())
    for name, gib in {
        "n1-standard-2": 7.5,
        "n1-highmem-2": 13,
        "n1-highcpu-2": 1.8,
        "n1-highcpu-4": 3.6,
        "n1-highcpu-8": 7.2,
        "n2-standard-2": 8,
        "e2-standard-2": 8,
        "e2-highmem-2": 16,
        "e2-highcpu-2": 2,
        "e2-highcpu-4": 4,
        "e2-highcpu-8": 8,
    }.items()
}


def check_endpoint(endpoint: Any, endpoint_id: str) -> None:
    """Raise an error for an endpoint that cannot be created.

    :param endpoint: endpoint as the caller sent it.
    :param endpoint_id: id of the endpoint; empty if the service is to choose one.
    :raises ApiError: INVALID_ARGUMENT with the name of the field; UNIMPLEMENTED for features that only the service has.
    """
    if endpoint_id and not ENDPOINT_ID.fullmatch(endpoint_id):
        raise found_errors(
            "endpoint_id",
            "It must be a word of up to 63 of [a-z0-9-] that starts with a letter and does not end with a dash, or a "
            f"number of up to 9 digits without a leading zero. Got: {endpoint_id!r}",
        )
    check_settings(endpoint)
    if endpoint.deployed_models or endpoint.traffic_split:
        raise found_errors("endpoint.deployed_models", "Models are deployed with DeployModel.")
    if endpoint.network or endpoint.HasField("private_service_connect_config"):
        raise ApiError("UNIMPLEMENTED", "The emulator serves public endpoints only.")


def check_settings(endpoint: Any) -> None:
    """Raise an error for a display name or labels that are not allowed."""
    check_display_name("endpoint.display_name", endpoint.display_name)
    check_labels(endpoint.labels)


def check_traffic(split: Mapping[str, int], known: Collection[str]) -> None:
    """Raise an error for a traffic split that has unknown models or does not add up to 100.

    :param split: percentage of each deployed model; empty for no traffic.
    :param known: ids that are allowed in the split.
    """
    for deployed_id, percentage in split.items():
        if deployed_id not in known:
            raise found_errors("traffic_split", f"The Endpoint has no DeployedModel {deployed_id!r}.")
        if not 0 <= percentage <= 100:
            raise found_errors("traffic_split", f"The percentage of {deployed_id!r} must be between 0 and 100.")
    total = sum(split.values())
    if split and total != 100:
        raise found_errors("traffic_split", f"The traffic percentages must add up to 100, not {total}.")


def check_deployed_model(deployed: Any) -> None:
    """Raise an error for a deployment with an invalid id or invalid resources.

    :raises ApiError: INVALID_ARGUMENT with the name of the field.
    """
    if deployed.id and not DEPLOYED_MODEL_ID.fullmatch(deployed.id):
        raise found_errors("deployed_model.id", f"It must have 1 to 10 characters of [0-9]. Got: {deployed.id!r}")
    if not deployed.model:
        raise required("deployed_model.model")
    if deployed.service_account and not SERVICE_ACCOUNT_PATTERN.fullmatch(deployed.service_account):
        raise found_errors("deployed_model.service_account", f"{deployed.service_account!r} is not an email address.")
    kind = deployed.WhichOneof("prediction_resources")
    if kind is None:
        raise required("deployed_model.dedicated_resources")
    if kind != "dedicated_resources":
        raise invalid(f"'{kind}' is not supported for Model {deployed.model}.")
    _check_resources(deployed.dedicated_resources, "deployed_model.dedicated_resources")


def _check_resources(resources: Any, where: str) -> None:
    spec = resources.machine_spec
    if not spec.machine_type:
        raise required(f"{where}.machine_spec.machine_type")
    machine = MACHINES.get(spec.machine_type) or _SMALL.get(spec.machine_type)
    if machine is None:
        raise found_errors(
            f"{where}.machine_spec.machine_type", f"Machine type {spec.machine_type!r} is not supported."
        )
    accelerator, count = accelerator_name(spec), spec.accelerator_count
    if machine.built_in and accelerator == machine.built_in[0] and 1 <= count <= machine.built_in[1]:
        # A model may use fewer of a machine's accelerators than it has (reference of MachineSpec).
        count = machine.built_in[1]
    if problem := accelerator_problem(machine, accelerator, count):
        raise found_errors(f"{where}.machine_spec", f"{problem}.")
    if resources.min_replica_count < 1:
        raise found_errors(f"{where}.min_replica_count", "It must be at least 1.")
    if resources.max_replica_count and resources.max_replica_count < resources.min_replica_count:
        raise found_errors(f"{where}.max_replica_count", "It must not be less than min_replica_count.")
    for index, metric in enumerate(resources.autoscaling_metric_specs):
        if not metric.metric_name.startswith("aiplatform.googleapis.com/"):
            raise found_errors(
                f"{where}.autoscaling_metric_specs[{index}].metric_name", f"Unknown metric {metric.metric_name!r}."
            )
        if not 0 <= metric.target <= 100:
            raise found_errors(f"{where}.autoscaling_metric_specs[{index}].target", "It must be between 1 and 100.")
