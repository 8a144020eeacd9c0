"""Operators that create, get, list, resize and delete clusters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_duration, unless_empty
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.polling import TRANSIENT_ERRORS
from airflow_provider_vertex_ray.errors import ClusterNotFoundError, VertexRayError
from airflow_provider_vertex_ray.links.base import persist_cluster_facts, persist_link_facts
from airflow_provider_vertex_ray.links.cluster import VertexRayClusterListLink
from airflow_provider_vertex_ray.links.link_sets import GONE_LINKS, WHOLE_CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.arguments import check_mappings, resolve_deferrable
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.cluster_create import VertexRayCreateClusterOperator
from airflow_provider_vertex_ray.operators.cluster_resize import VertexRayResizeClusterOperator
from airflow_provider_vertex_ray.operators.leases import LeaseClosing, check_lease
from airflow_provider_vertex_ray.operators.owner_labels import run_labels
from airflow_provider_vertex_ray.operators.price_tables import check_price_table, load_price_table
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterDeleteTrigger
from airflow_provider_vertex_ray.triggers.cluster_deletion import CLEAN_UP_TIMEOUT

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = [
    "VertexRayCreateClusterOperator",
    "VertexRayDeleteClusterOperator",
    "VertexRayGetClusterOperator",
    "VertexRayListClustersOperator",
    "VertexRayResizeClusterOperator",
]

LONGEST_CLOSING = 3600.0
"""Seconds for which the lease of a cluster stays closed if the task that deletes it dies.

