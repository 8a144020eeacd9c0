"""What a cluster spec must keep to, so that a mistake shows at DAG parse, not after minutes of provisioning.

Nodes have rules of their own in ``cluster_pool_rules``, whose docstring explains the sources' letters.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import (
    check_flag,
    check_match,
    check_text,
    check_whole,
    find_templates,
    has_template,
)
from airflow_provider_vertex_ray.core.cluster.pools import SUPPORTED_VERSIONS
from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_vertex_ray.core.cluster.spec_fields import SpecFields
    from airflow_provider_vertex_ray.core.cluster.spec_parts import AutoscalingSpec, NfsMount, NodeImages, Resources

__all__ = ["check_key_location", "check_pools", "check_spec", "pool_warnings", "spec_warnings"]

MAX_LABELS = 64  # (D)

_NETWORK = re.compile(r"projects/(?P<project>[^/]+)/global/networks/[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PROJECT_NUMBER = re.compile(r"[0-9]+")
_ATTACHMENT = re.compile(r"(projects/[^/\s]+/regions/[a-z0-9-]+/networkAttachments/)?[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_KMS_KEY = re.compile(r"projects/[^/\s]+/locations/(?P<location>[^/\s]+)/keyRings/[^/\s]+/cryptoKeys/[^/\s]+")
_SERVICE_ACCOUNT = re.compile(r"[^@\s/]+@[^@\s/]+\.[^@\s/]+")
_IP_RANGE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
# Lower-case letters, and letters of scripts that have no case.
_LETTERS = frozenset({"Ll", "Lo"})


def check_spec(spec: SpecFields) -> None:
    """Raise InvalidArgumentError for the first rule that ``spec`` breaks."""
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
        raise InvalidArgumentError(
            "encryption_spec_key_name", key_name, f"use a key of the cluster's region, {location}"
        )


def spec_warnings(spec: SpecFields) -> list[str]:
    """Return what the service takes but the user may regret."""
    found = pool_warnings(spec)
    if spec.service_account and spec.network:
        found.append(
            "service_account: with a peered network the Ray Client (vertex_ray://) does not work with a "
            "custom service account; jobs do"
        )
    return found


def _check_versions(spec: SpecFields) -> None:
    check_text("ray_version", spec.ray_version, required=True)
    check_text("python_version", spec.python_version)
    if has_template(spec.ray_version) or has_template(spec.python_version) or not _uses_official_image(spec):
        return
    if spec.python_version in SUPPORTED_VERSIONS.get(spec.ray_version, ()):
        return
    known_ray = spec.ray_version in SUPPORTED_VERSIONS
    offered = "; ".join(f"Ray {ray} with Python {' or '.join(pythons)}" for ray, pythons in SUPPORTED_VERSIONS.items())
    raise InvalidArgumentError(
        "python_version" if known_ray else "ray_version",
        spec.python_version if known_ray else spec.ray_version,
        f"the service has no image of Ray {spec.ray_version} with this Python; it offers {offered}",
    )


def _uses_official_image(spec: SpecFields) -> bool:
    """Tell whether the versions matter: they choose among the service's images and are sent nowhere else."""
    if spec.custom_images is not None:
        return False
    head = spec.head_node_type
    own_pools = [worker for worker in spec.worker_node_types if not worker.shares_machine(head)]
    return any(machine.custom_image is None for machine in (head, *own_pools))


def _check_network(spec: SpecFields) -> None:
    rule = "give projects/PROJECT_NUMBER/global/networks/NAME"
    check_match("network", spec.network, _NETWORK, rule)
    match = None if has_template(spec.network) else _NETWORK.fullmatch(spec.network or "")
    if match and not _PROJECT_NUMBER.fullmatch(match["project"]):
        raise InvalidArgumentError(
            "network", spec.network, f"{rule}: the service takes the number of the project, not its id"
        )
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
            raise InvalidArgumentError("psc_interface_config", psc, "use either this or a peered network, not both")
    for place, name in enumerate(spec.reserved_ip_ranges):
        check_match(
            f"reserved_ip_ranges[{place}]",
            name,
            _IP_RANGE,
            "give the name of a reserved range",
            required=True,
        )
    if spec.reserved_ip_ranges and not spec.network:
        raise InvalidArgumentError(
            "reserved_ip_ranges",
            list(spec.reserved_ip_ranges),
            "the ranges are those of a network: set network too",
        )


def _check_nfs_mount(mount: NfsMount, field: str) -> None:
    check_text(f"{field}.server", mount.server, required=True)
    check_text(f"{field}.path", mount.path, required=True)
    check_text(f"{field}.mount_point", mount.mount_point, required=True)
    if mount.path and not has_template(mount.path) and not mount.path.startswith("/"):
        raise InvalidArgumentError(f"{field}.path", mount.path, "begin it with '/'")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        raise InvalidArgumentError("labels", len(labels), f"a cluster may have {MAX_LABELS} labels at most")
    for key, value in labels.items():
        if not has_template(key) and not (_is_label(key) and key and unicodedata.category(key[0]) in _LETTERS):
            raise InvalidArgumentError(
                "labels",
                key,
                "a key has 1 to 63 lower-case letters, digits, underscores and hyphens, a letter first",
            )
        if not has_template(value) and not _is_label(value):
            raise InvalidArgumentError(
                f"labels[{key!r}]",
                value,
                "a value has up to 63 lower-case letters, digits, underscores and hyphens",
            )


