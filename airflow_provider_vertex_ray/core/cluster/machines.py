"""Machine types and accelerators of Vertex AI training. Pure data, and look-ups in it.

Sources: https://cloud.google.com/vertex-ai/docs/training/configure-compute (machine types, and valid numbers of GPUs),
https://cloud.google.com/compute/docs/machine-resource (sizes), November 2026. The list is not the service's: a machine
type that is missing here may exist.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

__all__ = [
    "Accelerator",
    "Machine",
    "accelerator_named",
    "close_accelerator",
    "close_machine",
    "disk_type",
    "hyperdisk_only",
    "is_shared_core",
    "machine_named",
    "valid_counts",
]


@dataclass(frozen=True)
class Machine:
    """A machine type.

    :param name: name, such as ``n1-standard-16``
    :param vcpus: number of vCPUs
    :param gib: GiB of memory
    :param gpu: accelerator that it always has; None for none
    :param gpu_count: number of these accelerators
    """

    name: str
    vcpus: int
    gib: float
    gpu: str | None = None
    gpu_count: int = 0

    @property
    def takes_gpus(self) -> bool:
        """Tell whether accelerators of one's choice can be attached."""
        return self.name.startswith("n1-")


@dataclass(frozen=True)
class Accelerator:
    """An accelerator.

    :param name: name in the API
    :param counts: numbers that can be attached to an N1 machine; empty if it only comes with its own machine types
    :param vcpus_each: vCPUs of a machine for each of them, at most
    """

    name: str
    counts: tuple[int, ...] = ()
    vcpus_each: int = 0


# GiB of memory for each vCPU, and the numbers of vCPUs.
_SERIES: dict[str, tuple[float, tuple[int, ...]]] = {
    "n1-standard": (3.75, (1, 2, 4, 8, 16, 32, 64, 96)),
    "n1-highmem": (6.5, (2, 4, 8, 16, 32, 64, 96)),
    "n1-highcpu": (0.9, (2, 4, 8, 16, 32, 64, 96)),
    "n2-standard": (4, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)),
    "n2-highmem": (8, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)),
    "n2-highcpu": (1, (2, 4, 8, 16, 32, 48, 64, 80, 96)),
    "n2d-standard": (4, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224)),
    "n2d-highmem": (8, (2, 4, 8, 16, 32, 48, 64, 80, 96)),
    "n2d-highcpu": (1, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224)),
    "e2-standard": (4, (2, 4, 8, 16, 32)),
    "e2-highmem": (8, (2, 4, 8, 16)),
    "e2-highcpu": (1, (2, 4, 8, 16, 32)),
    "c2-standard": (4, (4, 8, 16, 30, 60)),
    "c2d-standard": (4, (2, 4, 8, 16, 32, 56, 112)),
    "c2d-highmem": (8, (2, 4, 8, 16, 32, 56, 112)),
    "c2d-highcpu": (2, (2, 4, 8, 16, 32, 56, 112)),
    "c3-standard": (4, (4, 8, 22, 44, 88, 176)),
    "c3-highmem": (8, (4, 8, 22, 44, 88, 176)),
    "c3-highcpu": (2, (4, 8, 22, 44, 88, 176)),
    "m1-ultramem": (24.025, (40, 80, 160)),
    "m1-megamem": (14.93125, (96,)),
}

