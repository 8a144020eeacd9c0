"""Checks on a create and on an update, with the errors that the service answers.

The rules come from the API's reference and from reports of live runs; where only the rule is known, the text
was made up here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.project.catalog import HYPERDISK_MACHINES, MACHINES, accelerator_problem
from vertex_ray_emulator.project.plan import head_pool_id, is_ray, replicas
from vertex_ray_emulator.wire.errors import ApiError, invalid
from vertex_ray_emulator.wire.protos import accelerator_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ID_PATTERN = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
NETWORK_PATTERN = re.compile(r"projects/[0-9]+/global/networks/[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
ATTACHMENT_PATTERN = re.compile(
    r"projects/[a-z0-9:.-]+/regions/[a-z0-9-]+/networkAttachments/[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
)
KMS_PATTERN = re.compile(
    r"projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/keyRings/(?P<ring>[^/]+)/cryptoKeys/(?P<key>[^/]+)"
)
IMAGE_PATTERN = re.compile(
    r"[a-z0-9][a-z0-9.-]*\.[a-z]+(/[A-Za-z0-9._-]+)+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
OWN_IMAGE_PATTERN = re.compile(
    r"(?:us|europe|asia)-docker\.pkg\.dev/vertex-ai/training/(?P<image>ray-[^/:@]*)(?:[:@].*)?"
)
IMAGE_NAME_PATTERN = re.compile(r"ray-(?:cpu|gpu)\.(?P<major>\d+)-(?P<minor>\d+)\.(?P<python>py\d+)")
SERVICE_ACCOUNT_PATTERN = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")

DISK_TYPES = ("pd-ssd", "pd-standard", "hyperdisk-balanced")
DISK_GB = (100, 64_000)
MAX_NODES = 2_000
MAX_NODES_PER_POOL = 1_000
MAX_LABELS = 64
MAX_LABEL_CHARACTERS = 64
MAX_DISPLAY_NAME = 128
RAY_IMAGES = {(2, 42): ("py310", "py311"), (2, 47): ("py311",)}
"""Python versions of the service's own images, by Ray version."""
TOO_SMALL_FOR_A_HEAD = ("n1-standard-4",)
REPLICA_COUNT = "resource_pools.replica_count"


def check_id(cluster_id: str) -> None:
    """Raise an error for an id that does not match the API's pattern."""
    if not ID_PATTERN.fullmatch(cluster_id):
        raise invalid(
            f"Invalid persistent_resource_id: {cluster_id!r}. It must match the pattern "
            f"`{ID_PATTERN.pattern}` and be at most 63 characters long."
        )


def check_create(resource: Any, region: str, *, strict: bool = False) -> None:
    """Raise an error for a persistent resource that cannot be created.

    :param resource: the v1beta1 message as the caller sent it.
    :param region: region in which it is created.
    :param strict: refuse what the service may refuse, too (trait ``strict-specs``).
    :raises ApiError: INVALID_ARGUMENT with the name of the field.
    """
    if len(resource.display_name) > MAX_DISPLAY_NAME:
        raise invalid(f"display_name must be at most {MAX_DISPLAY_NAME} characters long.")
    _check_pools(resource)
    check_labels(resource.labels)
    _check_network(resource, region)
    if resource.HasField("encryption_spec"):
        _check_key(resource.encryption_spec.kms_key_name, region)
    if strict:
        _check_strictly(resource)
    _check_service_account(resource.resource_runtime_spec.service_account_spec)
    if is_ray(resource):
        _check_ray(resource)


def _check_key(name: str, region: str) -> None:
    match = KMS_PATTERN.fullmatch(name)
    if match is None:
        raise invalid(
            f"Invalid encryption_spec.kms_key_name: {name!r}. Expected "
            "projects/{project}/locations/{location}/keyRings/{key_ring}/cryptoKeys/{key}."
        )
    if match["location"] != region:
        raise invalid(
            f"Invalid encryption_spec.kms_key_name: {name!r}. The key must be in the region of the resource, {region}."
        )


