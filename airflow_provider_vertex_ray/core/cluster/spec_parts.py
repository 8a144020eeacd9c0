"""The parts of a cluster spec: the SDK's own names, fields and defaults, in plain dataclasses.

Objects of the SDK (``vertex_ray.Resources`` and its kin) and dicts are taken wherever a part is expected.
They are recognised by their attributes, because importing the SDK costs seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["AutoscalingSpec", "NfsMount", "NodeImages", "PscIConfig", "Resources"]


@dataclass(frozen=True)
class AutoscalingSpec:
    """Bounds of a worker pool whose size follows the load.

    :param min_replica_count: smallest number of nodes, at least 1.
    :param max_replica_count: largest number of nodes, above the minimum and at most 1,000.

    If the workers have the head's machine and accelerator, they share its pool and **both bounds count
    the head**: ``AutoscalingSpec(2, 5)`` is then one to four workers. (Read in the SDK.)
    """

    min_replica_count: int = 1
    max_replica_count: int = 2


@dataclass(frozen=True)
class Resources:
    """The machines of the head or of one kind of worker.

    :param machine_type: Compute Engine machine type. No TPU machines (the service's limit).
    :param node_count: number of nodes, at least 1; exactly 1 for the head. Ignored by the service where
        ``autoscaling_spec`` is given.
    :param accelerator_type: GPU in the API's spelling, e.g. ``NVIDIA_TESLA_T4``.
    :param accelerator_count: GPUs of each node; 0 for none.
    :param boot_disk_type: ``pd-ssd`` or ``pd-standard``. None leaves it to the service.
    :param boot_disk_size_gb: 100 to 64,000 GB. None leaves it to the service.
    :param custom_image: container image in place of the service's own.
    :param autoscaling_spec: workers only.
    """

    machine_type: str = "n1-standard-16"
    node_count: int = 1
    accelerator_type: str | None = None
    accelerator_count: int = 0
    boot_disk_type: str | None = "pd-ssd"
    boot_disk_size_gb: int | None = 100
    custom_image: str | None = None
    autoscaling_spec: AutoscalingSpec | None = None

    def shares_machine(self, other: Resources) -> bool:
        """Tell whether the SDK takes both for the same machine, and so puts a worker into the head's pool."""
        return (self.machine_type, self.accelerator_type, self.accelerator_count) == (
            other.machine_type,
            other.accelerator_type,
            other.accelerator_count,
        )


@dataclass(frozen=True)
class NodeImages:
    """Container images for a whole cluster; both are required. ``Resources.custom_image`` goes before them.

    :param head: image of the head node.
    :param worker: image of all workers.
    """

    head: str | None = None
    worker: str | None = None


@dataclass(frozen=True)
class NfsMount:
    """A share that is mounted on every node.

    :param server: address of the NFS server.
    :param path: exported path; begins with ``/``.
    :param mount_point: folder under ``/mnt/nfs``.
    """

    server: str | None = None
    path: str | None = None
    mount_point: str | None = None


@dataclass(frozen=True)
class PscIConfig:
    """Private Service Connect interface, the alternative to a peered ``network``.

    :param network_attachment: its name, or
        ``projects/NUMBER/regions/REGION/networkAttachments/NAME``.
    """

    network_attachment: str | None = None


_Part = TypeVar("_Part", AutoscalingSpec, Resources, NodeImages, NfsMount, PscIConfig)
_NUMBERS = frozenset({"node_count", "accelerator_count", "boot_disk_size_gb", "min_replica_count", "max_replica_count"})


def as_part(cls: type[_Part], value: object, field: str) -> _Part:
    """Return ``value`` as a ``cls``; it may be one, a dict, or an object with the same attributes."""
    if isinstance(value, cls):
        return value
    names = {item.name for item in dataclasses.fields(cls)}
    given: Mapping[str, Any] = value if isinstance(value, Mapping) else _attributes(value, names)
    if not isinstance(value, Mapping) and not names & given.keys():
        raise InvalidArgumentError(field, value, f"give {cls.__name__}(…), vertex_ray's, or a dict with its fields")
    refuse_unknown_keys(given, names, field)
    return cls(**{name: _number(item) if name in _NUMBERS else item for name, item in given.items()})


def as_resources(value: object, field: str) -> Resources:
    """Return ``value`` as Resources, with the parts inside it converted too."""
    part = as_part(Resources, value, field)
    if part.autoscaling_spec is not None:
        autoscaling = as_part(AutoscalingSpec, part.autoscaling_spec, f"{field}.autoscaling_spec")
        part = dataclasses.replace(part, autoscaling_spec=autoscaling)
    if part.accelerator_count is None:
        part = dataclasses.replace(part, accelerator_count=0)
    return part


def as_sequence(value: object, field: str) -> tuple[Any, ...]:
    """Return a list's items; a string, a dict or a single item is refused, not taken apart."""
    if value is None:
        return ()
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise InvalidArgumentError(field, value, "give a list")
    return tuple(value)


def refuse_unknown_keys(given: Mapping[str, Any], known: set[str], field: str) -> None:
    """Raise InvalidArgumentError naming the first key of ``given`` that is not in ``known``."""
    for name in given:
        if name not in known:
            path = f"{field}.{name}" if field else str(name)
            raise InvalidArgumentError(
                path, given[name], f"there is no such field; known are {', '.join(sorted(known))}"
            )


def _attributes(value: object, known: set[str]) -> dict[str, Any]:
    """Read a foreign object. Fields beyond ``known`` count only when set: a newer SDK may have more."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return dict(getattr(value, "__dict__", {}))
    found: dict[str, Any] = {}
    for item in dataclasses.fields(value):
        setting = getattr(value, item.name)
        if item.name in known or setting != item.default:
            found[item.name] = setting
    return found


def _number(value: Any) -> Any:
    """Read the digits that Jinja makes of a number; all else is left to the rules to refuse."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value
