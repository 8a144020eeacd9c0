"""Sets of links, by the subject of a task."""

from __future__ import annotations

from airflow_provider_vertex_ray.links.cluster import (
    VertexRayClusterLink,
    VertexRayClusterListLink,
    VertexRayDashboardLink,
    VertexRayLogsLink,
    VertexRayShellLink,
)
from airflow_provider_vertex_ray.links.monitoring import VertexRayMetricsLink
from airflow_provider_vertex_ray.links.page import VertexRayPageLink
from airflow_provider_vertex_ray.links.page_address import HAS_PAGE

_PAGE = (VertexRayPageLink(),) if HAS_PAGE else ()

CLUSTER_LINKS = (
    *_PAGE,
    VertexRayClusterLink(),
    VertexRayDashboardLink(),
    VertexRayLogsLink(),
    VertexRayMetricsLink(),
)
"""Links of tasks on a cluster."""

WHOLE_CLUSTER_LINKS = (*CLUSTER_LINKS, VertexRayShellLink())
"""Links of tasks that create or read a cluster as a whole."""

JOB_LINKS = (
    *_PAGE,
    VertexRayDashboardLink(),
    VertexRayLogsLink(),
    VertexRayMetricsLink(),
    VertexRayClusterLink(),
)
"""Links of tasks on jobs: the page in Airflow first, then the dashboard."""

NAMED_LINKS = (*_PAGE, VertexRayClusterLink(), VertexRayLogsLink(), VertexRayMetricsLink())
"""Links of tasks that know a cluster only by its name."""

GONE_LINKS = (VertexRayClusterListLink(), VertexRayLogsLink(), VertexRayMetricsLink())
"""Links of tasks that delete a cluster, whose logs and metrics outlive it."""
