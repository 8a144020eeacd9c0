"""Training quotas: the metrics that machines and accelerators use, and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.project.catalog import ACCELERATORS, MACHINES
from vertex_ray_emulator.project.plan import replicas
from vertex_ray_emulator.wire.protos import accelerator_name

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "custom_model_training_"
_GPU_NAMES = {
    "NVIDIA_H100_80GB": "nvidia_h100",
    "NVIDIA_H100_MEGA_80GB": "nvidia_h100_mega",
    "NVIDIA_H200_141GB": "nvidia_h200",
}
"""Metrics whose names do not follow from the accelerator's; only the one of the H100 was found in reports."""


def cpu_metric(machine_type: str) -> str:
    """Return the metric of a machine type's vCPUs; N1 and E2 share the one without a family."""
    family = machine_type.split("-", 1)[0]
    return PREFIX + ("cpus" if family in ("n1", "e2") else f"{family}_cpus")


def gpu_metric(accelerator: str) -> str:
    """Return the metric of an accelerator."""
    short = _GPU_NAMES.get(accelerator, accelerator.lower().replace("nvidia_tesla_", "nvidia_"))
    return f"{PREFIX}{short}_gpus"


METRICS: tuple[str, ...] = tuple(
    dict.fromkeys([*map(cpu_metric, MACHINES), *(gpu_metric(accelerator) for accelerator in ACCELERATORS)])
)


def demand(pools: Iterable[Any]) -> dict[str, int]:
    """Return how much of each metric the nodes of resource pools use."""
    found: dict[str, int] = {}
    for pool in pools:
        machine = MACHINES.get(pool.machine_spec.machine_type)
        nodes = replicas(pool)
        amounts = {cpu_metric(machine.name): machine.cpus * nodes} if machine else {}
        accelerator = accelerator_name(pool.machine_spec)
        if accelerator:
            amounts[gpu_metric(accelerator)] = int(pool.machine_spec.accelerator_count) * nodes
        for metric, amount in amounts.items():
            found[metric] = found.get(metric, 0) + amount
    return found
