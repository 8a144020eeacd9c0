"""Hooks for a cluster's logs and metrics in Cloud Logging and Cloud Monitoring."""

from __future__ import annotations

from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRaySyncHook, sync_of
from airflow_provider_vertex_ray.hooks.calls.monitoring import MonitoringCalls


class VertexRayMonitoringAsyncHook(MonitoringCalls, VertexRayBaseAsyncHook):
    """Read logs and metrics from asynchronous code.

    ``cluster_id`` is an id, or a full resource name (``projects/…/locations/…/persistentResources/…``). The cluster may
    be deleted: its logs and metrics remain for the project's retention period.
    """


class VertexRayMonitoringHook(VertexRaySyncHook[VertexRayMonitoringAsyncHook]):
    """Read logs and metrics from synchronous code: the calls of ``VertexRayMonitoringAsyncHook``."""

    async_hook_class = VertexRayMonitoringAsyncHook

    logs = sync_of(VertexRayMonitoringAsyncHook.logs)
    last_lines = sync_of(VertexRayMonitoringAsyncHook.last_lines)
    query = sync_of(VertexRayMonitoringAsyncHook.query)
    query_range = sync_of(VertexRayMonitoringAsyncHook.query_range)
    utilisation = sync_of(VertexRayMonitoringAsyncHook.utilisation)
