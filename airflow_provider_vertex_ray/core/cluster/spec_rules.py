"""Rules of a cluster spec, which reveal a mistake at DAG parse time instead of after minutes of provisioning.

The letters at rules name their sources (docs/service-facts.md): D is documented by Google, C is in the SDK's code, F
was reported by users of the service.
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
# Lower-case letters, and letters of scripts without case.
_LETTERS = frozenset({"Ll", "Lo"})


def check_spec(spec: SpecFields) -> None:
    """Validate a spec; values that are still templates pass.

    :raises InvalidArgumentError: names the first rule that ``spec`` breaks
    """
    check_pools(spec)
    _check_versions(spec)
    check_flag("enable_metrics_collection", spec.enable_metrics_collection)
    check_flag("enable_logging", spec.enable_logging)
    _check_network(spec)
    for place, mount in enumerate(spec.nfs_mounts):
        _check_nfs_mount(mount, f"nfs_mounts[{place}]")
    _check_labels(spec.labels)
    check_match("service_account", spec.service_account, _SERVICE_ACCOUNT, "Use the e-mail address of the account.")
    check_match(
        "encryption_spec_key_name",
        spec.encryption_spec_key_name,
        _KMS_KEY,
        "Use projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY.",
    )


def check_key_location(key_name: str | None, location: str) -> None:
    """Validate that the encryption key is in the region of the cluster (D).

    :raises InvalidArgumentError: it is in another region
    """
    match = _KMS_KEY.fullmatch(key_name or "")
    if match and match["location"] != location:
        raise InvalidArgumentError(
            "encryption_spec_key_name", key_name, f"Use a key in the region of the cluster, {location}."
        )


def spec_warnings(spec: SpecFields) -> list[str]:
    """Return warnings about values that the service accepts but that may have an unwanted effect."""
    found = pool_warnings(spec)
    if spec.service_account and spec.network:
        found.append(
            "service_account: on a peered network, the Ray Client (vertex_ray://) does not work with a custom service "
            "account; jobs do"
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
        f"Vertex AI has no image with Ray {spec.ray_version} and this Python version; it offers {offered}.",
    )


def _uses_official_image(spec: SpecFields) -> bool:
    """Tell whether the versions matter: all they do is to select the service's images."""
    if spec.custom_images is not None:
        return False
    head = spec.head_node_type
    own_pools = [worker for worker in spec.worker_node_types if not worker.shares_machine(head)]
    return any(machine.custom_image is None for machine in (head, *own_pools))


def _check_network(spec: SpecFields) -> None:
    rule = "Use projects/PROJECT_NUMBER/global/networks/NAME"
    check_match("network", spec.network, _NETWORK, f"{rule}.")
    match = None if has_template(spec.network) else _NETWORK.fullmatch(spec.network or "")
    if match and not _PROJECT_NUMBER.fullmatch(match["project"]):
        raise InvalidArgumentError(
            "network", spec.network, f"{rule}; the service requires the number of the project, not its id."
        )
    psc = spec.psc_interface_config
    if psc is not None:
        check_match(
            "psc_interface_config.network_attachment",
            psc.network_attachment,
            _ATTACHMENT,
            "Use the name of a network attachment, or projects/NUMBER/regions/REGION/networkAttachments/NAME.",
            required=True,
        )
        if spec.network:
            raise InvalidArgumentError("psc_interface_config", psc, "Use either this or a peered network, not both.")
    for place, name in enumerate(spec.reserved_ip_ranges):
        check_match(
            f"reserved_ip_ranges[{place}]",
            name,
            _IP_RANGE,
            "Use the name of a reserved IP range.",
            required=True,
        )
    if spec.reserved_ip_ranges and not spec.network:
        raise InvalidArgumentError(
            "reserved_ip_ranges",
            list(spec.reserved_ip_ranges),
            "Set network as well; the ranges are reserved in a network.",
        )