def _check_strictly(resource: Any) -> None:
    """Refuse what reports or pages say that the service refuses, although its API's reference does not."""
    for i, pool in enumerate(resource.resource_pools):
        where, spec = f"resource_pools[{i}]", pool.machine_spec
        if spec.HasField("reservation_affinity"):
            # Quoted in hashicorp/magic-modules#18273.
            raise invalid("Reservation affinity is not supported yet for persistent clusters.")
        disk = pool.disk_spec.boot_disk_type
        if spec.machine_type in HYPERDISK_MACHINES and disk not in ("", "hyperdisk-balanced"):
            raise invalid(f"{where}.disk_spec.boot_disk_type: {disk!r} cannot be used with {spec.machine_type}.")
    if not is_ray(resource) or not resource.resource_pools:
        return
    head = head_pool_id(resource)
    workers = [pool for pool in resource.resource_pools if pool.id != head]
    # "Configure the autoscaling specification of all worker pools" (page "Scale Ray clusters on Vertex AI").
    if len({pool.HasField("autoscaling_spec") for pool in workers}) > 1:
        raise invalid("resource_pools: autoscaling_spec must be set for all worker pools or for none.")


def _check_pools(resource: Any) -> None:
    pools = resource.resource_pools
    if not pools:
        raise invalid("resource_pools must contain at least one resource pool.")
    seen: set[str] = set()
    for i, pool in enumerate(pools):
        where = f"resource_pools[{i}]"
        if not ID_PATTERN.fullmatch(pool.id):
            raise invalid(f"Invalid {where}.id: {pool.id!r}. It must match the pattern `{ID_PATTERN.pattern}`.")
        if pool.id in seen:
            raise invalid(f"Duplicate {where}.id: {pool.id!r}.")
        seen.add(pool.id)
        _check_machine(pool.machine_spec, where)
        _check_disk(pool.disk_spec, where)
        _check_count(pool, where, ray=is_ray(resource))
    _check_total(pools)


def _check_machine(spec: Any, where: str) -> None:
    if not spec.machine_type:
        raise invalid(f"{where}.machine_spec.machine_type is required.")
    if spec.tpu_topology or spec.machine_type.startswith("ct"):
        raise invalid(f"{where}.machine_spec: TPUs are not supported for persistent resources.")
    machine = MACHINES.get(spec.machine_type)
    if machine is None:
        raise invalid(f"{where}.machine_spec: machine type {spec.machine_type!r} is not supported.")
    if problem := accelerator_problem(machine, accelerator_name(spec), spec.accelerator_count):
        raise invalid(f"{where}.machine_spec: {problem}.")


def _check_disk(spec: Any, where: str) -> None:
    if spec.boot_disk_type and spec.boot_disk_type not in DISK_TYPES:
        raise invalid(
            f"{where}.disk_spec.boot_disk_type: {spec.boot_disk_type!r} is not supported; "
            f"it must be one of {list(DISK_TYPES)}."
        )
    size = spec.boot_disk_size_gb
    if size and not DISK_GB[0] <= size <= DISK_GB[1]:
        raise invalid(
            f"{where}.disk_spec.boot_disk_size_gb: {size} is out of range; it must be between {DISK_GB[0]} "
            f"and {DISK_GB[1]}."
        )


def _check_count(pool: Any, where: str, *, ray: bool) -> None:
    if pool.HasField("autoscaling_spec"):
        least, most = pool.autoscaling_spec.min_replica_count, pool.autoscaling_spec.max_replica_count
        # "we allow min_replica_count of a resource_pool to be 0" for Ray, and "must be > 0" for others:
        # the API's reference of AutoscalingSpec.
        if least < (0 if ray else 1):
            raise invalid(f"{where}.autoscaling_spec.min_replica_count must be at least {0 if ray else 1}.")
        if most <= least:
            raise invalid(
                f"{where}.autoscaling_spec.max_replica_count ({most}) must be greater than min_replica_count ({least})."
            )
        if most > MAX_NODES_PER_POOL:
            raise invalid(f"{where}.autoscaling_spec.max_replica_count must be at most {MAX_NODES_PER_POOL}.")
        if pool.replica_count and not least <= pool.replica_count <= most:
            raise invalid(
                f"{where}.replica_count ({pool.replica_count}) must be between autoscaling_spec's "
                f"min_replica_count ({least}) and max_replica_count ({most})."
            )
        return
    _check_replica_count(pool.replica_count, where)