# vCPUs, GiB, accelerator and its number.
# Source: https://cloud.google.com/compute/docs/accelerator-optimized-machines
_WITH_GPUS: dict[str, tuple[int, float, str, int]] = {
    "a2-highgpu-1g": (12, 85, "NVIDIA_TESLA_A100", 1),
    "a2-highgpu-2g": (24, 170, "NVIDIA_TESLA_A100", 2),
    "a2-highgpu-4g": (48, 340, "NVIDIA_TESLA_A100", 4),
    "a2-highgpu-8g": (96, 680, "NVIDIA_TESLA_A100", 8),
    "a2-megagpu-16g": (96, 1360, "NVIDIA_TESLA_A100", 16),
    "a2-ultragpu-1g": (12, 170, "NVIDIA_A100_80GB", 1),
    "a2-ultragpu-2g": (24, 340, "NVIDIA_A100_80GB", 2),
    "a2-ultragpu-4g": (48, 680, "NVIDIA_A100_80GB", 4),
    "a2-ultragpu-8g": (96, 1360, "NVIDIA_A100_80GB", 8),
    "a3-highgpu-1g": (26, 234, "NVIDIA_H100_80GB", 1),
    "a3-highgpu-2g": (52, 468, "NVIDIA_H100_80GB", 2),
    "a3-highgpu-4g": (104, 936, "NVIDIA_H100_80GB", 4),
    "a3-highgpu-8g": (208, 1872, "NVIDIA_H100_80GB", 8),
    "a3-edgegpu-8g": (208, 1872, "NVIDIA_H100_80GB", 8),
    "a3-megagpu-8g": (208, 1872, "NVIDIA_H100_MEGA_80GB", 8),
    "a3-ultragpu-8g": (224, 2952, "NVIDIA_H200_141GB", 8),
    "a4-highgpu-8g": (224, 3968, "NVIDIA_B200", 8),
    "a4x-highgpu-4g": (140, 884, "NVIDIA_GB200", 4),
    "g2-standard-4": (4, 16, "NVIDIA_L4", 1),
    "g2-standard-8": (8, 32, "NVIDIA_L4", 1),
    "g2-standard-12": (12, 48, "NVIDIA_L4", 1),
    "g2-standard-16": (16, 64, "NVIDIA_L4", 1),
    "g2-standard-24": (24, 96, "NVIDIA_L4", 2),
    "g2-standard-32": (32, 128, "NVIDIA_L4", 1),
    "g2-standard-48": (48, 192, "NVIDIA_L4", 4),
    "g2-standard-96": (96, 384, "NVIDIA_L4", 8),
    "g4-standard-48": (48, 180, "NVIDIA_RTX_PRO_6000", 1),
    "g4-standard-96": (96, 360, "NVIDIA_RTX_PRO_6000", 2),
    "g4-standard-192": (192, 720, "NVIDIA_RTX_PRO_6000", 4),
    "g4-standard-384": (384, 1440, "NVIDIA_RTX_PRO_6000", 8),
}

_ATTACHABLE: dict[str, tuple[tuple[int, ...], int]] = {
    "NVIDIA_TESLA_K80": ((1, 2, 4, 8), 8),
    "NVIDIA_TESLA_P4": ((1, 2, 4), 24),
    "NVIDIA_TESLA_P100": ((1, 2, 4), 24),
    "NVIDIA_TESLA_T4": ((1, 2, 4), 24),
    "NVIDIA_TESLA_V100": ((1, 2, 4, 8), 12),
}

_MACHINES: dict[str, Machine] = {
    **{
        f"{series}-{vcpus}": Machine(f"{series}-{vcpus}", vcpus, vcpus * ratio)
        for series, (ratio, sizes) in _SERIES.items()
        for vcpus in sizes
    },
    **{name: Machine(name, *row) for name, row in _WITH_GPUS.items()},
}
_ACCELERATORS: dict[str, Accelerator] = {
    **{row[2]: Accelerator(row[2]) for row in _WITH_GPUS.values()},
    **{name: Accelerator(name, *row) for name, row in _ATTACHABLE.items()},
}
_FAMILIES = frozenset(name.partition("-")[0] for name in _MACHINES)
_SHARED_CORE = re.compile(r"e2-(micro|small|medium)|f1-micro|g1-small")
_HYPERDISK_ONLY = re.compile(r"a3-ultragpu-.+|a4x?-.+")
# The model in the name of an accelerator: T4, A100, H100, GB200.
_MODEL = re.compile(r"(?:^|_)(GB\d+|RTX_PRO_\d+|[A-Z]\d+)(?:_|$)")


