"""Hooks for models and endpoints on Vertex AI."""

from __future__ import annotations

from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRaySyncHook, sync_of
from airflow_provider_vertex_ray.hooks.calls.model import ModelCalls


class VertexRayModelAsyncHook(ModelCalls, VertexRayBaseAsyncHook):
    """Manage models and endpoints from asynchronous code.

    ``model`` and ``endpoint`` are ids, or full resource names (``projects/…/locations/…/endpoints/…``).
    """


class VertexRayModelHook(VertexRaySyncHook[VertexRayModelAsyncHook]):
    """Manage models and endpoints from synchronous code: the calls of ``VertexRayModelAsyncHook``."""

    async_hook_class = VertexRayModelAsyncHook

    upload_model = sync_of(VertexRayModelAsyncHook.upload_model)
    get_model = sync_of(VertexRayModelAsyncHook.get_model)
    find_models = sync_of(VertexRayModelAsyncHook.find_models)
    delete_model = sync_of(VertexRayModelAsyncHook.delete_model)
    ensure_endpoint = sync_of(VertexRayModelAsyncHook.ensure_endpoint)
    get_endpoint = sync_of(VertexRayModelAsyncHook.get_endpoint)
    deploy_model = sync_of(VertexRayModelAsyncHook.deploy_model)
    undeploy = sync_of(VertexRayModelAsyncHook.undeploy)
    finished = sync_of(VertexRayModelAsyncHook.finished)
    get_operation = sync_of(VertexRayModelAsyncHook.get_operation)
    cancel_operation = sync_of(VertexRayModelAsyncHook.cancel_operation)
    predict = sync_of(VertexRayModelAsyncHook.predict)
    artifact_files = sync_of(VertexRayModelAsyncHook.artifact_files)