def _check_replica_count(count: int, where: str) -> None:
    if count < 1:
        raise invalid(f"{where}.replica_count must be at least 1.")
    if count > MAX_NODES_PER_POOL:
        raise invalid(f"{where}.replica_count must be at most {MAX_NODES_PER_POOL}.")


def _check_total(pools: Iterable[Any]) -> None:
    total = sum(replicas(pool) for pool in pools)
    if total > MAX_NODES:
        raise invalid(f"The total of resource_pools.replica_count is {total}; it must be at most {MAX_NODES}.")


def _is_label_character(char: str) -> bool:
    return char in "_-" or unicodedata.category(char) in ("Ll", "Lo", "Lm", "Mn", "Mc", "Nd", "Nl", "No")


def check_labels(labels: Any) -> None:
    """Raise an error for labels that are not allowed."""
    if len(labels) > MAX_LABELS:
        raise invalid(f"labels: at most {MAX_LABELS} labels are allowed, not {len(labels)}.")
    for key, value in labels.items():
        if not key or unicodedata.category(key[0]) not in ("Ll", "Lo"):
            raise invalid(f"labels: the key {key!r} must start with a lowercase letter.")
        for text, what in ((key, "key"), (value, "value")):
            if len(text) > MAX_LABEL_CHARACTERS:
                raise invalid(f"labels: the {what} {text!r} is longer than {MAX_LABEL_CHARACTERS} characters.")
            if not all(map(_is_label_character, text)):
                raise invalid(
                    f"labels: the {what} {text!r} can only contain lowercase letters, numeric characters, "
                    "underscores and dashes."
                )


def _check_network(resource: Any, region: str) -> None:
    if resource.network and resource.HasField("psc_interface_config"):
        raise invalid("network and psc_interface_config cannot be set together.")
    if resource.network and not NETWORK_PATTERN.fullmatch(resource.network):
        raise invalid(
            f"Invalid network: {resource.network!r}. Expected projects/{{project}}/global/networks/"
            "{network}, where {project} is a project number."
        )
    attachment = resource.psc_interface_config.network_attachment
    if attachment and "/" in attachment and not ATTACHMENT_PATTERN.fullmatch(attachment):
        raise invalid(
            f"Invalid psc_interface_config.network_attachment: {attachment!r}. Expected "
            "projects/{project}/regions/{region}/networkAttachments/{name}."
        )
    if "/" in attachment and attachment.split("/")[3] != region:
        raise invalid(
            f"Invalid psc_interface_config.network_attachment: {attachment!r}. The network attachment must be in the "
            f"region of the resource, {region}."
        )


def _check_service_account(spec: Any) -> None:
    if spec.service_account and not spec.enable_custom_service_account:
        raise invalid(
            "resource_runtime_spec.service_account_spec.service_account requires "
            "enable_custom_service_account to be true."
        )
    if spec.service_account and not SERVICE_ACCOUNT_PATTERN.fullmatch(spec.service_account):
        raise invalid(
            "Invalid resource_runtime_spec.service_account_spec.service_account: "
            f"{spec.service_account!r} is not an email address."
        )


def _is_offered(image: str) -> bool:
    """Return whether an image is a custom one, or one of the service's own that exists."""
    own = OWN_IMAGE_PATTERN.fullmatch(image)
    if own is None:
        return True
    name = IMAGE_NAME_PATTERN.fullmatch(own["image"])
    if name is None:
        return False
    version = (int(name["major"]), int(name["minor"]))
    # A version newer than all that are known here may have been added since: a client that knows it is not refused.
    return version > max(RAY_IMAGES) or name["python"] in RAY_IMAGES.get(version, ())


