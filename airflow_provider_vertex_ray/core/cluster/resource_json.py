"""Conversion between ClusterSpec and the JSON of a PersistentResource (v1beta1, because v1 has no NFS mounts).

As in the JSON of all Google APIs, int64 fields are strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.machine_rules import is_small_head
from airflow_provider_vertex_ray.core.cluster.machines import disk_type
from airflow_provider_vertex_ray.core.cluster.pools import (
    OfficialImage,
    Pool,
    default_python_version,
    image_prefix,
    official_image,
    parse_official_image,
)
from airflow_provider_vertex_ray.core.cluster.spec_parts import AutoscalingSpec, NfsMount, PscIConfig, Resources
from airflow_provider_vertex_ray.core.cluster.versions import is_rejected
from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_vertex_ray.core.cluster.spec_fields import SpecFields

__all__ = ["pool_image", "read_body", "write_body"]

_WORKER_POOL = re.compile(r"worker-pool(\d+)")
_RESOURCE_NAME = re.compile(r"projects/[^/]+/locations/(?P<location>[^/]+)/persistentResources/[^/]+")
_DEFAULT_RAY = "2.47"


def write_body(spec: SpecFields, location: str) -> dict[str, Any]:
    """Return the PersistentResource that requests ``spec``."""
    pools = spec.pools()
    ray_spec: dict[str, Any] = {
        "resourcePoolImages": {pool.pool_id: pool_image(spec, pool, location) for pool in pools},
        "rayMetricSpec": {"disabled": not spec.enable_metrics_collection},
        "rayLogsSpec": {"disabled": not spec.enable_logging},
    }
    if spec.nfs_mounts:
        ray_spec["nfsMounts"] = [
            {"server": mount.server, "path": mount.path, "mountPoint": mount.mount_point} for mount in spec.nfs_mounts
        ]
    if spec.ray_cluster_autoscaling_spec:
        minutes = spec.ray_cluster_autoscaling_spec.get("idleTimeoutMinutes")
        ray_spec["rayClusterAutoscalingSpec"] = {
            **spec.ray_cluster_autoscaling_spec,
            **({} if minutes is None else {"idleTimeoutMinutes": str(minutes)}),
        }
    runtime: dict[str, Any] = {"raySpec": ray_spec}
    if spec.service_account:
        runtime["serviceAccountSpec"] = {
            "enableCustomServiceAccount": True,
            "serviceAccount": spec.service_account,
        }
    body: dict[str, Any] = {
        "resourcePools": [_write_pool(pool) for pool in pools],
        "resourceRuntimeSpec": runtime,
    }
    if spec.network:
        body["network"] = spec.network
    if spec.reserved_ip_ranges:
        body["reservedIpRanges"] = list(spec.reserved_ip_ranges)
    if spec.psc_interface_config:
        body["pscInterfaceConfig"] = {"networkAttachment": spec.psc_interface_config.network_attachment}
    if spec.encryption_spec_key_name:
        body["encryptionSpec"] = {"kmsKeyName": spec.encryption_spec_key_name}
    if spec.psc_interface_config and spec.psc_interface_config.dns_peering_configs:
        body["pscInterfaceConfig"]["dnsPeeringConfigs"] = [
            dict(config) for config in spec.psc_interface_config.dns_peering_configs
        ]
    if spec.labels:
        body["labels"] = dict(spec.labels)
    if spec.display_name:
        body["displayName"] = spec.display_name
    return body


def pool_image(spec: SpecFields, pool: Pool, location: str) -> str:
    """Return the image that the nodes of ``pool`` run in ``location``."""
    if pool.custom_image:
        return pool.custom_image
    return official_image(
        image_prefix(location),
        spec.ray_version,
        spec.python_version or "",
        gpu=pool.machine.accelerator_count > 0,
    )


def read_body(resource: Mapping[str, Any], location: str | None) -> dict[str, Any]:
    """Return the fields of a ClusterSpec from a PersistentResource; see ClusterSpec.from_persistent_resource.

    :raises InvalidArgumentError: the resource is not a Ray cluster
    """
    runtime = resource.get("resourceRuntimeSpec") or {}
    ray_spec = runtime.get("raySpec")
    pools = list(resource.get("resourcePools") or ())
    if ray_spec is None or not pools:
        name = resource.get("name") or resource.get("displayName")
        raise InvalidArgumentError(
            "resourceRuntimeSpec.raySpec", name, "Use a Ray cluster; this persistent resource is not one."
        )
    head_id = ray_spec.get("headNodeResourcePoolId")
    head_place = next((place for place, pool in enumerate(pools) if head_id and pool.get("id") == head_id), 0)
    head_pool = pools.pop(head_place)

    images = _read_images(resource, ray_spec, [head_pool, *pools], location)
    head = _read_machine(head_pool, images.custom[0])
    workers = [_read_worker(pool, image) for pool, image in zip(pools, images.custom[1:], strict=True)]
    joined = _read_joined_workers(head_pool, head)
    if joined is not None:
        _insert_joined(workers, joined, pools)

    service_account = (runtime.get("serviceAccountSpec") or {}).get("serviceAccount")
    psc = resource.get("pscInterfaceConfig")
    return {
        "head_node_type": head,
        "worker_node_types": tuple(workers),
        "ray_version": images.ray_version,
        "python_version": images.python_version,
        "network": resource.get("network") or None,
        "service_account": service_account or None,
        "custom_images": None,
        "enable_metrics_collection": not (ray_spec.get("rayMetricSpec") or {}).get("disabled", False),
        "enable_logging": not (ray_spec.get("rayLogsSpec") or {}).get("disabled", False),
        "psc_interface_config": (
            PscIConfig(psc.get("networkAttachment"), psc.get("dnsPeeringConfigs") or None) if psc is not None else None
        ),
        "reserved_ip_ranges": tuple(resource.get("reservedIpRanges") or ()),
        "nfs_mounts": tuple(
            NfsMount(mount.get("server"), mount.get("path"), mount.get("mountPoint"))
            for mount in ray_spec.get("nfsMounts") or ()
        ),
        "labels": dict(resource.get("labels") or {}),
        "encryption_spec_key_name": (resource.get("encryptionSpec") or {}).get("kmsKeyName") or None,
        # It exists, so it was allowed.
        "allow_small_head": is_small_head(head.machine_type),
        "display_name": resource.get("displayName") or None,
        "ray_cluster_autoscaling_spec": _read_ray_autoscaling(ray_spec.get("rayClusterAutoscalingSpec")),
    }


def _write_pool(pool: Pool) -> dict[str, Any]:
    machine: dict[str, Any] = {"machineType": pool.machine.machine_type}
    if pool.machine.accelerator_type:
        machine["acceleratorType"] = pool.machine.accelerator_type
        machine["acceleratorCount"] = pool.machine.accelerator_count
    if pool.machine.reservation_affinity:
        machine["reservationAffinity"] = dict(pool.machine.reservation_affinity)
    disk: dict[str, Any] = {}
    if pool.machine.boot_disk_type:
        disk["bootDiskType"] = disk_type(pool.machine.machine_type, pool.machine.boot_disk_type)
    if pool.machine.boot_disk_size_gb is not None:
        disk["bootDiskSizeGb"] = pool.machine.boot_disk_size_gb
    body: dict[str, Any] = {"id": pool.pool_id, "machineSpec": machine, "diskSpec": disk}
    if pool.replica_count is not None:
        body["replicaCount"] = str(pool.replica_count)
    if pool.autoscaling:
        body["autoscalingSpec"] = {
            "minReplicaCount": str(pool.autoscaling.min_replica_count),
            "maxReplicaCount": str(pool.autoscaling.max_replica_count),
        }
    return body


def _read_machine(pool: Mapping[str, Any], image: str | None) -> Resources:
    machine = pool.get("machineSpec") or {}
    disk = pool.get("diskSpec") or {}
    accelerator = machine.get("acceleratorType")
    size = disk.get("bootDiskSizeGb")
    return Resources(
        machine_type=machine.get("machineType", ""),
        accelerator_type=None if accelerator in (None, "ACCELERATOR_TYPE_UNSPECIFIED") else accelerator,
        accelerator_count=int(machine.get("acceleratorCount") or 0),
        boot_disk_type=disk.get("bootDiskType") or None,
        boot_disk_size_gb=int(size) if size else None,
        custom_image=image,
        reservation_affinity=machine.get("reservationAffinity") or None,
    )


def _read_ray_autoscaling(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not given:
        return None
    minutes = given.get("idleTimeoutMinutes")
    return {**given, **({} if minutes is None else {"idleTimeoutMinutes": int(minutes)})}


def _read_worker(pool: Mapping[str, Any], image: str | None) -> Resources:
    machine = _read_machine(pool, image)
    return _counted(machine, int(pool.get("replicaCount") or 0), _read_autoscaling(pool))


def _read_joined_workers(head_pool: Mapping[str, Any], head: Resources) -> Resources | None:
    """Return the workers in the head's pool; None if there are none."""
    autoscaling = _read_autoscaling(head_pool)
    workers = int(head_pool.get("replicaCount") or 1) - 1
    if autoscaling is None and workers < 1:
        return None
    return _counted(head, workers, autoscaling)


