"""Hooks for Ray jobs on Vertex AI."""

from __future__ import annotations

from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRaySyncHook, sync_of
from airflow_provider_vertex_ray.hooks.calls.job import JobCalls


class VertexRayJobAsyncHook(JobCalls, VertexRayBaseAsyncHook):
    """Manage Ray jobs from asynchronous code.

    ``cluster_id`` is an id, or a full resource name (``projects/…/locations/…/persistentResources/…``).
    """


class VertexRayJobHook(VertexRaySyncHook[VertexRayJobAsyncHook]):
    """Manage Ray jobs from synchronous code: the calls of ``VertexRayJobAsyncHook``."""

    async_hook_class = VertexRayJobAsyncHook

    submit_job = sync_of(VertexRayJobAsyncHook.submit_job)
    upload_working_dir = sync_of(VertexRayJobAsyncHook.upload_working_dir)
    prepare_environment = sync_of(VertexRayJobAsyncHook.prepare_environment)
    get_job = sync_of(VertexRayJobAsyncHook.get_job)
    list_jobs = sync_of(VertexRayJobAsyncHook.list_jobs)
    stop_job = sync_of(VertexRayJobAsyncHook.stop_job)
    delete_job = sync_of(VertexRayJobAsyncHook.delete_job)
    get_job_logs = sync_of(VertexRayJobAsyncHook.get_job_logs)
