"""Changing the numbers of nodes of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_vertex_ray.deadlines import deadline_after
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.cluster import VertexRayClusterLink, VertexRayDashboardLink, VertexRayLogsLink
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, deferrable_by_default, positive
from airflow_provider_vertex_ray.spec_error import SpecError
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterResizeTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class VertexRayResizeClusterOperator(VertexRayBaseOperator):
    """Changes the numbers of nodes of a cluster, waits, and verifies what came of it.

    The result is ``Cluster.summary()`` with ``live_nodes``: the nodes that Ray itself sees alive.

    :param cluster_id: Id or full resource name. (templated)
    :param replicas: New replica count by pool id, such as ``{"worker-pool1": 4}``; the head's pool counts its head too.
        Autoscaling pools can not be resized, and no pool goes below 1. (templated)
    :param resize_timeout: Seconds that it may take; the service takes a few minutes.
    :param poll_interval: Seconds between two looks.
    :param deferrable: Wait in the triggerer; default: ``[operators] default_deferrable``.

    Raises SpecError for counts that the service can not do, QuotaExceededError, StockoutError, PreconditionError,
    ResizeFailedError.
    """

    template_fields: Sequence[str] = ("cluster_id", "replicas", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = (VertexRayClusterLink(), VertexRayDashboardLink(), VertexRayLogsLink())
    _at_least: ClassVar[int] = 1

    def __init__(
        self,
        *,
        cluster_id: str,
        replicas: dict[str, int],
        resize_timeout: float = 1800.0,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_cluster_id(cluster_id)
        if isinstance(replicas, dict):
            if not replicas:
                raise SpecError("replicas", replicas, "give a new replica count for at least one pool")
            for pool, count in replicas.items():
                if isinstance(count, int) and count < self._at_least:
                    raise SpecError(f"replicas[{pool!r}]", count, "a pool has 1 to 1000 nodes")
        positive("resize_timeout", resize_timeout, none_allowed=False)
        positive("poll_interval", poll_interval, none_allowed=False)
        self.cluster_id = cluster_id
        self.replicas = replicas
        self.resize_timeout = resize_timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable

    def execute(self, context: Context) -> Any:
        """Start the resize, then wait."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._name(self.cluster_id)
        try:
            replicas = {str(pool): int(count) for pool, count in self.replicas.items()}
        except (TypeError, ValueError) as error:
            raise SpecError("replicas", self.replicas, "give whole numbers by pool id") from error
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        operation = run_sync(lambda: self.cluster_hook.resize_cluster(name.full, replicas))
        trigger = VertexRayClusterResizeTrigger(
            cluster_name=name.full,
            replicas=replicas,
            operation=operation,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.resize_timeout),
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the resized cluster, or raise why it is not."""
        return result_of(event)
