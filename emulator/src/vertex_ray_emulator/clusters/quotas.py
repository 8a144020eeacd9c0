"""Limits and usage of the training quotas, by region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.faults import Fault
from vertex_ray_emulator.outcomes import quota_text
from vertex_ray_emulator.project.quota_metrics import demand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vertex_ray_emulator.clusters.lifecycle import Cluster
    from vertex_ray_emulator.project.project_script import Project

DEFAULT_CPUS = 2200
"""Default limit of each metric of CPUs. Invented, because the limits of a real project depend on its history."""
DEFAULT_GPUS = 16
"""Default limit of each metric of accelerators. Invented as well."""
UNLIMITED = -1
_USING = ("PROVISIONING", "RUNNING", "UPDATING")


class Quotas:
    """The quotas of the project.

    :param project: scripted limits, and usage beside the clusters.
    :param clusters: returns the existing clusters.
    :param recorded_texts: refuse with the text of recorded live runs.
    """

    def __init__(
        self, project: Project, clusters: Callable[[], Iterable[Cluster]], *, recorded_texts: bool = False
    ) -> None:
        self._recorded_texts = recorded_texts
        self._project = project
        self._clusters = clusters

    def limit(self, metric: str, region: str) -> int:
        """Return the limit of a metric in a region."""
        return self._scripted(metric, region).get("limit", default_limit(metric))

    def used(self, metric: str, region: str, but: str = "") -> int:
        """Return the current usage, scripted usage included.

        :param metric: quota metric, without the service.
        :param region: region, such as ``us-central1``.
        :param but: name of a cluster to leave out.
        """
        total = self._scripted(metric, region).get("used", 0)
        for cluster in self._clusters():
            if cluster.region == region and cluster.state in _USING and cluster.name != but:
                total += demand(cluster.resource.resource_pools).get(metric, 0)
        return total

    def exceeded(self, name: str, pools: Iterable[Any], have: Iterable[Any] = ()) -> Fault | None:
        """Return the fault of a create or a resize that exceeds a scripted limit; None if all limits allow it.

        Default limits are reported and not enforced, so that big clusters can be emulated without any preparation.

        :param name: name of the cluster.
        :param pools: resource pools after the operation.
        :param have: resource pools before the operation; usage that does not grow is never refused.
        """
        region = name.split("/")[3]
        before = demand(have)
        over = []
        for metric, amount in demand(pools).items():
            if amount <= before.get(metric, 0):
                continue
            limit = self._scripted(metric, region).get("limit", UNLIMITED)
            if limit != UNLIMITED and self.used(metric, region, but=name) + amount > limit:
                over.append(metric)
        if not over:
            return None
        text = quota_text(over, recorded=self._recorded_texts)
        return Fault("provisioning", action="outcome", outcome="quota", message=text)

    def regions(self) -> set[str]:
        """Return the regions that have a cluster or a scripted quota."""
        scripted = {region for regions in self._project.script.quota.values() for region in regions}
        return scripted | {cluster.region for cluster in self._clusters()}

    def _scripted(self, metric: str, region: str) -> dict[str, int]:
        return self._project.script.quota.get(metric, {}).get(region, {})


def default_limit(metric: str) -> int:
    """Return the limit of a metric that is not scripted."""
    return DEFAULT_CPUS if metric.endswith("_cpus") else DEFAULT_GPUS
