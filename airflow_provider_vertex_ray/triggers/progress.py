"""Progress of a cluster that is being created, in the log of the task that waits for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.deadlines import duration

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.cost.price_table import PriceTable

PROGRESS_SECONDS = 60.0
"""Minimum number of seconds between two log lines about a cluster that is still being created."""


class CreationProgress:
    """Log the states of the cluster that a task waits for, and every minute how long its creation has taken.

    :param log: the task's log.
    :param prices: a price table as JSON; None if there are no prices.
    """

    def __init__(self, log: Any, prices: dict[str, Any] | None = None) -> None:
        self._log = log
        self._prices = prices
        self._cluster = ""
        self.state: ClusterState | None = None
        """State of the cluster when it was last read."""
        self._since: float | None = None
        self._said_at = 0.0

    def note(self, cluster: Cluster) -> None:
        """Log what is new about the cluster; another one than before begins anew."""
        if cluster.name != self._cluster:
            self._cluster, self.state, self._since = cluster.name, None, None
        if cluster.state is not self.state:
            self.state = cluster.state
            self._log.info("Cluster %s is %s", cluster.cluster_id, cluster.state.value)
        if cluster.state is not ClusterState.PROVISIONING:
            return
        now = time.time()
        if self._since is None:
            self._since = min(now, cluster.created or now)
            self._said_at = now
        if now - self._said_at >= PROGRESS_SECONDS:
            self._said_at = now
            # Source of the usual time: docs/service-facts.md.
            self._log.info(
                "Cluster %s has been PROVISIONING for %s; 10 to 20 minutes are usual. Once RUNNING, %s",
                cluster.cluster_id,
                duration(now - self._since),
                self._cost(cluster),
            )

    def ready(self, cluster: Cluster) -> None:
        """Log that the cluster can be used: the time that its creation took, and its dashboard."""
        after = "" if self._since is None else f" after {duration(time.time() - self._since)}"
        self._log.info(
            "Cluster %s is ready%s: its dashboard answers at %s", cluster.cluster_id, after, cluster.dashboard_url
        )

    def _cost(self, cluster: Cluster) -> str:
        """Return what the cluster costs an hour, as the end of a sentence."""
        from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
        from airflow_provider_vertex_ray.core.cost.pricing import cost_of, nodes_of

        nodes = f"its {cluster.node_count} nodes"
        if self._prices is None:
            return f"{nodes} are billed; a price_table lets this line tell the amount"
        table: PriceTable = PriceTable.from_value(self._prices)
        cost = cost_of({kind: float(count) for kind, count in nodes_of(cluster).items()}, table, cluster.location)
        if cost.amount is None:
            return f"{nodes} are billed; the price_table has no price for {', '.join(cost.unpriced)}"
        return f"{nodes} cost {cost.amount:.2f} {cost.currency} an hour"
