"""Clusters as tasks: create, get, list, resize, delete."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_duration
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.errors import ClusterNotFoundError
from airflow_provider_vertex_ray.links.base import persist_cluster_facts, persist_link_facts
from airflow_provider_vertex_ray.links.cluster import VertexRayClusterListLink
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS, GONE_LINKS
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, deferrable_by_default
from airflow_provider_vertex_ray.operators.cluster_create import VertexRayCreateClusterOperator
from airflow_provider_vertex_ray.operators.cluster_resize import VertexRayResizeClusterOperator
from airflow_provider_vertex_ray.operators.cost import check_price_table, load_price_table
from airflow_provider_vertex_ray.operators.leases import LeaseClosing, check_lease, lease_owner_of
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterDeleteTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = [
    "VertexRayCreateClusterOperator",
    "VertexRayDeleteClusterOperator",
    "VertexRayGetClusterOperator",
    "VertexRayListClustersOperator",
    "VertexRayResizeClusterOperator",
]


class VertexRayGetClusterOperator(VertexRayBaseOperator):
    """Reads one cluster and returns ``Cluster.summary()`` with ``cost_so_far``.

    :param cluster_id: Id or full resource name. (templated)
    :param price_table: Prices; see ``VertexRayClusterCostOperator``. None: node-hours only. (templated)

    Raises ClusterNotFoundError, NotARayClusterError.
    """

    template_fields: Sequence[str] = ("cluster_id", "price_table", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = CLUSTER_LINKS

    def __init__(self, *, cluster_id: str | None = None, price_table: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        check_price_table(price_table)
        self.cluster_id = cluster_id
        self.price_table = price_table

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask the service."""
        from airflow_provider_vertex_ray.core.cost.pricing import cost_so_far
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._name(self.cluster_id)
        table = load_price_table(self, self.price_table, name.location)
        cluster = run_sync(lambda: self.cluster_hook.get_cluster(name.full)).require_ray()
        persist_cluster_facts(context, name, cluster)
        return {**cluster.summary(), "cost_so_far": cost_so_far(cluster, time.time(), table)}


class VertexRayListClustersOperator(VertexRayBaseOperator):
    """Lists the Ray clusters of a project and region; returns a list of ``Cluster.summary()`` with ``cost_so_far``.

    :param labels: Only clusters that carry all of these labels. (templated)
    :param price_table: Prices; see ``VertexRayClusterCostOperator``. None: node-hours only. (templated)
    """

    template_fields: Sequence[str] = ("labels", "price_table", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = (VertexRayClusterListLink(),)

    def __init__(self, *, labels: dict[str, str] | None = None, price_table: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_price_table(price_table)
        self.labels = labels
        self.price_table = price_table

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Ask the service, page by page."""
        from airflow_provider_vertex_ray.core.cost.pricing import cost_so_far
        from airflow_provider_vertex_ray.hooks.base import run_sync

        project = self.project_id or self._connection_project()
        persist_link_facts(context, project_id=project)
        table = load_price_table(self, self.price_table)
        found = run_sync(lambda: self.cluster_hook.list_clusters(self.labels))
        for cluster in found:
            self.log.info("%s: %s, %d nodes", cluster.cluster_id, cluster.state.value, cluster.node_count)
        now = time.time()
        return [{**cluster.summary(), "cost_so_far": cost_so_far(cluster, now, table)} for cluster in found]


class VertexRayDeleteClusterOperator(VertexRayBaseOperator):
    """Deletes a cluster and waits until it is gone, so that it stops costing money.

    A cluster that is not there is deleted already. One that is PROVISIONING can not be deleted yet: that is waited out.
    The result has ``cluster_id``, ``name`` and ``existed``.

    :param cluster_id: Id or full resource name. (templated)
    :param lease_uri: Folder in Cloud Storage with the leases: a cluster that others hold is not deleted, and takes no
        new holders while it is. (templated)
    :param delete_timeout: Seconds that it may take, the end of PROVISIONING included.
    :param poll_interval: Seconds between two looks.
    :param deferrable: Wait in the triggerer; default: ``[operators] default_deferrable``.

    Raises LeaseHeldError, NotAuthorisedError, OperationTimeoutError.
    """

    template_fields: Sequence[str] = ("cluster_id", "lease_uri", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = GONE_LINKS

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        lease_uri: str | None = None,
        delete_timeout: float = 3600.0,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        check_lease(lease_uri)
        check_duration("delete_timeout", delete_timeout, none_allowed=False)
        check_duration("poll_interval", poll_interval, none_allowed=False)
        self.cluster_id = cluster_id
        self.lease_uri = lease_uri
        self.delete_timeout = delete_timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable

    def execute(self, context: Context) -> Any:
        """Delete, in the trigger, because the first tries may be refused."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._name(self.cluster_id)
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        owner = lease_owner_of(context, None)
        closed = run_sync(lambda: self._close(name, owner)) if self.lease_uri else None
        trigger = VertexRayClusterDeleteTrigger(
            cluster_name=name.full,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.delete_timeout),
            passthrough={"closed": closed},
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was deleted, or raise why it was not."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        closed = ((event or {}).get("passthrough") or {}).get("closed")
        if closed:
            closing = LeaseClosing(self, str(self.lease_uri), lease_owner_of(context, None))
            gone = (event or {}).get("status") == "success"
            run_sync(lambda: closing.done(closed, gone=gone))
        return result_of(event)

    async def _close(self, name: ClusterName, owner: str) -> str | None:
        """Keep others off; gives the name of the cluster whose lease is closed now, None for one that is gone."""
        hook = self.cluster_hook
        async with hook.session():
            try:
                cluster = await hook.get_cluster(name.full)
            except ClusterNotFoundError:
                return None
            await LeaseClosing(self, str(self.lease_uri), owner).close(
                cluster.name, "it is deleted", self.delete_timeout
            )
            return cluster.name