def machine_named(name: str) -> Machine | None:
    """Return a machine type; None if it is not in the table."""
    return _MACHINES.get(name)


def accelerator_named(name: str) -> Accelerator | None:
    """Return an accelerator by its name in the API; None if it is not in the table."""
    return _ACCELERATORS.get(name)


def is_shared_core(machine_type: str) -> bool:
    """Tell whether a machine type shares a core, which no machine of Vertex AI does."""
    return _SHARED_CORE.fullmatch(machine_type) is not None


def hyperdisk_only(machine_type: str) -> bool:
    """Tell whether a machine type has ``hyperdisk-balanced`` boot disks only.

    Source: the API's reference of DiskSpec for A3 Ultra; Compute Engine's list of supported disks for A4 and A4X.
    """
    return _HYPERDISK_ONLY.fullmatch(machine_type) is not None


def disk_type(machine_type: str, requested: str | None) -> str | None:
    """Return the boot disk type to request: ``pd-ssd``, the default, means the default of the machine type.

    :param machine_type: the machine type
    :param requested: the requested type; None to leave the choice to the service
    """
    return "hyperdisk-balanced" if requested == "pd-ssd" and hyperdisk_only(machine_type) else requested


def valid_counts(machine: Machine, accelerator: Accelerator) -> list[int]:
    """Return how many of an accelerator a machine can have; empty if it cannot have it."""
    if machine.gpu is not None:
        return [machine.gpu_count] if accelerator.name == machine.gpu else []
    if not machine.takes_gpus:
        return []
    return [count for count in accelerator.counts if count * accelerator.vcpus_each >= machine.vcpus]


def close_machine(name: str) -> tuple[str | None, bool]:
    """Return the known machine type that is closest to an unknown one, and whether the name must be a typing error.

    A name like ``c9-standard-16`` may be a new family. One like ``n1-standrd-16`` cannot: the family is known, and its
    series is a misspelt one.
    """
    found = difflib.get_close_matches(name, _MACHINES, 1, 0.75)
    family, _, rest = name.partition("-")
    series, _, size = rest.partition("-")
    if not re.fullmatch(r"[a-z]\d{1,2}[a-z]?", family):
        return (found[0], True) if found else (None, False)
    if family not in _FAMILIES:
        return (found[0] if found else None), False
    known = {each.split("-")[1] for each in _MACHINES if each.startswith(f"{family}-")}
    if series in known:
        sizes = [each for each in _MACHINES if each.startswith(f"{family}-{series}-")]
        # A variant such as c3-standard-8-lssd may exist.
        return _closest_size(sizes, size), not re.fullmatch(r"\d+g?(-[a-z]+)+", size)
    misspelt = difflib.get_close_matches(series, known, 1, 0.7)
    if misspelt:
        sizes = [each for each in _MACHINES if each.startswith(f"{family}-{misspelt[0]}-")]
        return _closest_size(sizes, size), True
    return (found[0] if found else None), False


def _closest_size(names: list[str], size: str) -> str:
    """Return the machine type whose size is closest; the smallest one for a size that is no number."""
    digits = re.match(r"\d+", size)
    wanted = int(digits[0]) if digits else 0
    return min(names, key=lambda name: abs(int(re.sub(r"\D", "", name.rsplit("-", 1)[1])) - wanted))


def close_accelerator(name: str) -> tuple[list[str], bool]:
    """Return the known accelerators that an unknown name probably means, and whether it must be a typing error.

    ``NVIDIA_T4`` is another spelling of a known model; ``NVIDIA_B900`` may be a new one.
    """
    model = _MODEL.search(name)
    if model is not None:
        same = [each for each in _ACCELERATORS if model[1] in _MODEL.findall(each)]
        if same:
            return same, True
    close = difflib.get_close_matches(name, _ACCELERATORS, 1, 0.75)
    return close, bool(close) and not name.startswith("NVIDIA_")
