"""Hooks for Ray clusters on Vertex AI."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRaySyncHook, sync_of
from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls


class VertexRayClusterAsyncHook(ClusterCalls, VertexRayBaseAsyncHook):
    """Manage Ray clusters from asynchronous code.

    ``cluster_id`` is an id, or a full resource name (``projects/…/locations/…/persistentResources/…``).
    """


class VertexRayClusterHook(VertexRaySyncHook[VertexRayClusterAsyncHook]):
    """Manage Ray clusters from synchronous code: the calls of ``VertexRayClusterAsyncHook``."""

    async_hook_class = VertexRayClusterAsyncHook

    create_cluster = sync_of(VertexRayClusterAsyncHook.create_cluster)
    get_cluster = sync_of(VertexRayClusterAsyncHook.get_cluster)
    list_clusters = sync_of(VertexRayClusterAsyncHook.list_clusters)
    resize_cluster = sync_of(VertexRayClusterAsyncHook.resize_cluster)
    replicas_for = sync_of(VertexRayClusterAsyncHook.replicas_for)
    delete_cluster = sync_of(VertexRayClusterAsyncHook.delete_cluster)
    get_operation = sync_of(VertexRayClusterAsyncHook.get_operation)
    dashboard_problem = sync_of(VertexRayClusterAsyncHook.dashboard_problem)
    live_nodes = sync_of(VertexRayClusterAsyncHook.live_nodes)

    @contextlib.contextmanager
    def connect(
        self, cluster_id: str | ClusterName, *, namespace: str | None = None, runtime_env: dict[str, Any] | None = None
    ) -> Iterator[Any]:
        """Connect this process to a cluster through the Ray Client, and yield the module ``ray``.

        This process must have the Ray version and the minor Python version of the cluster. It is disconnected at the
        end of the ``with`` block, also after an exception.

        :param cluster_id: id or full resource name.
        :param namespace: Ray namespace; default: an anonymous one.
        :param runtime_env: Ray runtime environment of the tasks and actors; Ray itself uploads local folders.
        :raises RayClientVersionError: the versions differ; the message says what to install.
        :raises RayClientConnectedError: this process is already connected to Ray.
        :raises DashboardNotReadyError: the cluster is neither RUNNING nor UPDATING.
        :raises ServiceUnavailableError: the cluster cannot be reached from this process.
        """
        from airflow_provider_vertex_ray.hooks.ray_client import check_not_connected, connected

        check_not_connected()
        options = {"namespace": namespace, "runtime_env": runtime_env}
        given = {key: value for key, value in options.items() if value is not None}
        with connected(self, self.async_hook(), self.get_cluster(cluster_id), given) as ray:
            yield ray
