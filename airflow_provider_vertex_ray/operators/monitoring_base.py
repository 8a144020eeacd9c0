"""Base class of the operators on logs and metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.core.monitoring.time_window import check_window
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.hooks.calls.monitoring import MonitoringCalls

LINKS_SECONDS = 5.0
"""Seconds to wait for the address of the dashboard; without it, only its link is missing."""


class MonitoringOperator(VertexRayBaseOperator):
    """Base class of the operators on the logs and metrics of a cluster.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param start: start of the time range: an ISO 8601 time, a datetime, or unix seconds. (templated)
    :param end: end of the time range; default: now. (templated)
    :param window: length of the time range before ``end`` in seconds, instead of ``start``.
    """

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        start: Any = None,
        end: Any = None,
        window: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        check_window(start, end, window)
        self.cluster_id = cluster_id
        self.start = start
        self.end = end
        self.window = window

    @property
    def monitoring_hook(self) -> MonitoringCalls:
        """Hook for logs and metrics, with the connection of this task."""
        from airflow_provider_vertex_ray.hooks.calls.monitoring import MonitoringCalls

        return MonitoringCalls(
            self.gcp_conn_id, self.impersonation_chain, self.project_id or None, self.location or None
        )

    async def _keep_link_facts(self, context: Context, name: ClusterName, **more: str | None) -> None:
        """Store the facts for the links, with the dashboard's address if the cluster still exists."""
        dashboard = None
        try:
            dashboard = (await within(LINKS_SECONDS, self.cluster_hook.get_cluster(name))).dashboard_uri
        except (VertexRayError, asyncio.TimeoutError) as error:
            self.log.info("The task has no link to the dashboard: %s", error)
        persist_link_facts(
            context,
            project_id=name.project,
            location=name.location,
            cluster_id=name.cluster_id,
            dashboard_uri=dashboard,
            **more,
        )
