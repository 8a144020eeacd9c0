"""Hooks for the preflight checks and the training quotas."""

from __future__ import annotations

from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRaySyncHook, sync_of
from airflow_provider_vertex_ray.hooks.calls.preflight import PreflightCalls


class VertexRayPreflightAsyncHook(PreflightCalls, VertexRayBaseAsyncHook):
    """Check the requirements and quotas of a cluster from asynchronous code. All calls are read-only."""


class VertexRayPreflightHook(VertexRaySyncHook[VertexRayPreflightAsyncHook]):
    """Check requirements and quotas from synchronous code: the calls of ``VertexRayPreflightAsyncHook``."""

    async_hook_class = VertexRayPreflightAsyncHook

    preflight = sync_of(VertexRayPreflightAsyncHook.preflight)
    quota = sync_of(VertexRayPreflightAsyncHook.quota)
    live_check = sync_of(VertexRayPreflightAsyncHook.live_check)
