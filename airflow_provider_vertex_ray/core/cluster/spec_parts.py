"""Parts of a cluster spec: plain dataclasses with the SDK's own names, fields and defaults.

Wherever a part is expected, an object of the SDK (``vertex_ray.Resources`` and so on) or a dict is accepted as well.
Objects are recognised by their attributes, because importing the SDK takes seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_vertex_ray.core.checks import did_you_mean
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["AutoscalingSpec", "NfsMount", "NodeImages", "PscIConfig", "Resources"]


@dataclass(frozen=True)
class AutoscalingSpec:
    """Bounds of an autoscaling worker pool.

    If the workers have the head's machine type and accelerator, they share its pool, and **both bounds include the
    head**: ``AutoscalingSpec(2, 5)`` then means one to four workers. (Source: the SDK's code.)

    :param min_replica_count: minimum number of nodes; 0 for a pool that is empty until work needs it. At least 1 if
        the workers share the head's pool.
    :param max_replica_count: maximum number of nodes, above the minimum and at most 1,000
    """

    min_replica_count: int = 1
    max_replica_count: int = 2


@dataclass(frozen=True)
class Resources:
    """Machines of the head or of one worker type.

    :param machine_type: Compute Engine machine type; the service does not support TPU machines
    :param node_count: number of nodes, at least 1; exactly 1 for the head. The service ignores it if
        ``autoscaling_spec`` is set.
    :param accelerator_type: GPU type as the API spells it, e.g. ``NVIDIA_TESLA_T4``
    :param accelerator_count: number of GPUs of each node; 0 for none
    :param boot_disk_type: ``pd-ssd``, ``pd-standard`` or ``hyperdisk-balanced``; None for the service's default. On
        machines that have ``hyperdisk-balanced`` only, such as ``a3-ultragpu-8g``, the default means that.
    :param boot_disk_size_gb: 100 to 64,000 GB; None for the service's default
    :param custom_image: container image to use instead of the service's own
    :param autoscaling_spec: bounds of the number of nodes, for workers only
    :param reservation_affinity: the API's ``ReservationAffinity`` as a dict, passed through as it is; not in the SDK
    """

    machine_type: str = "n1-standard-16"
    node_count: int = 1
    accelerator_type: str | None = None
    accelerator_count: int = 0
    boot_disk_type: str | None = "pd-ssd"
    boot_disk_size_gb: int | None = 100
    custom_image: str | None = None
    autoscaling_spec: AutoscalingSpec | None = None
    reservation_affinity: Mapping[str, Any] | None = None

    def shares_machine(self, other: Resources) -> bool:
        """Tell whether both are the same machine to the SDK, which then puts a worker into the head's pool."""
        return (self.machine_type, self.accelerator_type, self.accelerator_count) == (
            other.machine_type,
            other.accelerator_type,
            other.accelerator_count,
        )


@dataclass(frozen=True)
class NodeImages:
    """Container images of a whole cluster; both are required. ``Resources.custom_image`` takes precedence.

    :param head: image of the head node
    :param worker: image of all workers
    """

    head: str | None = None
    worker: str | None = None


@dataclass(frozen=True)
class NfsMount:
    """An NFS share that is mounted on every node.

    :param server: address of the NFS server
    :param path: exported path, which begins with ``/``
    :param mount_point: folder below ``/mnt/nfs``
    """

    server: str | None = None
    path: str | None = None
    mount_point: str | None = None


@dataclass(frozen=True)
class PscIConfig:
    """Private Service Connect interface, the alternative to a peered ``network``.

    :param network_attachment: name of the network attachment, or
        ``projects/NUMBER/regions/REGION/networkAttachments/NAME``
    :param dns_peering_configs: list of the API's ``DnsPeeringConfig`` as dicts with ``domain``, ``targetProject`` and
        ``targetNetwork``, passed through as they are; not in the SDK
    """

    network_attachment: str | None = None
    dns_peering_configs: Sequence[Mapping[str, str]] | None = None


_Part = TypeVar("_Part", AutoscalingSpec, Resources, NodeImages, NfsMount, PscIConfig)
_NUMBERS = frozenset({"node_count", "accelerator_count", "boot_disk_size_gb", "min_replica_count", "max_replica_count"})


def as_part(cls: type[_Part], value: object, field: str) -> _Part:
    """Return ``value``, which may also be a dict or an object with the same attributes, as a ``cls``.

    :raises InvalidArgumentError: it has another type, or an unknown field
    """
    if isinstance(value, cls):
        return value
    names = {item.name for item in dataclasses.fields(cls)}
    given: Mapping[str, Any] = value if isinstance(value, Mapping) else _attributes(value, names)
    if not isinstance(value, Mapping) and not names & given.keys():
        raise InvalidArgumentError(
            field, value, f"Use {cls.__name__}(…), the same class of vertex_ray, or a dict with its fields."
        )
    refuse_unknown_keys(given, names, field)
    return cls(**{name: _number(item) if name in _NUMBERS else item for name, item in given.items()})


def as_resources(value: object, field: str) -> Resources:
    """Return ``value`` as Resources, with its own parts converted as well."""
    part = as_part(Resources, value, field)
    if part.autoscaling_spec is not None:
        autoscaling = as_part(AutoscalingSpec, part.autoscaling_spec, f"{field}.autoscaling_spec")
        part = dataclasses.replace(part, autoscaling_spec=autoscaling)
    if part.accelerator_count is None:
        part = dataclasses.replace(part, accelerator_count=0)
    return part


def as_sequence(value: object, field: str) -> tuple[Any, ...]:
    """Return the items of a list as a tuple; None is an empty list.

    :raises InvalidArgumentError: it is not a list or a tuple; a string or a dict is never split into its items
    """
    if value is None:
        return ()
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise InvalidArgumentError(field, value, "Use a list.")
    return tuple(value)


def refuse_unknown_keys(given: Mapping[str, Any], known: set[str], field: str) -> None:
    """Validate that all keys of ``given`` are in ``known``.

    :raises InvalidArgumentError: names the first unknown key
    """
    for name in given:
        if name not in known:
            path = f"{field}.{name}" if field else str(name)
            fields = sorted(known)
            rule = f"The field does not exist.{did_you_mean(name, fields)} The fields are {', '.join(fields)}."
            raise InvalidArgumentError(path, given[name], rule)


def _attributes(value: object, known: set[str]) -> dict[str, Any]:
    """Return the attributes of a foreign object; fields beyond ``known`` only if set, as a newer SDK may have more."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return dict(getattr(value, "__dict__", {}))
    found: dict[str, Any] = {}
    for item in dataclasses.fields(value):
        setting = getattr(value, item.name)
        if item.name in known or setting != item.default:
            found[item.name] = setting
    return found


def _number(value: Any) -> Any:
    """Return the number in a string of digits, which Jinja renders numbers to; other values are returned unchanged."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value
