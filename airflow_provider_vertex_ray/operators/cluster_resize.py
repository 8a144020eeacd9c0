"""Operator that resizes a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_duration, known_at_run_time, unless_empty
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.links.base import persist_cluster_facts, persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import WHOLE_CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.arguments import check_flags, check_mappings, resolve_deferrable
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, task_owner
from airflow_provider_vertex_ray.operators.google_arguments import flat_spec, replicas_of_workers
from airflow_provider_vertex_ray.operators.leases import LeaseClosing, check_lease
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterResizeTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName


class VertexRayResizeClusterOperator(VertexRayBaseOperator):
    """Resize the pools of a cluster, wait, and verify the number of live nodes.

    A cluster is not scaled down below what its running jobs use, and keeps at least one worker. Vertex AI chooses the
    nodes to remove, so Ray may restart tasks and actors that ran on them.

    Returns ``Cluster.summary()`` with ``live_nodes``, the number of nodes that Ray reports as alive.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param replicas: new replica count by pool ID, such as ``{"worker-pool1": 4}``; the count of the head's pool
        includes the head. Autoscaling pools cannot be resized, and no pool can have fewer than 1 replica. (templated)
    :param total_nodes: new number of all nodes including the head, instead of ``replicas``, for a cluster with one
        worker pool. (templated)
    :param worker_node_types: worker types with their new ``node_count``, as in the Google provider, instead of
        ``replicas``. (templated)
    :param force: whether to scale down even if running jobs use the nodes or other runs hold a lease on the cluster.
    :param lease_uri: Cloud Storage folder with the leases. The task fails if it would scale down a cluster on which
        another run holds a lease, and no run can acquire one meanwhile. None: leases are ignored. (templated)
    :param resize_timeout: seconds within which the resize must finish; Vertex AI takes a few minutes.
    :param poll_interval: seconds between two status requests.
    :param deferrable: whether to wait in the triggerer; default: ``[operators] default_deferrable``.
    :raises InvalidArgumentError: an argument is invalid, or the cluster cannot have this size.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises NotARayClusterError: the resource is not a Ray cluster.
    :raises ClusterInUseError: running jobs use the nodes, or their use could not be read.
    :raises LeaseHeldError: another run holds a lease on the cluster.
    :raises QuotaExceededError: the training quota does not cover the new size.
    :raises StockoutError: the region has no capacity for the new nodes.
    :raises PreconditionError: the state of the cluster does not allow a resize.
    :raises ResizeFailedError: the cluster did not reach the new size within ``resize_timeout``.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "replicas",
        "total_nodes",
        "worker_node_types",
        "lease_uri",
        *VertexRayBaseOperator.connection_fields,
    )
    operator_extra_links = WHOLE_CLUSTER_LINKS

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        replicas: dict[str, int] | None = None,
        total_nodes: int | str | None = None,
        worker_node_types: Sequence[Any] | None = None,
        force: bool = False,
        lease_uri: str | None = None,
        resize_timeout: float = 1800.0,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        sizes = {"replicas": replicas, "total_nodes": total_nodes, "worker_node_types": worker_node_types}
        given = [field for field, value in sizes.items() if value is not None]
        if len(given) != 1:
            field = given[-1] if given else "replicas"
            raise InvalidArgumentError(field, sizes[field], f"Use exactly one of {', '.join(sizes)}.")
        if worker_node_types is not None:
            worker_node_types = flat_spec(None, {"worker_node_types": worker_node_types})["worker_node_types"]
        check_mappings(replicas=replicas)
        if isinstance(replicas, dict):
            if not replicas:
                raise InvalidArgumentError("replicas", replicas, "Use a new replica count for at least one pool.")
            _parse_replicas(replicas)
        if total_nodes is not None and not known_at_run_time(total_nodes):
            _parse_total(total_nodes)
        check_flags(force=force)
        check_lease(lease_uri)
        check_duration("resize_timeout", resize_timeout, none_allowed=False)
        check_duration("poll_interval", poll_interval, none_allowed=False)
        self.cluster_id = cluster_id
        self.replicas = replicas
        self.total_nodes = total_nodes
        self.worker_node_types = worker_node_types
        self.force = force
        self.lease_uri = lease_uri
        self.resize_timeout = resize_timeout
        self.poll_interval = poll_interval
        self.deferrable = resolve_deferrable(deferrable)

    def execute(self, context: Context) -> Any:
        """Start the resize, then wait until it is done."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        check_lease(unless_empty(self.lease_uri))
        name = self._name(str(self.cluster_id))
        replicas = self._parse_replicas()
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        replicas, operation, closed = run_sync(lambda: self._start(context, name, replicas))
        trigger = VertexRayClusterResizeTrigger(
            cluster_name=name.full,
            replicas=replicas,
            operation=operation,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.resize_timeout),
            lease={"uri": self.lease_uri, "cluster": closed, "token": task_owner(context)[0]} if closed else None,
            passthrough={"closed": closed},
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the resized cluster, or raise the reason for the failure."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        closed = ((event or {}).get("passthrough") or {}).get("closed")
        if closed:
            closing = LeaseClosing(self, str(self.lease_uri), context)
            run_sync(lambda: closing.done(closed, gone=False))
        return result_of(event)

    def _parse_replicas(self) -> dict[str, int]:
        """Return the new counts by pool; empty if they depend on the cluster.

        :raises InvalidArgumentError: a count is not a whole number.
        """
        if self.worker_node_types is not None:
            flat_spec(None, {"worker_node_types": self.worker_node_types})
            return {}
        if self.replicas is None:
            _parse_total(self.total_nodes)
            return {}
        check_mappings(replicas=self.replicas)
        return _parse_replicas(self.replicas)

    async def _start(
        self, context: Context, name: ClusterName, replicas: dict[str, int]
    ) -> tuple[dict[str, int], str | None, str | None]:
        """Start the resize; return the counts, the operation, and the name of the cluster if its lease was closed."""
        from airflow_provider_vertex_ray.core.job.capacity import shrinks

        hook = self.cluster_hook
        async with hook.session():
            if not replicas and self.worker_node_types is None:
                replicas = await hook.replicas_for(name, _parse_total(self.total_nodes))
            cluster = await hook.get_cluster(name)
            if self.worker_node_types is not None:
                replicas = replicas_of_workers(cluster.require_ray(), self.worker_node_types)
            persist_cluster_facts(context, name, cluster)
            closing = LeaseClosing(self, str(self.lease_uri), context)
            closed = None
            if self.lease_uri and not self.force and shrinks(cluster, replicas):
                closed = cluster.name
                await closing.close(closed, "it is being scaled down", self.resize_timeout)
            try:
                return replicas, await hook.resize_cluster(name, replicas, force=self.force), closed
            except BaseException:
                if closed:
                    await closing.done(closed, gone=False)
                raise


def _parse_replicas(replicas: Mapping[Any, Any]) -> dict[str, int]:
    """Return the new counts by pool, without those that are known only at run time.

    :raises InvalidArgumentError: a count is not a whole number in the valid range.
    """
    known = {pool: count for pool, count in replicas.items() if not known_at_run_time(count)}
    return {str(pool): _parse_count(f"replicas[{pool!r}]", count, 1, 1000) for pool, count in known.items()}


def _parse_total(total_nodes: Any) -> int:
    """Return a total number of nodes, which a rendered template gives as a string.

    :raises InvalidArgumentError: the value is not a whole number in the valid range.
    """
    return _parse_count("total_nodes", total_nodes, 2, 2000, ", including the head")


def _parse_count(field: str, count: Any, least: int, most: int, more: str = "") -> int:
    """Return a number of nodes, which a rendered template gives as a string, and JSON perhaps as ``3.0``.

    :raises InvalidArgumentError: the value is not a whole number in the valid range.
    """
    try:
        found = int(count)
        if isinstance(count, bool) or not least <= found <= most or found != float(count):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgumentError(field, count, f"Use a whole number from {least} to {most}{more}.") from None
    return found
