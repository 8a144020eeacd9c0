"""Which links a task has, by what it is about."""

from __future__ import annotations

from airflow_provider_vertex_ray.links.cluster import (
    VertexRayClusterLink,
    VertexRayClusterListLink,
    VertexRayDashboardLink,
    VertexRayLogsLink,
)
from airflow_provider_vertex_ray.links.monitoring import VertexRayMetricsLink

CLUSTER_LINKS = (VertexRayClusterLink(), VertexRayDashboardLink(), VertexRayLogsLink(), VertexRayMetricsLink())
"""Of a task about a cluster."""

JOB_LINKS = (VertexRayDashboardLink(), VertexRayLogsLink(), VertexRayMetricsLink(), VertexRayClusterLink())
"""Of a task about jobs of a cluster: the dashboard first."""

NAMED_LINKS = (VertexRayClusterLink(), VertexRayLogsLink(), VertexRayMetricsLink())
"""Of a task that knows a cluster by its name alone."""

GONE_LINKS = (VertexRayClusterListLink(), VertexRayLogsLink(), VertexRayMetricsLink())
"""Of a task after which the cluster is gone, but not what was logged and measured."""
