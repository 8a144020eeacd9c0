"""What the operators on logs and metrics share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.monitoring.time_window import check_window
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.hooks.monitoring import VertexRayMonitoringAsyncHook

LINKS_SECONDS = 5.0
"""Seconds for the dashboard's address; without it a link is missing, and nothing else."""


class MonitoringOperator(VertexRayBaseOperator):
    """Base of the operators on what a cluster has logged and measured.

    :param cluster_id: Id or full resource name. (templated)
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
    def monitoring_hook(self) -> VertexRayMonitoringAsyncHook:
        """Logs and metrics, through this task's connection."""
        from airflow_provider_vertex_ray.hooks.monitoring import VertexRayMonitoringAsyncHook

        return VertexRayMonitoringAsyncHook(
            self.gcp_conn_id, self.impersonation_chain, self.project_id or None, self.location or None
        )

    async def _keep_link_facts(self, context: Context, name: ClusterName, **more: str | None) -> None:
        """Keep what the links need; the dashboard, if the cluster is there to be asked."""
        dashboard = None
        try:
            dashboard = (await asyncio.wait_for(self.cluster_hook.get_cluster(name.full), LINKS_SECONDS)).dashboard_uri
        except (VertexRayError, asyncio.TimeoutError) as error:
            self.log.info("No link to the dashboard: %s", error)
        persist_link_facts(
            context,
            project_id=name.project,
            location=name.location,
            cluster_id=name.cluster_id,
            dashboard_uri=dashboard,
            **more,
        )