def _counted(machine: Resources, count: int, autoscaling: AutoscalingSpec | None) -> Resources:
    # The count of an autoscaling pool is its current size, not the requested one, so it is not part of the spec.
    return replace(machine, node_count=1 if autoscaling else count, autoscaling_spec=autoscaling)


def _read_autoscaling(pool: Mapping[str, Any]) -> AutoscalingSpec | None:
    bounds = pool.get("autoscalingSpec")
    if not bounds:
        return None
    return AutoscalingSpec(int(bounds.get("minReplicaCount") or 0), int(bounds.get("maxReplicaCount") or 0))


def _insert_joined(workers: list[Resources], joined: Resources, pools: list[Mapping[str, Any]]) -> None:
    """Insert the workers of the head's pool where their types were, so that the other pools keep their numbers.

    Each number that no pool has belonged to such a type; with none missing, it came last.
    """
    numbers = [int(match[1]) for pool in pools if (match := _WORKER_POOL.fullmatch(pool.get("id", "")))]
    gaps: list[int] = []
    if len(numbers) == len(pools) and numbers == sorted(set(numbers)):
        gaps = sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))
    # Several types, if there are enough workers for them.
    kinds = max(1, min(len(gaps), 1 if joined.autoscaling_spec else joined.node_count))
    places = [gap - 1 for gap in gaps[:kinds]] or [len(workers)]
    for number, place in enumerate(places):
        count = joined.node_count - kinds + 1 if number == 0 else 1
        workers.insert(place, replace(joined, node_count=count))