def _check_nfs_mount(mount: NfsMount, field: str) -> None:
    check_text(f"{field}.server", mount.server, required=True)
    check_text(f"{field}.path", mount.path, required=True)
    check_text(f"{field}.mount_point", mount.mount_point, required=True)
    if mount.path and not has_template(mount.path) and not mount.path.startswith("/"):
        raise InvalidArgumentError(f"{field}.path", mount.path, "Use a path that begins with '/'.")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        raise InvalidArgumentError("labels", len(labels), f"Use at most {MAX_LABELS} labels.")
    for key, value in labels.items():
        if not has_template(key) and not (_is_label(key) and key and unicodedata.category(key[0]) in _LETTERS):
            raise InvalidArgumentError(
                "labels",
                key,
                "Use a key of 1 to 63 lower-case letters, digits, underscores and hyphens that begins with a letter.",
            )
        if not has_template(value) and not _is_label(value):
            raise InvalidArgumentError(
                f"labels[{key!r}]",
                value,
                "Use a value of at most 63 lower-case letters, digits, underscores and hyphens.",
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
_SHARED = "workers with the head's machine type and accelerator share its pool"


def check_pools(spec: SpecFields) -> None:
    """Validate the nodes of a spec; values that are still templates pass.

    :raises InvalidArgumentError: names the first rule that the nodes of ``spec`` break
    """
    _check_head(spec.head_node_type)
    if not spec.worker_node_types:
        raise InvalidArgumentError(
            "worker_node_types",
            list(spec.worker_node_types),
            "Use at least one worker type; the head node has no CPUs for work, so jobs would wait forever.",
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
    """Return warnings about nodes that the service accepts but that may have an unwanted effect."""
    found = []
    machine = spec.head_node_type.machine_type
    vcpus = _VCPUS.fullmatch(machine)
    if machine == "n1-standard-8":
        # (F)
        found.append(
            "head_node_type.machine_type: on n1-standard-8, the dashboard of the head may never respond; "
            "n1-standard-16 is recommended"
        )
    elif vcpus and int(vcpus[1]) < 16:
        found.append(f"head_node_type.machine_type: {machine} is smaller than n1-standard-16, the recommended head")
    for place, worker in enumerate(spec.worker_node_types):
        bounds = worker.autoscaling_spec
        if bounds is None or not worker.shares_machine(spec.head_node_type):
            continue
        field = f"worker_node_types[{place}].autoscaling_spec"
        found.append(f"{field}: {_SHARED}, so both bounds include the head")
        if bounds.min_replica_count == 1:
            found.append(f"{field}: the pool starts with the head alone; no work runs until it has scaled up")
        if any(later.autoscaling_spec is None for later in spec.worker_node_types[place + 1 :]):
            found.append(
                f"{field}: put these workers last; otherwise the head's pool is requested with replicaCount 0, as by "
                "vertex_ray"
            )
    return found


def _check_head(head: Resources) -> None:
    _check_resources(head, "head_node_type")
    if not has_template(head.node_count) and head.node_count != 1:
        raise InvalidArgumentError("head_node_type.node_count", head.node_count, "Use exactly 1 head node.")
    if head.autoscaling_spec is not None:
        raise InvalidArgumentError(
            "head_node_type.autoscaling_spec",
            head.autoscaling_spec,
            "Set it on workers; the head does not autoscale.",
        )
    if _TOO_SMALL_HEAD.fullmatch(head.machine_type):
        # (F) for n1-standard-4
        raise InvalidArgumentError(
            "head_node_type.machine_type",
            head.machine_type,
            "Use a larger machine, such as n1-standard-16; Vertex AI rejects heads of this size.",
        )


def _check_resources(machine: Resources, field: str) -> None:
    check_match(
        f"{field}.machine_type",
        machine.machine_type,
        _MACHINE_TYPE,
        "Use a Compute Engine machine type such as n1-standard-16.",
        required=True,
    )
    if _TPU_MACHINE.match(machine.machine_type):
        raise InvalidArgumentError(
            f"{field}.machine_type",
            machine.machine_type,
            "Use another machine type; Ray on Vertex AI does not support TPUs.",
        )
    check_whole(f"{field}.node_count", machine.node_count, 1, None, "Use a whole number of at least 1.")
    _check_accelerator(machine, field)
    disk_type = machine.boot_disk_type
    if disk_type is not None and not has_template(disk_type) and disk_type not in DISK_TYPES:
        raise InvalidArgumentError(f"{field}.boot_disk_type", disk_type, f"Use one of {', '.join(DISK_TYPES)}.")
    if machine.boot_disk_size_gb is not None:
        low, high = DISK_SIZE_GB
        rule = f"Use a whole number of GB from {low} to {high}."
        check_whole(f"{field}.boot_disk_size_gb", machine.boot_disk_size_gb, low, high, rule)
    check_text(f"{field}.custom_image", machine.custom_image)
    if machine.autoscaling_spec is not None:
        _check_autoscaling(machine.autoscaling_spec, f"{field}.autoscaling_spec")


def _check_accelerator(machine: Resources, field: str) -> None:
    kind, count = machine.accelerator_type, machine.accelerator_count
    check_whole(f"{field}.accelerator_count", count, 0, None, "Use a whole number; 0 for no accelerator.")
    check_match(
        f"{field}.accelerator_type",
        kind,
        _ACCELERATOR,
        "Use the spelling of the API, e.g. NVIDIA_TESLA_T4 or NVIDIA_L4.",
    )
    if kind is not None and kind.startswith("TPU_"):
        raise InvalidArgumentError(
            f"{field}.accelerator_type", kind, "Use another accelerator; Ray on Vertex AI does not support TPUs."
        )
    if has_template(count):
        return
    if kind is not None and not has_template(kind) and count == 0:
        raise InvalidArgumentError(
            f"{field}.accelerator_count", count, f"Use the number of {kind} of each node, at least 1."
        )
    if kind is None and count > 0:
        raise InvalidArgumentError(
            f"{field}.accelerator_type", kind, f"Set the accelerator type; accelerator_count is {count}."
        )


def _check_autoscaling(bounds: AutoscalingSpec, field: str) -> None:
    rule = f"Use a whole number of nodes from 1 to {MAX_POOL_NODES}."
    low, high = bounds.min_replica_count, bounds.max_replica_count
    check_whole(f"{field}.min_replica_count", low, 1, MAX_POOL_NODES, rule)
    check_whole(f"{field}.max_replica_count", high, 1, MAX_POOL_NODES, rule)
    # API reference of ResourcePool.AutoscalingSpec: "> min_replica_count or will throw error". The minimum of 0 that it
    # also mentions does not apply to a Ray pool, which keeps at least one node (D).
    if not has_template(low) and not has_template(high) and high <= low:
        raise InvalidArgumentError(
            f"{field}.max_replica_count", high, f"Use a number above min_replica_count, which is {low}."
        )


def _check_images(images: NodeImages | None) -> None:
    if images is None:
        return
    for name, image in (("head", images.head), ("worker", images.worker)):
        if image is None:
            raise InvalidArgumentError(f"custom_images.{name}", image, "Set both images, head and worker.")
        check_text(f"custom_images.{name}", image)


def _check_joining(spec: SpecFields, worker: Resources, field: str) -> None:
    """Validate workers that share the head's pool, where only their number can differ from the head."""
    head, images = spec.head_node_type, spec.custom_images
    for name in ("boot_disk_type", "boot_disk_size_gb"):
        wanted, given = getattr(head, name), getattr(worker, name)
        if wanted != given and not has_template(wanted) and not has_template(given):
            raise InvalidArgumentError(
                f"{field}.{name}", given, f"Use the value of the head, {wanted!r}; {_SHARED} and its disks."
            )
    head_image = head.custom_image or (images.head if images else None)
    worker_image = worker.custom_image or (images.worker if images else None)
    if worker_image not in (None, head_image) and not has_template(worker_image) and not has_template(head_image):
        # The SDK silently drops the worker's image.
        raise InvalidArgumentError(
            f"{field}.custom_image" if worker.custom_image else "custom_images.worker",
            worker_image,
            f"Use the image of the head, {head_image or 'the default image'}, or another machine type; {_SHARED}, "
            "where all nodes run the image of the head.",
        )


def _check_no_duplicates(spec: SpecFields) -> None:
    seen: dict[tuple[Any, ...], int] = {}
    for place, worker in enumerate(spec.worker_node_types):
        joins_head = worker.shares_machine(spec.head_node_type)
        if joins_head and worker.autoscaling_spec is None:
            # They add up there, as in the SDK.
            continue
        # In a pool of its own, an image distinguishes two types; in the head's pool, nothing does.
        image = None if joins_head else worker.custom_image
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
                f"Merge it with worker_node_types[{seen[key]}], which is the same, into one type with more nodes.",
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
                f"Use at most {MAX_POOL_NODES} nodes in pool {pool.pool_id}.",
            )
    total = sum(pool.largest for pool in pools)
    if total > MAX_CLUSTER_NODES:
        raise InvalidArgumentError("worker_node_types", total, f"Use at most {MAX_CLUSTER_NODES} nodes in a cluster.")