def _is_label(text: object) -> bool:
    if not isinstance(text, str) or len(text) > 63 or len(text.encode()) > 128:
        return False
    return all(letter in "_-" or unicodedata.category(letter) in (*_LETTERS, "Nd") for letter in text)


MAX_POOL_NODES = 1_000  # (D)
MAX_CLUSTER_NODES = 2_000  # (D)
DISK_TYPES = ("pd-ssd", "pd-standard")  # (C)
DISK_SIZE_GB = (100, 64_000)  # (C)

_MACHINE_TYPE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
_TPU_MACHINE = re.compile(r"ct\d|tpu")
_ACCELERATOR = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_TOO_SMALL_HEAD = re.compile(r"n1-standard-[124]")
_VCPUS = re.compile(r"[a-z0-9]+-[a-z]+-(\d+)")
_SHARED = "workers with the head's machine and accelerator share its pool"


def check_pools(spec: SpecFields) -> None:
    """Raise InvalidArgumentError for the first rule on nodes that ``spec`` breaks."""
    _check_head(spec.head_node_type)
    if not spec.worker_node_types:
        raise InvalidArgumentError(
            "worker_node_types",
            list(spec.worker_node_types),
            "ask for at least one worker: the head node has no CPUs for work, so jobs would wait for ever",
        )
    for place, worker in enumerate(spec.worker_node_types):
        _check_resources(worker, f"worker_node_types[{place}]")
    _check_images(spec.custom_images)
    for place, worker in enumerate(spec.worker_node_types):
        if worker.shares_machine(spec.head_node_type):
            _check_joining(spec, worker, f"worker_node_types[{place}]")
    _check_no_duplicates(spec)
    _check_size(spec)


def pool_warnings(spec: SpecFields) -> list[str]:
    """Return what the service takes for nodes but the user may regret."""
    found = []
    machine = spec.head_node_type.machine_type
    vcpus = _VCPUS.fullmatch(machine)
    if machine == "n1-standard-8":
        # (F)
        found.append(
            "head_node_type.machine_type: heads of n1-standard-8 were seen to come up with a dead dashboard; "
            "n1-standard-16 is advised"
        )
    elif vcpus and int(vcpus[1]) < 16:
        found.append(f"head_node_type.machine_type: {machine} is smaller than the n1-standard-16 advised for heads")
    for place, worker in enumerate(spec.worker_node_types):
        bounds = worker.autoscaling_spec
        if bounds is None or not worker.shares_machine(spec.head_node_type):
            continue
        field = f"worker_node_types[{place}].autoscaling_spec"
        found.append(f"{field}: {_SHARED}, so both bounds count the head")
        if bounds.min_replica_count == 1:
            found.append(f"{field}: the pool begins with the head alone; no work runs until it has grown")
        if any(later.autoscaling_spec is None for later in spec.worker_node_types[place + 1 :]):
            found.append(
                f"{field}: put these workers last; before workers of fixed size, the head's pool is asked "
                "for with replicaCount 0, as vertex_ray does"
            )
    return found


def _check_head(head: Resources) -> None:
    _check_resources(head, "head_node_type")
    if not has_template(head.node_count) and head.node_count != 1:
        raise InvalidArgumentError("head_node_type.node_count", head.node_count, "a cluster has exactly 1 head node")
    if head.autoscaling_spec is not None:
        raise InvalidArgumentError(
            "head_node_type.autoscaling_spec",
            head.autoscaling_spec,
            "the head does not autoscale: set it on workers",
        )
    if _TOO_SMALL_HEAD.fullmatch(head.machine_type):
        # (F) for n1-standard-4
        raise InvalidArgumentError(
            "head_node_type.machine_type",
            head.machine_type,
            "the service rejects heads this small; n1-standard-16 is advised",
        )


def _check_resources(machine: Resources, field: str) -> None:
    check_match(
        f"{field}.machine_type",
        machine.machine_type,
        _MACHINE_TYPE,
        "give a Compute Engine machine type such as n1-standard-16",
        required=True,
    )
    if _TPU_MACHINE.match(machine.machine_type):
        raise InvalidArgumentError(
            f"{field}.machine_type", machine.machine_type, "Ray on Vertex AI has no TPU machines"
        )
    check_whole(f"{field}.node_count", machine.node_count, 1, None, "ask for at least 1 node")
    _check_accelerator(machine, field)
    disk_type = machine.boot_disk_type
    if disk_type is not None and not has_template(disk_type) and disk_type not in DISK_TYPES:
        raise InvalidArgumentError(f"{field}.boot_disk_type", disk_type, f"use one of {', '.join(DISK_TYPES)}")
    if machine.boot_disk_size_gb is not None:
        low, high = DISK_SIZE_GB
        check_whole(f"{field}.boot_disk_size_gb", machine.boot_disk_size_gb, low, high, f"use {low} to {high} GB")
    check_text(f"{field}.custom_image", machine.custom_image)
    if machine.autoscaling_spec is not None:
        _check_autoscaling(machine.autoscaling_spec, f"{field}.autoscaling_spec")


