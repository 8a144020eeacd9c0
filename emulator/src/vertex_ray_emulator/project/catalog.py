"""Machine types and accelerators that Vertex AI training offers, as data.

Sources: the pages "Configure compute resources for training" of Vertex AI and "Machine families" of Compute Engine.
Machine types that are missing here are refused, as those that do not exist are.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Accelerator:
    """A kind of GPU.

    :param ray_name: Ray's name for it, in ``accelerator_type:<name>`` resources.
    :param counts: allowed numbers on a machine whose type does not determine the number.
    :param cpus_per_gpu: maximum number of vCPUs for each; a bigger machine needs more of them.
    """

    ray_name: str
    counts: tuple[int, ...] = ()
    cpus_per_gpu: int = 0


@dataclass(frozen=True)
class Machine:
    """A machine type.

    :param name: name, such as ``n1-standard-16``.
    :param cpus: number of vCPUs.
    :param memory_bytes: memory in bytes.
    :param attachable: accelerator types that can be attached; empty for none.
    :param built_in: accelerator type and number that the machine type always has; None without accelerators.
    """

    name: str
    cpus: int
    memory_bytes: int
    attachable: tuple[str, ...] = ()
    built_in: tuple[str, int] | None = None


ACCELERATORS: dict[str, Accelerator] = {
    "NVIDIA_TESLA_K80": Accelerator("K80", (1, 2, 4, 8), 8),
    "NVIDIA_TESLA_P4": Accelerator("P4", (1, 2, 4), 24),
    "NVIDIA_TESLA_P100": Accelerator("P100", (1, 2, 4), 24),
    "NVIDIA_TESLA_T4": Accelerator("T4", (1, 2, 4), 24),
    "NVIDIA_TESLA_V100": Accelerator("V100", (1, 2, 4, 8), 12),
    # Ray does not distinguish 40 GB from 80 GB: it reads "A100" from the names of both cards.
    "NVIDIA_TESLA_A100": Accelerator("A100"),
    "NVIDIA_A100_80GB": Accelerator("A100"),
    "NVIDIA_L4": Accelerator("L4"),
    "NVIDIA_H100_80GB": Accelerator("H100"),
    "NVIDIA_H100_MEGA_80GB": Accelerator("H100"),
    "NVIDIA_H200_141GB": Accelerator("H200"),
    "NVIDIA_B200": Accelerator("B200"),
    "NVIDIA_GB200": Accelerator("GB200"),
    "NVIDIA_RTX_PRO_6000": Accelerator("RTX"),
}

_N1_GPUS = (
    "NVIDIA_TESLA_K80",
    "NVIDIA_TESLA_P4",
    "NVIDIA_TESLA_P100",
    "NVIDIA_TESLA_T4",
    "NVIDIA_TESLA_V100",
)

# Series, GiB of memory for each vCPU, vCPUs on offer, accelerators that may be attached.
_SERIES: tuple[tuple[str, float, tuple[int, ...], tuple[str, ...]], ...] = (
    ("n1-standard", 3.75, (4, 8, 16, 32, 64, 96), _N1_GPUS),
    ("n1-highmem", 6.5, (2, 4, 8, 16, 32, 64, 96), _N1_GPUS),
    ("n1-highcpu", 0.9, (16, 32, 64, 96), _N1_GPUS),
    ("n2-standard", 4, (4, 8, 16, 32, 48, 64, 80, 96, 128), ()),
    ("n2-highmem", 8, (2, 4, 8, 16, 32, 48, 64, 80, 96), ()),
    ("n2-highcpu", 1, (16, 32, 48, 64, 80, 96), ()),
    ("n2d-standard", 4, (4, 8, 16, 32, 48, 64, 80, 96, 128, 224), ()),
    ("n2d-highmem", 8, (2, 4, 8, 16, 32, 48, 64, 80, 96), ()),
    ("n2d-highcpu", 1, (16, 32, 48, 64, 80, 96, 128, 224), ()),
    ("e2-standard", 4, (4, 8, 16, 32), ()),
    ("e2-highmem", 8, (2, 4, 8, 16), ()),
    ("e2-highcpu", 1, (16, 32), ()),
    ("c2-standard", 4, (4, 8, 16, 30, 60), ()),
    ("c2d-standard", 4, (4, 8, 16, 32, 56, 112), ()),
    ("c2d-highmem", 8, (2, 4, 8, 16, 32, 56, 112), ()),
    ("c2d-highcpu", 2, (4, 8, 16, 32, 56, 112), ()),
    ("c3-standard", 4, (4, 8, 22, 44, 88, 176), ()),
    ("c3-highmem", 8, (4, 8, 22, 44, 88, 176), ()),
    ("c3-highcpu", 2, (4, 8, 22, 44, 88, 176), ()),
    ("m1-ultramem", 24.025, (40, 80, 160), ()),
    ("m1-megamem", 14.93, (96,), ()),
)

# Machine type, vCPUs, GiB, the accelerator that it comes with, and how many.
_WITH_GPU: tuple[tuple[str, int, int, str, int], ...] = (
    ("g2-standard-4", 4, 16, "NVIDIA_L4", 1),
    ("g2-standard-8", 8, 32, "NVIDIA_L4", 1),
    ("g2-standard-12", 12, 48, "NVIDIA_L4", 1),
    ("g2-standard-16", 16, 64, "NVIDIA_L4", 1),
    ("g2-standard-24", 24, 96, "NVIDIA_L4", 2),
    ("g2-standard-32", 32, 128, "NVIDIA_L4", 1),
    ("g2-standard-48", 48, 192, "NVIDIA_L4", 4),
    ("g2-standard-96", 96, 384, "NVIDIA_L4", 8),
    ("a2-highgpu-1g", 12, 85, "NVIDIA_TESLA_A100", 1),
    ("a2-highgpu-2g", 24, 170, "NVIDIA_TESLA_A100", 2),
    ("a2-highgpu-4g", 48, 340, "NVIDIA_TESLA_A100", 4),
    ("a2-highgpu-8g", 96, 680, "NVIDIA_TESLA_A100", 8),
    ("a2-megagpu-16g", 96, 1360, "NVIDIA_TESLA_A100", 16),
    ("a2-ultragpu-1g", 12, 170, "NVIDIA_A100_80GB", 1),
    ("a2-ultragpu-2g", 24, 340, "NVIDIA_A100_80GB", 2),
    ("a2-ultragpu-4g", 48, 680, "NVIDIA_A100_80GB", 4),
    ("a2-ultragpu-8g", 96, 1360, "NVIDIA_A100_80GB", 8),
    ("a3-highgpu-1g", 26, 234, "NVIDIA_H100_80GB", 1),
    ("a3-highgpu-2g", 52, 468, "NVIDIA_H100_80GB", 2),
    ("a3-highgpu-4g", 104, 936, "NVIDIA_H100_80GB", 4),
    ("a3-highgpu-8g", 208, 1872, "NVIDIA_H100_80GB", 8),
    ("a3-megagpu-8g", 208, 1872, "NVIDIA_H100_MEGA_80GB", 8),
    ("a3-ultragpu-8g", 224, 2952, "NVIDIA_H200_141GB", 8),
    ("a4-highgpu-8g", 224, 3968, "NVIDIA_B200", 8),
    ("a4x-highgpu-4g", 140, 884, "NVIDIA_GB200", 4),
    ("g4-standard-48", 48, 180, "NVIDIA_RTX_PRO_6000", 1),
    ("g4-standard-96", 96, 360, "NVIDIA_RTX_PRO_6000", 2),
    ("g4-standard-192", 192, 720, "NVIDIA_RTX_PRO_6000", 4),
    ("g4-standard-384", 384, 1440, "NVIDIA_RTX_PRO_6000", 8),
)


def _machines() -> dict[str, Machine]:
    rows = [
        Machine(f"{series}-{cpus}", cpus, int(cpus * gib * GIB), attachable)
        for series, gib, sizes, attachable in _SERIES
        for cpus in sizes
    ]
    rows += [
        Machine(name, cpus, gib * GIB, (), (accelerator, count)) for name, cpus, gib, accelerator, count in _WITH_GPU
    ]
    return {row.name: row for row in rows}


MACHINES: dict[str, Machine] = _machines()


def accelerator_problem(machine: Machine, accelerator: str | None, count: int) -> str | None:
    """Return why a machine type cannot have an accelerator in this number; None if it can.

    :param machine: machine type.
    :param accelerator: name of the API's enum value, such as ``NVIDIA_TESLA_T4``; None for no accelerator.
    :param count: number of accelerators.
    """
    if accelerator is None:
        if count:
            return f"accelerator_count is {count} but accelerator_type is not set"
        if machine.built_in:
            kind, number = machine.built_in
            return f"machine type {machine.name} requires accelerator_type {kind} with accelerator_count {number}"
        return None
    if accelerator not in ACCELERATORS:
        return f"accelerator type {accelerator} is not supported"
    if count < 1:
        return f"accelerator_type {accelerator} is set but accelerator_count is {count}"
    if machine.built_in:
        if (accelerator, count) == machine.built_in:
            return None
        kind, number = machine.built_in
        return (
            f"machine type {machine.name} requires accelerator_type {kind} with accelerator_count {number}, "
            f"not {accelerator} with {count}"
        )
    if accelerator not in machine.attachable:
        return f"accelerator type {accelerator} cannot be used with machine type {machine.name}"
    offer = ACCELERATORS[accelerator]
    allowed = [n for n in offer.counts if n * offer.cpus_per_gpu >= machine.cpus]
    if count not in allowed:
        return (
            f"accelerator_count {count} of {accelerator} cannot be used with machine type {machine.name}; "
            f"it must be one of {allowed}"
        )
    return None