def _check_ray(resource: Any) -> None:
    ray = resource.resource_runtime_spec.ray_spec
    where = "resource_runtime_spec.ray_spec"
    ids = [pool.id for pool in resource.resource_pools]
    for image, field in [(ray.image_uri, "image_uri")] + [
        (image, f"resource_pool_images[{pool!r}]") for pool, image in ray.resource_pool_images.items()
    ]:
        if image and not IMAGE_PATTERN.fullmatch(image):
            raise invalid(f"Invalid {where}.{field}: {image!r} is not an image URI.")
        if image and not _is_offered(image):
            raise invalid(f"Invalid {where}.{field}: {image!r}. The image does not exist or is no longer available.")
    if unknown := sorted(set(ray.resource_pool_images) - set(ids)):
        raise invalid(f"{where}.resource_pool_images: the resource pool {unknown[0]!r} does not exist.")
    if not ray.image_uri and (missing := [i for i in ids if not ray.resource_pool_images.get(i)]):
        raise invalid(f"{where}: either image_uri or resource_pool_images[{missing[0]!r}] is required.")
    if ray.head_node_resource_pool_id and ray.head_node_resource_pool_id not in ids:
        raise invalid(
            f"{where}.head_node_resource_pool_id: the resource pool {ray.head_node_resource_pool_id!r} does not exist."
        )
    head = next(pool for pool in resource.resource_pools if pool.id == head_pool_id(resource))
    if replicas(head) < 1:
        raise invalid(f"The resource pool {head.id!r} of the head node must have at least one replica.")
    if head.machine_spec.machine_type in TOO_SMALL_FOR_A_HEAD:
        raise invalid(
            f"Machine type {head.machine_spec.machine_type!r} is not supported for the head node of a Ray cluster."
        )
    if any(not m.server or not m.path or not m.mount_point for m in ray.nfs_mounts):
        raise invalid(f"{where}.nfs_mounts: server, path and mount_point are required.")


def snake_case(path: str) -> str:
    """Return a field mask's path in the proto's spelling; REST clients send it in camelCase."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m.group(1).lower(), path)


def check_mask(paths: Sequence[str]) -> None:
    """Raise an error for an update of anything but the replica counts."""
    if not paths:
        raise invalid("update_mask is required.")
    for path in paths:
        if snake_case(path) != REPLICA_COUNT:
            raise invalid(
                f"Updating {path!r} is not supported; only `{REPLICA_COUNT}` of a PersistentResource can be updated."
            )


def wanted_counts(current: Any, wanted: Any) -> dict[str, int]:
    """Return the replica count of each pool after an update.

    :param current: resource before the update.
    :param wanted: resource as the caller sent it.
    :raises ApiError: INVALID_ARGUMENT if pools are added or removed, or if a count is out of range.
    """
    ids = [pool.id for pool in wanted.resource_pools]
    have = [pool.id for pool in current.resource_pools]
    if added := [i for i in ids if i not in have]:
        raise invalid(f"resource_pools: adding the resource pool {added[0]!r} is not supported.")
    if removed := [i for i in have if i not in ids]:
        raise invalid(f"resource_pools: removing the resource pool {removed[0]!r} is not supported.")
    if len(ids) != len(set(ids)):
        raise invalid("resource_pools: ids must be unique.")
    by_id = {pool.id: pool for pool in current.resource_pools}
    counts: dict[str, int] = {}
    for i, pool in enumerate(wanted.resource_pools):
        where = f"resource_pools[{i}]"
        if not by_id[pool.id].HasField("autoscaling_spec"):
            _check_replica_count(pool.replica_count, where)
        if by_id[pool.id].HasField("autoscaling_spec"):
            bounds = by_id[pool.id].autoscaling_spec
            if not bounds.min_replica_count <= pool.replica_count <= bounds.max_replica_count:
                raise invalid(
                    f"{where}.replica_count ({pool.replica_count}) must be between autoscaling_spec's "
                    f"min_replica_count ({bounds.min_replica_count}) and max_replica_count "
                    f"({bounds.max_replica_count})."
                )
        if pool.replica_count < 1 and is_ray(current) and pool.id == head_pool_id(current):
            raise invalid(f"{where}.replica_count must be at least 1: the resource pool {pool.id!r} has the head node.")
        counts[pool.id] = int(pool.replica_count)
    if sum(counts.values()) > MAX_NODES:
        raise invalid(
            f"The total of resource_pools.replica_count is {sum(counts.values())}; it must be at most {MAX_NODES}."
        )
    return counts


def check_state_allows(resource_id: str, state: str, allowed: Iterable[str], action: str) -> None:
    """Raise an error for an action that is not allowed in the current state."""
    if state not in allowed:
        raise ApiError(
            "FAILED_PRECONDITION",
            f"The PersistentResource {resource_id!r} is in state {state}; it cannot be {action} in this state.",
        )
