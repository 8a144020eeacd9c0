"""A cluster's demand of the training quotas in its region. Pure.

These are the regional quotas of custom training, not those of Compute Engine:
https://cloud.google.com/vertex-ai/docs/quotas. The names of the metrics come from reports of exceeded quotas; names
that were not found in any report follow the same pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_vertex_ray.core.cluster.machines import machine_named
from airflow_provider_vertex_ray.core.cluster.pools import Pool
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec

__all__ = ["Demand", "QuotaStatus", "quota_demand", "unknown_machines", "vcpus"]

PREFIX = "custom_model_training_"
"""Prefix of the names of the metrics."""

_SIZED = re.compile(r"[a-z0-9]+-[a-z]+-(\d+)(-lssd|-metal)?")
_GPUS = {
    "NVIDIA_H100_80GB": "nvidia_h100",
    "NVIDIA_H100_MEGA_80GB": "nvidia_h100_mega",
    "NVIDIA_H200_141GB": "nvidia_h200",
}


@dataclass(frozen=True)
class Demand:
    """A cluster's demand of one quota metric.

    :param metric: name of the metric without the service, such as ``custom_model_training_cpus``
    :param least: demand of the initial nodes
    :param most: demand with every autoscaling pool at its maximum
    """

    metric: str
    least: int
    most: int


@dataclass(frozen=True)
class QuotaStatus:
    """A demand compared with the limit and the use of its quota.

    :param demand: the demand
    :param limit: limit of the quota; None for no limit
    :param used: use by everything in the region; None if unknown
    """

    demand: Demand
    limit: int | None
    used: int | None

    @property
    def free(self) -> int | None:
        """Return the free quota, at least 0; None for no limit. If the use is unknown, the whole limit is free."""
        return None if self.limit is None else max(0, self.limit - (self.used or 0))

    def wanted(self, full_size: bool) -> int:
        """Return the demand of the initial nodes, or of the full size."""
        return self.demand.most if full_size else self.demand.least

    def can_never(self, full_size: bool = False) -> bool:
        """Tell whether the demand exceeds the limit itself, so waiting does not help."""
        return self.limit is not None and self.limit < self.wanted(full_size)

    def is_free(self, full_size: bool = False) -> bool:
        """Tell whether the free quota covers the demand."""
        return self.free is None or self.free >= self.wanted(full_size)

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON."""
        return {
            "metric": self.demand.metric,
            "asked": self.demand.least,
            "asked_at_most": self.demand.most,
            "limit": self.limit,
            "used": self.used,
            "free": self.free,
        }

    def __str__(self) -> str:
        more = f" (up to {self.demand.most} when autoscaled)" if self.demand.most > self.demand.least else ""
        if self.limit is None:
            return f"{self.demand.least} requested{more}; no limit"
        if self.used is None:
            return f"{self.demand.least} requested{more}; limit {self.limit}"
        return f"{self.demand.least} requested{more}; limit {self.limit}, {self.used} used, {self.free} free"


def vcpus(machine_type: str) -> int | None:
    """Return the vCPUs of a machine type; None if its name does not tell."""
    known = machine_named(machine_type)
    match = _SIZED.fullmatch(machine_type)
    return known.vcpus if known else int(match[1]) if match else None


def cpu_metric(machine_type: str) -> str:
    """Return the metric of a machine type's vCPUs; N1 and E2 share the one without a family."""
    family = machine_type.partition("-")[0]
    return PREFIX + ("cpus" if family in ("n1", "e2") else f"{family}_cpus")


def gpu_metric(accelerator: str) -> str:
    """Return the metric of an accelerator, given by its name in the API."""
    return f"{PREFIX}{_GPUS.get(accelerator, accelerator.lower().replace('nvidia_tesla_', 'nvidia_'))}_gpus"


def quota_demand(spec: ClusterSpec) -> tuple[Demand, ...]:
    """Return the demand of a cluster's nodes, including the head, by metric.

    Machine types of unknown size are left out, see ``unknown_machines``.

    :raises InvalidArgumentError: a size or a machine is still a template
    """
    return demand_of(spec.pools())


def demand_of(pools: Iterable[Pool]) -> tuple[Demand, ...]:
    """Return the total demand of resource pools, by metric."""
    least: dict[str, int] = {}
    most: dict[str, int] = {}
    for pool in pools:
        for metric, amount in _of_one_node(pool).items():
            least[metric] = least.get(metric, 0) + amount * pool.smallest
            most[metric] = most.get(metric, 0) + amount * pool.largest
    return tuple(Demand(metric, least[metric], most[metric]) for metric in least)


def unknown_machines(spec: ClusterSpec) -> tuple[str, ...]:
    """Return the machine types of a cluster whose number of vCPUs is unknown."""
    found = [pool.machine.machine_type for pool in spec.pools() if vcpus(pool.machine.machine_type) is None]
    return tuple(dict.fromkeys(found))


def _of_one_node(pool: Pool) -> Mapping[str, int]:
    machine = pool.machine
    size = vcpus(machine.machine_type)
    found = {cpu_metric(machine.machine_type): size} if size is not None else {}
    if machine.accelerator_type and machine.accelerator_count:
        found[gpu_metric(machine.accelerator_type)] = machine.accelerator_count
    return found
