"""Rules for the machines of a cluster: machine types, accelerators and boot disks, and the size of the head.

The letters at rules are those of spec_rules. What the table of machines lacks may be new, and passes with a warning.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.core.checks import check_choice, check_match, check_whole, has_template
from airflow_provider_vertex_ray.core.cluster.machines import (
    accelerator_named,
    close_accelerator,
    close_machine,
    hyperdisk_only,
    is_shared_core,
    machine_named,
    valid_counts,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.cluster.spec_parts import Resources

__all__ = ["HEAD_GIB", "HEAD_VCPUS", "check_head_size", "check_machine", "is_small_head", "machine_warnings"]

DISK_TYPES = ("pd-ssd", "pd-standard", "hyperdisk-balanced")  # (A)
DISK_SIZE_GB = (100, 64_000)  # (C)
HEAD_VCPUS, HEAD_GIB = 16, 60
"""Size of n1-standard-16, the recommended head (D)."""

_MACHINE_TYPE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
_TPU_MACHINE = re.compile(r"ct\d|tpu")
_ACCELERATOR = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
# (F) for n1-standard-4
_REJECTED_HEAD = re.compile(r"n1-standard-[124]")


def check_machine(machine: Resources, field: str) -> None:
    """Validate machine type, accelerators and boot disk; values that are still templates pass.

    :raises InvalidArgumentError: names the first rule that ``machine`` breaks
    """
    _check_machine_type(machine.machine_type, f"{field}.machine_type")
    _check_accelerator(machine, field)
    _check_pair(machine, field)
    _check_disk(machine, field)


def machine_warnings(machine: Resources, field: str) -> list[str]:
    """Return warnings about a machine that the service may reject, because the table does not have it."""
    found = []
    name, accelerator = machine.machine_type, machine.accelerator_type
    if not has_template(name) and machine_named(name) is None:
        close, _ = close_machine(name)
        found.append(
            f"{field}.machine_type: {name} is not known to this package, and Vertex AI may reject it"
            + (f"; did you mean {close}?" if close else "")
        )
    if accelerator and not has_template(accelerator) and accelerator_named(accelerator) is None:
        names, _ = close_accelerator(accelerator)
        found.append(
            f"{field}.accelerator_type: {accelerator} is not known to this package, and Vertex AI may reject it"
            + (f"; did you mean {' or '.join(names)}?" if names else "")
        )
    if machine.boot_disk_type == "pd-ssd" and hyperdisk_only(name):
        found.append(f"{field}.boot_disk_type: {name} has hyperdisk-balanced disks only, which is requested instead")
    return found


def is_small_head(machine_type: str) -> bool:
    """Tell whether a machine type is known to be smaller than the recommended head."""
    machine = machine_named(machine_type)
    return machine is not None and (machine.vcpus < HEAD_VCPUS or machine.gib < HEAD_GIB)


def check_head_size(machine_type: str, *, allow_small: bool) -> None:
    """Validate that the head is large enough for its dashboard to answer (F).

    :param machine_type: machine type of the head; a template passes
    :param allow_small: whether a smaller one than recommended passes
    :raises InvalidArgumentError: it is too small
    """
    if has_template(machine_type):
        return
    field = "head_node_type.machine_type"
    if _REJECTED_HEAD.fullmatch(machine_type):
        raise InvalidArgumentError(
            field, machine_type, "Use a larger machine, such as n1-standard-16; Vertex AI rejects heads of this size."
        )
    if is_small_head(machine_type) and not allow_small:
        raise InvalidArgumentError(
            field,
            machine_type,
            f"Use a head with at least {HEAD_VCPUS} vCPUs and {HEAD_GIB} GB of memory, such as n1-standard-16. Users "
            "reported that the dashboard of a smaller one, through which jobs are submitted, never answers. Set "
            "allow_small_head=True to try it nevertheless.",
        )


def _check_machine_type(name: str, field: str) -> None:
    if isinstance(name, str) and not has_template(name) and not _MACHINE_TYPE.fullmatch(name):
        close, _ = close_machine(name.lower().strip().replace("_", "-").replace(" ", ""))
        also = f" Did you mean {close}?" if close else ""
        raise InvalidArgumentError(field, name, f"Use a Compute Engine machine type such as n1-standard-16.{also}")
    check_match(field, name, _MACHINE_TYPE, "Use a Compute Engine machine type such as n1-standard-16.", required=True)
    if has_template(name):
        return
    if _TPU_MACHINE.match(name):
        raise InvalidArgumentError(field, name, "Use another machine type; Ray on Vertex AI does not support TPUs.")
    if is_shared_core(name):
        raise InvalidArgumentError(
            field, name, "Use a machine with cores of its own, such as e2-standard-4; Vertex AI has no others."
        )
    if machine_named(name) is None:
        close, wrong = close_machine(name)
        if wrong and close:
            raise InvalidArgumentError(field, name, f"The machine type does not exist. Did you mean {close}?")


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
    if kind is not None and not has_template(kind) and accelerator_named(kind) is None:
        names, wrong = close_accelerator(kind)
        if wrong:
            raise InvalidArgumentError(
                f"{field}.accelerator_type", kind, f"The accelerator does not exist. Did you mean {' or '.join(names)}?"
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


def _check_pair(machine: Resources, field: str) -> None:
    """Validate that a machine type can have an accelerator in this number (D)."""
    kind, count = machine.accelerator_type, machine.accelerator_count
    if any(map(has_template, (machine.machine_type, kind, count))):
        return
    known = machine_named(machine.machine_type)
    if known is None:
        return
    if kind is None:
        if known.gpu is not None:
            raise InvalidArgumentError(
                f"{field}.accelerator_type",
                kind,
                f"Use {known.gpu} with accelerator_count={known.gpu_count}, which {known.name} always has.",
            )
        return
    accelerator = accelerator_named(kind)
    if accelerator is None:
        return
    counts = valid_counts(known, accelerator)
    if count in counts:
        return
    if counts:
        raise InvalidArgumentError(
            f"{field}.accelerator_count",
            count,
            f"Use {' or '.join(map(str, counts))}; {known.name} cannot have another number of {kind}.",
        )
    if known.gpu is not None:
        rule = f"Use {known.gpu}, which {known.name} always has, or another machine type."
    elif accelerator.counts and known.takes_gpus:
        rule = f"Use a smaller machine type; {known.name} has too many vCPUs for {kind}."
    elif accelerator.counts:
        rule = f"Use a machine type of the N1 series for {kind}; {known.name} cannot have accelerators."
    else:
        rule = f"Use another machine type; {known.name} cannot have {kind}, which comes with machine types of its own."
    raise InvalidArgumentError(f"{field}.accelerator_type", kind, rule)


def _check_disk(machine: Resources, field: str) -> None:
    disk_type = machine.boot_disk_type
    if disk_type is not None and not has_template(disk_type):
        check_choice(f"{field}.boot_disk_type", disk_type, DISK_TYPES)
        if disk_type == "pd-standard" and hyperdisk_only(str(machine.machine_type)):
            raise InvalidArgumentError(
                f"{field}.boot_disk_type", disk_type, f"Use hyperdisk-balanced, the only one of {machine.machine_type}."
            )
    if machine.boot_disk_size_gb is not None:
        low, high = DISK_SIZE_GB
        rule = f"Use a whole number of GB from {low} to {high}."
        check_whole(f"{field}.boot_disk_size_gb", machine.boot_disk_size_gb, low, high, rule)
