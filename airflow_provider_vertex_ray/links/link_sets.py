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

CLUSTER_LINKS = (VertexRayClusterLink(), VertexRayDashboardLink(), VertexRayLogsLink(), VertexRayMetricsLink())
"""Links of tasks on a cluster."""

WHOLE_CLUSTER_LINKS = (*CLUSTER_LINKS, VertexRayShellLink())
"""Links of tasks that create or read a cluster as a whole."""

JOB_LINKS = (VertexRayDashboardLink(), VertexRayLogsLink(), VertexRayMetricsLink(), VertexRayClusterLink())
"""Links of tasks on jobs: the dashboard first."""

NAMED_LINKS = (VertexRayClusterLink(), VertexRayLogsLink(), VertexRayMetricsLink())
"""Links of tasks that know a cluster only by its name."""

GONE_LINKS = (VertexRayClusterListLink(), VertexRayLogsLink(), VertexRayMetricsLink())
"""Links of tasks that delete a cluster, whose logs and metrics outlive it."""
