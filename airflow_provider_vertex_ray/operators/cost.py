"""Operator that estimates the cost of a cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.links.base import persist_cluster_facts
from airflow_provider_vertex_ray.links.link_sets import WHOLE_CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.price_tables import check_price_table, load_price_table

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class VertexRayClusterCostOperator(VertexRayBaseOperator):
    """Estimate the cost of a cluster so far: node-hours and, if prices are given, an amount of money.

    Returns a dict with ``cluster_id``, ``name``, ``state``, ``node_hours`` by kind of node, ``total_node_hours``,
    ``cost`` (None when a node has no price), ``currency``, ``unpriced``, ``since`` and ``basis``. It is an estimate:
    the service keeps no history of a cluster's size, and disks are not included.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param price_table: prices per hour: a dict (see ``PriceTable``), the path of a JSON file, ``variable:NAME`` for an
        Airflow Variable that holds the JSON, or ``catalog`` for the Cloud Billing Catalog. None reports node-hours
        only. (templated)
    :raises InvalidArgumentError: an argument is invalid, or the price table is malformed.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises NotARayClusterError: the resource is not a Ray cluster.
    """

    template_fields: Sequence[str] = ("cluster_id", "price_table", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = WHOLE_CLUSTER_LINKS

    def __init__(self, *, cluster_id: str | None = None, price_table: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        check_price_table(price_table)
        self.cluster_id = cluster_id
        self.price_table = price_table

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the cluster and estimate its cost."""
        from airflow_provider_vertex_ray.core.cost.pricing import cost_so_far
        from airflow_provider_vertex_ray.core.threads import run_sync

        name = self._name(self.cluster_id)
        table = load_price_table(self, self.price_table, name.location)
        cluster = run_sync(lambda: self.cluster_hook.get_cluster(name)).require_ray()
        persist_cluster_facts(context, name, cluster)
        found = cost_so_far(cluster, time.time(), table)
        self.log.info("Cluster %s: %s node-hours, cost %s %s", cluster.cluster_id, *map(found.get, _SHOWN))
        return {"cluster_id": cluster.cluster_id, "name": cluster.name, "state": cluster.state.value, **found}


_SHOWN = ("total_node_hours", "cost", "currency")