The trigger closes the lease again before each request, however long the deletion takes."""


class VertexRayGetClusterOperator(VertexRayBaseOperator):
    """Get one cluster; returns ``Cluster.summary()`` with ``cost_so_far``.

    ``dashboard_address`` and ``cluster_resource_name`` are keys of the Google provider.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param price_table: prices for ``cost_so_far``; see ``VertexRayClusterCostOperator``. None reports node-hours only.
        (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
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
        """Read the cluster."""
        from airflow_provider_vertex_ray.core.cost.pricing import cost_so_far
        from airflow_provider_vertex_ray.core.threads import run_sync

        name = self._name(self.cluster_id)
        table = load_price_table(self, self.price_table, name.location)
        cluster = run_sync(lambda: self.cluster_hook.get_cluster(name)).require_ray()
        persist_cluster_facts(context, name, cluster)
        return {
            **cluster.summary(),
            "cost_so_far": cost_so_far(cluster, time.time(), table),
            # As in the result of the Google provider's operator.
            "dashboard_address": cluster.dashboard_uri,
            "cluster_resource_name": cluster.name,
        }


class VertexRayListClustersOperator(VertexRayBaseOperator):
    """List the Ray clusters of a project and region; returns a list of ``Cluster.summary()`` with ``cost_so_far``.

    :param labels: only list clusters that have all of these labels; default: all clusters. (templated)
    :param price_table: prices for ``cost_so_far``; see ``VertexRayClusterCostOperator``. None reports node-hours only.
        (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises NotAuthorisedError: the credentials lack a permission.
    """

    template_fields: Sequence[str] = ("labels", "price_table", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = (VertexRayClusterListLink(),)

    def __init__(self, *, labels: dict[str, str] | None = None, price_table: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_mappings(labels=labels)
        check_price_table(price_table)
        self.labels = labels
        self.price_table = price_table

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """List the clusters, page by page."""
        from airflow_provider_vertex_ray.core.cost.pricing import cost_so_far
        from airflow_provider_vertex_ray.core.threads import run_sync

        check_mappings(labels=unless_empty(self.labels))
        project = self.project_id or self._connection_project()
        persist_link_facts(context, project_id=project)
        table = load_price_table(self, self.price_table)
        found = run_sync(lambda: self.cluster_hook.list_clusters(self.labels))
        for cluster in found:
            self.log.info("%s: %s, %d nodes", cluster.cluster_id, cluster.state.value, cluster.node_count)
        now = time.time()
        return [{**cluster.summary(), "cost_so_far": cost_so_far(cluster, now, table)} for cluster in found]


class VertexRayDeleteClusterOperator(VertexRayBaseOperator):
    """Delete a cluster and wait until it no longer exists, so that it stops incurring charges.

    A cluster that does not exist is not an error. Vertex AI does not delete a cluster that is PROVISIONING, so the task
    waits for that state to end. Given an ID, it also deletes the clusters that this DAG run created for that ID under
    another one, such as ``<cluster_id>-2``. Returns ``cluster_id``, ``name`` and ``existed``.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param lease_uri: Cloud Storage folder with the leases. The task fails if another run holds a lease on the cluster,
        and no run can acquire one during the deletion. None: leases are ignored. (templated)
    :param delete_timeout: seconds within which the cluster must be deleted, including the wait for PROVISIONING to end,
        which may take hours.
    :param poll_interval: seconds between two status requests.
    :param deferrable: whether to wait in the triggerer; default: ``[operators] default_deferrable``.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises LeaseHeldError: another run holds a lease on the cluster.
    :raises NotAuthorisedError: the credentials lack a permission.
    :raises OperationTimeoutError: the cluster was not deleted within ``delete_timeout``.
    """

    template_fields: Sequence[str] = ("cluster_id", "lease_uri", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = GONE_LINKS

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        lease_uri: str | None = None,
        delete_timeout: float = CLEAN_UP_TIMEOUT,
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
        self.deferrable = resolve_deferrable(deferrable)

    def execute(self, context: Context) -> Any:
        """Delete the cluster and wait; the trigger sends the request, because Vertex AI may reject it at first."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        check_lease(unless_empty(self.lease_uri))
        began = time.time()
        name = self._name(self.cluster_id)
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        # Before the lease is closed: what the lease belongs to is the cluster that is deleted.
        created = run_sync(lambda: self._created(name))
        closing = LeaseClosing(self, str(self.lease_uri), context)
        closed = run_sync(lambda: self._close(name, closing)) if self.lease_uri else None
        lease = {"uri": self.lease_uri, "cluster": closed, "owner": closing.owner, "token": closing.token}
        # A full name, as the create operator returns it, names the cluster exactly.
        tries = {} if "/" in str(self.cluster_id) else run_sync(lambda: self._tries(name, context))
        trigger = VertexRayClusterDeleteTrigger(
            cluster_name=name.full,
            also=list(tries),
            created={**created, **{each: when for each, when in tries.items() if when}},
            began=began,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.delete_timeout),
            lease=lease if closed else None,
            passthrough={"closed": closed},
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the deleted cluster, or raise the reason for the failure."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        closed = ((event or {}).get("passthrough") or {}).get("closed")
        if closed:
            closing = LeaseClosing(self, str(self.lease_uri), context)
            gone = (event or {}).get("status") == "success"
            run_sync(lambda: closing.done(closed, gone=gone))
        return result_of(event)

    async def _created(self, name: ClusterName) -> dict[str, str]:
        """Return the ``create_time`` of the cluster by its full name: empty if it does not exist.

        The result is empty if the service does not tell now; then the trigger goes by its first look.
        """
        hook = self.cluster_hook
        async with hook.session():
            try:
                found = (await hook.get_cluster(name)).create_time
            except ClusterNotFoundError:
                found = ""
            except TRANSIENT_ERRORS as error:
                self.log.warning("Could not read cluster %s yet: %s", name.cluster_id, error.message)
                found = None
        return {} if found is None else {name.full: found}

    async def _tries(self, name: ClusterName, context: Context) -> dict[str, str | None]:
        """Return the clusters that this DAG run created for an id under another one: ``create_time`` by full name."""
        from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
        from airflow_provider_vertex_ray.core.cluster.tries import tries_of

        async with self.cluster_hook.session() as (transport, _):
            try:
                clusters = await ClustersApi(transport).list_all(name.project, name.location)
            except VertexRayError as error:
                self.log.warning("Could not look for clusters of earlier attempts: %s", error.message)
                return {}
        found = tries_of(name.cluster_id, clusters, run_labels(context))
        return {cluster.name: cluster.create_time for cluster in found if cluster.cluster_id != name.cluster_id}

    async def _close(self, name: ClusterName, closing: LeaseClosing) -> str | None:
        """Close the lease to others; return the name of the cluster, or None if the cluster does not exist."""
        hook = self.cluster_hook
        async with hook.session():
            try:
                cluster = await hook.get_cluster(name)
            except ClusterNotFoundError:
                return None
            await closing.close(cluster.name, "it is being deleted", min(self.delete_timeout, LONGEST_CLOSING))
            return cluster.name
