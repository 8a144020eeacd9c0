"""Hooks for the leases of shared clusters."""

from __future__ import annotations

import time

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.sharing.lease import Holder
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRaySyncHook, sync_of
from airflow_provider_vertex_ray.hooks.calls.lease import LeaseCalls


class VertexRayLeaseAsyncHook(LeaseCalls, VertexRayBaseAsyncHook):
    """Read and release leases from asynchronous code.

    ``cluster_id`` is an id, or a full resource name (``projects/…/locations/…/persistentResources/…``).
    """


class VertexRayLeaseHook(VertexRaySyncHook[VertexRayLeaseAsyncHook]):
    """Read and release leases from synchronous code: the calls of ``VertexRayLeaseAsyncHook``."""

    async_hook_class = VertexRayLeaseAsyncHook

    get_lease = sync_of(VertexRayLeaseAsyncHook.get_lease)
    release_lease = sync_of(VertexRayLeaseAsyncHook.release_lease)
    release_hold = sync_of(VertexRayLeaseAsyncHook.release_hold)

    def holders(self, lease_uri: str, cluster_id: str | ClusterName) -> list[Holder]:
        """Return the current holders of a cluster; the parameters are those of ``get_lease``."""
        return list(self.get_lease(lease_uri, cluster_id).live(time.time()))