@dataclass(frozen=True)
class _Images:
    """The custom image of each pool (None for the service's own), and the versions of the service's images."""

    custom: list[str | None]
    ray_version: str
    python_version: str | None


def _read_images(
    resource: Mapping[str, Any],
    ray_spec: Mapping[str, Any],
    pools: list[Mapping[str, Any]],
    location: str | None,
) -> _Images:
    by_pool = ray_spec.get("resourcePoolImages") or {}
    images: list[str] = [by_pool.get(pool.get("id")) or ray_spec.get("imageUri") or "" for pool in pools]
    name = _RESOURCE_NAME.fullmatch(resource.get("name") or "")
    if location is None and name is not None:
        location = name["location"]
    prefix = image_prefix(location) if location else None
    parsed = [parse_official_image(image) for image in images]
    # Only an image that write_body would choose for this pool counts as the service's own.
    chosen_by_us = [
        official if official and _would_be_chosen(official, pool, prefix) else None
        for official, pool in zip(parsed, pools, strict=True)
    ]
    ours = next((official for official in chosen_by_us if official), None)
    if len({official.prefix for official in chosen_by_us if official}) > 1:
        # Without a location, it is unknown which of them is the default: keep them all as custom images.
        ours = None
    if ours is None:
        known = next((official for official in parsed if official), None)
        ray_version = known.ray_version if known else _DEFAULT_RAY
        python_version = known.python_version if known else default_python_version(ray_version)
        return _Images([image or None for image in images], ray_version, python_version)
    custom = [
        None if official and replace(official, gpu=ours.gpu) == ours else image or None
        for official, image in zip(chosen_by_us, images, strict=True)
    ]
    return _Images(custom, ours.ray_version, ours.python_version)


def _would_be_chosen(official: OfficialImage, pool: Mapping[str, Any], prefix: str | None) -> bool:
    has_gpu = int((pool.get("machineSpec") or {}).get("acceleratorCount") or 0) > 0
    return (
        official.gpu == has_gpu
        and official.prefix == (prefix or official.prefix)
        # A spec with such a version would be rejected.
        and not is_rejected(official.ray_version)
    )