def _check_accelerator(machine: Resources, field: str) -> None:
    kind, count = machine.accelerator_type, machine.accelerator_count
    check_whole(f"{field}.accelerator_count", count, 0, None, "use 0 for none")
    check_match(
        f"{field}.accelerator_type",
        kind,
        _ACCELERATOR,
        "use the API's spelling, e.g. NVIDIA_TESLA_T4 or NVIDIA_L4",
    )
    if kind is not None and kind.startswith("TPU_"):
        raise InvalidArgumentError(f"{field}.accelerator_type", kind, "Ray on Vertex AI has no TPUs")
    if has_template(count):
        return
    if kind is not None and not has_template(kind) and count == 0:
        raise InvalidArgumentError(
            f"{field}.accelerator_count", count, f"say how many {kind} each node has, at least 1"
        )
    if kind is None and count > 0:
        raise InvalidArgumentError(
            f"{field}.accelerator_type", kind, f"accelerator_count is {count}: say which accelerator"
        )


def _check_autoscaling(bounds: AutoscalingSpec, field: str) -> None:
    rule = f"use 1 to {MAX_POOL_NODES} nodes"
    low, high = bounds.min_replica_count, bounds.max_replica_count
    check_whole(f"{field}.min_replica_count", low, 1, MAX_POOL_NODES, rule)
    check_whole(f"{field}.max_replica_count", high, 1, MAX_POOL_NODES, rule)
    # The API's reference of ResourcePool.AutoscalingSpec: "> min_replica_count or will throw error". The 0 that it
    # also mentions for the minimum does not fit a pool of Ray, which keeps at least one node (D).
    if not has_template(low) and not has_template(high) and high <= low:
        raise InvalidArgumentError(f"{field}.max_replica_count", high, f"it must be above min_replica_count, {low}")


def _check_images(images: NodeImages | None) -> None:
    if images is None:
        return
    for name, image in (("head", images.head), ("worker", images.worker)):
        if image is None:
            raise InvalidArgumentError(f"custom_images.{name}", image, "give both images, head and worker")
        check_text(f"custom_images.{name}", image)


def _check_joining(spec: SpecFields, worker: Resources, field: str) -> None:
    """Check workers that share the head's pool, and so have nothing of their own but their number."""
    head, images = spec.head_node_type, spec.custom_images
    for name in ("boot_disk_type", "boot_disk_size_gb"):
        wanted, given = getattr(head, name), getattr(worker, name)
        if wanted != given and not has_template(wanted) and not has_template(given):
            raise InvalidArgumentError(f"{field}.{name}", given, f"{_SHARED} and its disks: use the head's, {wanted!r}")
    head_image = head.custom_image or (images.head if images else None)
    worker_image = worker.custom_image or (images.worker if images else None)
    if worker_image not in (None, head_image) and not has_template(worker_image) and not has_template(head_image):
        # The SDK drops the worker's image without a word.
        raise InvalidArgumentError(
            f"{field}.custom_image" if worker.custom_image else "custom_images.worker",
            worker_image,
            f"{_SHARED}, where all run the head's image, {head_image or 'the one of the service'}: "
            "use that for the workers too, or another machine type",
        )


def _check_no_duplicates(spec: SpecFields) -> None:
    seen: dict[tuple[Any, ...], int] = {}
    for place, worker in enumerate(spec.worker_node_types):
        # In a pool of its own an image tells two types apart; in the head's pool nothing does.
        image = None if worker.shares_machine(spec.head_node_type) else worker.custom_image
        key = (
            worker.machine_type,
            worker.accelerator_type,
            worker.accelerator_count,
            worker.boot_disk_type,
            worker.boot_disk_size_gb,
            image,
        )
        if key in seen:
            raise InvalidArgumentError(
                f"worker_node_types[{place}]",
                worker,
                f"it is the same as worker_node_types[{seen[key]}]: ask for one type with more nodes",
            )
        seen[key] = place


def _check_size(spec: SpecFields) -> None:
    if any(find_templates((spec.head_node_type, spec.worker_node_types))):
        return
    pools = spec.pools()
    for pool in pools:
        if pool.largest > MAX_POOL_NODES:
            raise InvalidArgumentError(
                "worker_node_types",
                pool.largest,
                f"pool {pool.pool_id} may have {MAX_POOL_NODES} nodes at most",
            )
    total = sum(pool.largest for pool in pools)
    if total > MAX_CLUSTER_NODES:
        raise InvalidArgumentError("worker_node_types", total, f"a cluster may have {MAX_CLUSTER_NODES} nodes at most")
