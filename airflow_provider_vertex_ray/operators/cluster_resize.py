"""Changing the numbers of nodes of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_vertex_ray.core.checks import check_duration, has_template
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.links.base import persist_cluster_facts, persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, deferrable_by_default
from airflow_provider_vertex_ray.operators.leases import LeaseClosing, check_lease, lease_owner_of
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterResizeTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName


class VertexRayResizeClusterOperator(VertexRayBaseOperator):
    """Changes the numbers of nodes of a cluster, waits, and verifies what came of it.

    A cluster does not get smaller than what running jobs use, and never loses its last worker. Which nodes go is the
    service's choice, so what runs on one of them may have to begin again, as Ray decides.

    The result is ``Cluster.summary()`` with ``live_nodes``: the nodes that Ray itself sees alive.

    :param cluster_id: Id or full resource name. (templated)
    :param replicas: New replica count by pool id, such as ``{"worker-pool1": 4}``; the head's pool counts its head too.
        Autoscaling pools can not be resized, and no pool goes below 1. (templated)
    :param total_nodes: Number of all nodes, the head included, instead of ``replicas``, for a cluster with one pool of
        workers. (templated)
    :param force: Whether nodes may go that running jobs need, or while others hold the cluster's lease.
    :param lease_uri: Folder in Cloud Storage with the leases: a cluster that others hold does not get smaller, and
        takes no new holders while it does. (templated)
    :param resize_timeout: Seconds that it may take; the service takes a few minutes.
    :param poll_interval: Seconds between two looks.
    :param deferrable: Wait in the triggerer; default: ``[operators] default_deferrable``.

    Raises InvalidArgumentError for counts that the service can not do, ClusterInUseError, LeaseHeldError, QuotaExceededError,
    StockoutError, PreconditionError, ResizeFailedError.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "replicas",
        "total_nodes",
        "lease_uri",
        *VertexRayBaseOperator.connection_fields,
    )
    operator_extra_links = CLUSTER_LINKS
    _at_least: ClassVar[int] = 1

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        replicas: dict[str, int] | None = None,
        total_nodes: int | str | None = None,
        force: bool = False,
        lease_uri: str | None = None,
        resize_timeout: float = 1800.0,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        if (replicas is None) == (total_nodes is None):
            raise InvalidArgumentError("replicas", replicas, "give either replicas or total_nodes")
        if isinstance(replicas, dict):
            if not replicas:
                raise InvalidArgumentError("replicas", replicas, "give a new replica count for at least one pool")
            for pool, count in replicas.items():
                if isinstance(count, int) and count < self._at_least:
                    raise InvalidArgumentError(f"replicas[{pool!r}]", count, "a pool has 1 to 1000 nodes")
        if total_nodes is not None and not has_template(total_nodes) and not hasattr(total_nodes, "iter_references"):
            _whole(total_nodes)
        check_lease(lease_uri)
        check_duration("resize_timeout", resize_timeout, none_allowed=False)
        check_duration("poll_interval", poll_interval, none_allowed=False)
        self.cluster_id = cluster_id
        self.replicas = replicas
        self.total_nodes = total_nodes
        self.force = force
        self.lease_uri = lease_uri
        self.resize_timeout = resize_timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable

    def execute(self, context: Context) -> Any:
        """Start the resize, then wait."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._name(str(self.cluster_id))
        replicas = self._wanted()
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        owner = lease_owner_of(context, None)
        replicas, operation, closed = run_sync(lambda: self._start(context, name, replicas, owner))
        trigger = VertexRayClusterResizeTrigger(
            cluster_name=name.full,
            replicas=replicas,
            operation=operation,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.resize_timeout),
            passthrough={"closed": closed},
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the resized cluster, or raise why it is not."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        closed = ((event or {}).get("passthrough") or {}).get("closed")
        if closed:
            closing = LeaseClosing(self, str(self.lease_uri), lease_owner_of(context, None))
            run_sync(lambda: closing.done(closed, gone=False))
        return result_of(event)

    def _wanted(self) -> dict[str, int]:
        """The new counts, empty for a total.

        :raises InvalidArgumentError: They are no whole numbers.
        """
        if self.replicas is None:
            _whole(self.total_nodes)
            return {}
        try:
            return {str(pool): int(count) for pool, count in self.replicas.items()}
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError("replicas", self.replicas, "give whole numbers by pool id") from error

    async def _start(
        self, context: Context, name: ClusterName, replicas: dict[str, int], owner: str
    ) -> tuple[dict[str, int], str | None, str | None]:
        """Start it; gives the counts, the operation, and the name of the cluster whose lease was closed."""
        from airflow_provider_vertex_ray.core.job.capacity import shrinks

        hook = self.cluster_hook
        async with hook.session():
            if not replicas:
                replicas = await hook.replicas_for(name.full, _whole(self.total_nodes))
            cluster = await hook.get_cluster(name.full)
            persist_cluster_facts(context, name, cluster)
            closing = LeaseClosing(self, str(self.lease_uri), owner)
            closed = None
            if self.lease_uri and not self.force and shrinks(cluster, replicas):
                closed = cluster.name
                await closing.close(closed, "it gets smaller", self.resize_timeout)
            try:
                return replicas, await hook.resize_cluster(name.full, replicas, force=self.force), closed
            except BaseException:
                if closed:
                    await closing.done(closed, gone=False)
                raise


def _whole(total_nodes: Any) -> int:
    """A number of nodes.

    :raises InvalidArgumentError: It is none.
    """
    try:
        found = int(total_nodes)
        if isinstance(total_nodes, bool) or found != float(total_nodes) or not 2 <= found <= 2000:
            raise ValueError
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            "total_nodes", total_nodes, "give a whole number from 2 to 2000, the head included"
        ) from None
    return found
