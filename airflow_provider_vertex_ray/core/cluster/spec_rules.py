"""Rules of a cluster spec, which reveal a mistake at DAG parse time instead of after minutes of provisioning.

The letters at rules name their sources (docs/service-facts.md): D is documented by Google, C is in the SDK's code, F
was reported by users of the service, A is in the API's reference or discovery document.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.core.checks import (
    check_flag,
    check_match,
    check_text,
    check_whole,
    has_template,
)
from airflow_provider_vertex_ray.core.cluster.machine_rules import (
    check_head_size,
    check_machine,
    is_small_head,
    machine_warnings,
)
from airflow_provider_vertex_ray.core.cluster.passthrough import check_passthrough, passthrough_warnings
from airflow_provider_vertex_ray.core.cluster.versions import is_rejected, is_version, known_versions, offered
from airflow_provider_vertex_ray.core.labels import check_labels
from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.cluster.spec_fields import SpecFields
    from airflow_provider_vertex_ray.core.cluster.spec_parts import AutoscalingSpec, NfsMount, NodeImages, Resources

__all__ = [
    "check_attachment_location",
    "check_key_location",
    "check_pools",
    "check_spec",
    "pool_warnings",
    "spec_warnings",
]


_NETWORK = re.compile(r"projects/(?P<project>[^/]+)/global/networks/[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PROJECT_NUMBER = re.compile(r"[0-9]+")
_ATTACHMENT = re.compile(
    r"(projects/[^/\s]+/regions/(?P<region>[a-z0-9-]+)/networkAttachments/)?[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
)
_KMS_KEY = re.compile(r"projects/[^/\s]+/locations/(?P<location>[^/\s]+)/keyRings/[^/\s]+/cryptoKeys/[^/\s]+")
_SERVICE_ACCOUNT = re.compile(r"[^@\s/]+@[^@\s/]+\.[^@\s/]+")
_IP_RANGE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def check_spec(spec: SpecFields) -> None:
    """Validate a spec; values that are still templates pass.

    :raises InvalidArgumentError: names the first rule that ``spec`` breaks
    """
    check_pools(spec)
    _check_versions(spec)
    check_flag("enable_metrics_collection", spec.enable_metrics_collection)
    check_flag("enable_logging", spec.enable_logging)
    _check_network(spec)
    check_passthrough(spec)
    for place, mount in enumerate(spec.nfs_mounts):
        _check_nfs_mount(mount, f"nfs_mounts[{place}]")
    check_labels("labels", spec.labels)
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


def check_attachment_location(attachment: str | None, location: str) -> None:
    """Validate that the network attachment is in the region of the cluster (D).

    :raises InvalidArgumentError: it is in another region
    """
    match = _ATTACHMENT.fullmatch(attachment or "")
    if match and match["region"] and match["region"] != location:
        raise InvalidArgumentError(
            "psc_interface_config.network_attachment",
            attachment,
            f"Use a network attachment in the region of the cluster, {location}.",
        )


def spec_warnings(spec: SpecFields) -> list[str]:
    """Return warnings about values that the service accepts but that may have an unwanted effect."""
    found = [*_version_warnings(spec), *pool_warnings(spec), *passthrough_warnings(spec)]
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
    for field in ("ray_version", "python_version"):
        value = getattr(spec, field)
        if value is not None and not is_version(value):
            short = ".".join(value.split(".")[:2])
            close = f" Did you mean {short}?" if is_version(short) else ""
            raise InvalidArgumentError(field, value, f"Use a version of two numbers, as in {offered()}.{close}")
    if is_rejected(spec.ray_version):
        raise InvalidArgumentError(
            "ray_version",
            spec.ray_version,
            f"Vertex AI does not offer this version; it offers {offered()}.",
        )


def _version_warnings(spec: SpecFields) -> list[str]:
    """Return a warning about versions that are in no table, which the service may offer since."""
    if has_template(spec.ray_version) or has_template(spec.python_version) or not _uses_official_image(spec):
        return []
    row = known_versions().get(spec.ray_version)
    if row is not None and spec.python_version in row.pythons:
        return []
    field = "ray_version" if row is None else "python_version"
    return [
        f"{field}: this package does not know an image with Ray {spec.ray_version} and Python {spec.python_version}, "
        f"and Vertex AI may reject it; known are {offered()}. The option [vertex_ray] ray_versions adds others"
    ]


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


MAX_POOL_NODES = 1_000  # (D)
MAX_CLUSTER_NODES = 2_000  # (D)

_SHARED = "workers with the head's machine type and accelerator share its pool"


def check_pools(spec: SpecFields) -> None:
    """Validate the nodes of a spec; values that are still templates pass.

    :raises InvalidArgumentError: names the first rule that the nodes of ``spec`` break
    """
    _check_head(spec.head_node_type)
    check_flag("allow_small_head", spec.allow_small_head)
    check_head_size(spec.head_node_type.machine_type, allow_small=spec.allow_small_head)
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
    _check_head_pool(spec)
    _check_size(spec)


def pool_warnings(spec: SpecFields) -> list[str]:
    """Return warnings about nodes that the service accepts but that may have an unwanted effect."""
    found = []
    head = spec.head_node_type
    for field, machine in _machines(spec):
        found += machine_warnings(machine, field)
    if is_small_head(head.machine_type):
        # (F)
        found.append(
            f"head_node_type.machine_type: {head.machine_type} is smaller than n1-standard-16, the recommended head; "
            "its dashboard may never answer"
        )
    fixed = [worker for worker in spec.worker_node_types if worker.autoscaling_spec is None]
    if fixed and len(fixed) < len(spec.worker_node_types):
        # (D) "Configure the autoscaling specification of all worker pools"
        found.append(
            "worker_node_types: some pools autoscale and others do not; Google's documentation asks for "
            "autoscaling_spec on all worker pools"
        )
    if spec.pools_known() and all(pool.smallest == 0 for pool in spec.pools()[1:]) and spec.pools()[0].smallest == 1:
        found.append("worker_node_types: the cluster starts with the head alone; no work runs until it has scaled up")
    for place, worker in enumerate(spec.worker_node_types):
        bounds = worker.autoscaling_spec
        if bounds is None or not worker.shares_machine(spec.head_node_type):
            continue
        field = f"worker_node_types[{place}].autoscaling_spec"
        found.append(f"{field}: {_SHARED}, so both bounds include the head")
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


def _check_resources(machine: Resources, field: str) -> None:
    check_whole(f"{field}.node_count", machine.node_count, 1, None, "Use a whole number of at least 1.")
    check_machine(machine, field)
    check_text(f"{field}.custom_image", machine.custom_image)
    if machine.autoscaling_spec is not None:
        _check_autoscaling(machine.autoscaling_spec, f"{field}.autoscaling_spec")


def _check_autoscaling(bounds: AutoscalingSpec, field: str) -> None:
    low, high = bounds.min_replica_count, bounds.max_replica_count
    # (A) "For autoscaling enabled Ray-on-Vertex, we allow min_replica_count of a resource_pool to be 0".
    rule = f"Use a whole number of nodes from 0 to {MAX_POOL_NODES}."
    check_whole(f"{field}.min_replica_count", low, 0, MAX_POOL_NODES, rule)
    check_whole(
        f"{field}.max_replica_count",
        high,
        1,
        MAX_POOL_NODES,
        f"Use a whole number of nodes from 1 to {MAX_POOL_NODES}.",
    )
    # (A) "> min_replica_count or will throw error"
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
    for name in ("boot_disk_type", "boot_disk_size_gb", "reservation_affinity"):
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


def _check_head_pool(spec: SpecFields) -> None:
    """Validate the workers that share the head's pool together: the pool has one size, or one pair of bounds."""
    joining = [
        (f"worker_node_types[{place}]", worker)
        for place, worker in enumerate(spec.worker_node_types)
        if worker.shares_machine(spec.head_node_type)
    ]
    scaling = [(field, worker.autoscaling_spec) for field, worker in joining if worker.autoscaling_spec is not None]
    for field, bounds in scaling:
        if not has_template(bounds.min_replica_count) and bounds.min_replica_count < 1:
            raise InvalidArgumentError(
                f"{field}.autoscaling_spec.min_replica_count",
                bounds.min_replica_count,
                f"Use at least 1; {_SHARED}, so the bounds include the head.",
            )
    if scaling and len(joining) > 1:
        # The SDK would silently drop all but the last of them.
        raise InvalidArgumentError(
            scaling[0][0],
            joining[-1][1],
            f"Merge these worker types into one; {_SHARED}, which has one pair of bounds.",
        )


def _machines(spec: SpecFields) -> list[tuple[str, Resources]]:
    workers = [(f"worker_node_types[{place}]", worker) for place, worker in enumerate(spec.worker_node_types)]
    return [("head_node_type", spec.head_node_type), *workers]


def _check_size(spec: SpecFields) -> None:
    if not spec.pools_known():
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
