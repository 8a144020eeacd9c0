"""Hooks for the leases of shared clusters."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.sharing.lease import Holder, Lease
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRaySyncHook, sync_of


class VertexRayLeaseAsyncHook(VertexRayBaseAsyncHook):
    """Read and release leases from asynchronous code.

    ``cluster_id`` is an id, or a full resource name (``projects/…/locations/…/persistentResources/…``).
    """

    @contextlib.asynccontextmanager
    async def store(self, lease_uri: str) -> AsyncIterator[LeaseStore]:
        """Open the lease store at a URI.

        :param lease_uri: folder in Cloud Storage with the leases (``gs://bucket/folder``).
        :raises InvalidArgumentError: the URI is malformed.
        """
        async with self.session() as (transport, _):
            yield LeaseStore(transport, lease_uri)

    async def get_lease(self, lease_uri: str, cluster_id: str | ClusterName) -> Lease:
        """Return a cluster's lease.

        :param lease_uri: folder in Cloud Storage with the leases (``gs://bucket/folder``).
        :param cluster_id: id or full resource name.
        :raises ClusterNotFoundError: the cluster does not exist.
        :raises LeaseStoreError: the lease could not be read.
        """
        async with self.session() as (transport, project):
            # Leases are stored under the name that the service returns, which contains the project number.
            cluster = await ClustersApi(transport).get(self.cluster_name(cluster_id, project))
            lease, _ = await LeaseStore(transport, lease_uri).read(cluster.resource_name)
            return lease

    async def release_lease(self, lease_uri: str, cluster_id: str | ClusterName, owner: str) -> None:
        """Release an owner's lease on a cluster.

        :param lease_uri: folder in Cloud Storage with the leases (``gs://bucket/folder``).
        :param cluster_id: id or full resource name.
        :param owner: owner of the lease.
        :raises ClusterNotFoundError: the cluster does not exist.
        :raises LeaseStoreError: the lease could not be written.
        """
        async with self.session() as (transport, project):
            cluster = await ClustersApi(transport).get(self.cluster_name(cluster_id, project))
            name = cluster.resource_name
            await LeaseStore(transport, lease_uri).change(name, lambda lease: lease.release(owner, time.time()))


class VertexRayLeaseHook(VertexRaySyncHook[VertexRayLeaseAsyncHook]):
    """Read and release leases from synchronous code: the calls of ``VertexRayLeaseAsyncHook``."""

    async_hook_class = VertexRayLeaseAsyncHook

    get_lease = sync_of(VertexRayLeaseAsyncHook.get_lease)
    release_lease = sync_of(VertexRayLeaseAsyncHook.release_lease)

    def holders(self, lease_uri: str, cluster_id: str | ClusterName) -> list[Holder]:
        """Return the current holders of a cluster; the parameters are those of ``get_lease``."""
        return list(self.get_lease(lease_uri, cluster_id).live(time.time()))
