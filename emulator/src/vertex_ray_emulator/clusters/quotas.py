"""Limits and use of the training quotas, by region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.faults import Fault
from vertex_ray_emulator.project.quota_metrics import METRICS, demand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vertex_ray_emulator.clusters.lifecycle import Cluster
    from vertex_ray_emulator.project.project_script import Project

# Invented: what a project really gets depends on its history.
DEFAULT_CPUS = 2200
DEFAULT_GPUS = 16
UNLIMITED = -1
_USING = ("PROVISIONING", "RUNNING", "UPDATING")


class Quotas:
    """The quotas of the project.

    :param project: Has the scripted limits, and what is used beside the clusters.
    :param clusters: Gives the clusters that there are.
    """

    def __init__(self, project: Project, clusters: Callable[[], Iterable[Cluster]]) -> None:
        self._project = project
        self._clusters = clusters

    def limit(self, metric: str, region: str) -> int:
        """The limit that is in force."""
        return self._scripted(metric, region).get("limit", default_limit(metric))

    def used(self, metric: str, region: str, but: str = "") -> int:
        """What is used now, by all clusters but the one of a name, and beside them."""
        total = self._scripted(metric, region).get("used", 0)
        for cluster in self._clusters():
            if cluster.region == region and cluster.state in _USING and cluster.name != but:
                total += demand(cluster.resource.resource_pools).get(metric, 0)
        return total

    def exceeded(self, name: str, pools: Iterable[Any], have: Iterable[Any] = ()) -> Fault | None:
        """What a create or a resize of a cluster comes to when a scripted limit does not allow it; else None.

        The limits that nobody scripted are only told, so that big clusters can be emulated without ado.

        :param name: The cluster's name.
        :param pools: Its pools as they are to be.
        :param have: Its pools as they are: what does not grow is never refused.
        """
        region = name.split("/")[3]
        before = demand(have)
        over = []
        for metric, amount in demand(pools).items():
            if amount <= before.get(metric, 0):
                continue
            limit = self._scripted(metric, region).get("limit", UNLIMITED)
            if limit != UNLIMITED and self.used(metric, region, but=name) + amount > limit:
                over.append(f"aiplatform.googleapis.com/{metric}")
        if not over:
            return None
        text = f"The following quota metrics exceed quota limits: {', '.join(over)}"
        return Fault("provisioning", action="outcome", outcome="quota", message=text)

    def regions(self) -> set[str]:
        """The regions of which anything is known beyond the defaults."""
        scripted = {region for regions in self._project.script.quota.values() for region in regions}
        return scripted | {cluster.region for cluster in self._clusters()}

    def _scripted(self, metric: str, region: str) -> dict[str, int]:
        return self._project.script.quota.get(metric, {}).get(region, {})


def default_limit(metric: str) -> int:
    """The limit of a metric where nothing else was said."""
    return DEFAULT_CPUS if metric.endswith("_cpus") else DEFAULT_GPUS


def known(metric: str) -> bool:
    """Whether there is such a metric."""
    return metric in METRICS
