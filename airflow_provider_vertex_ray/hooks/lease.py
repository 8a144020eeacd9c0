"""Leases, through an Airflow connection."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
from airflow_provider_vertex_ray.core.sharing.lease import Holder, Lease
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRayBaseHook, run_sync


class VertexRayLeaseAsyncHook(VertexRayBaseAsyncHook):
    """Leases, for an event loop. ``cluster_id`` is an id or a full ``projects/…/persistentResources/…`` name."""

    @contextlib.asynccontextmanager
    async def store(self, lease_uri: str) -> AsyncIterator[LeaseStore]:
        """The leases below a URI.

        :raises InvalidArgumentError: The URI is malformed.
        """
        async with self.session() as (transport, _):
            yield LeaseStore(transport, lease_uri)

    async def get_lease(self, lease_uri: str, cluster_id: str) -> Lease:
        """A cluster's lease.

        :raises ClusterNotFoundError: There is no such cluster.
        :raises LeaseStoreError: The lease can not be read.
        """
        async with self.session() as (transport, project):
            # Leases go by the name that the service gives, with the project's number.
            cluster = await ClustersApi(transport).get(self.cluster_name(cluster_id, project))
            lease, _ = await LeaseStore(transport, lease_uri).read(parse_cluster_name(cluster.name))
            return lease

    async def release_lease(self, lease_uri: str, cluster_id: str, owner: str) -> None:
        """Give a hold back.

        :param owner: Who holds it.
        :raises ClusterNotFoundError: There is no such cluster.
        :raises LeaseStoreError: The lease can not be written.
        """
        async with self.session() as (transport, project):
            cluster = await ClustersApi(transport).get(self.cluster_name(cluster_id, project))
            name = parse_cluster_name(cluster.name)
            await LeaseStore(transport, lease_uri).change(name, lambda lease: lease.release(owner, time.time()))


class VertexRayLeaseHook(VertexRayBaseHook):
    """Leases, from synchronous code."""

    def _async(self) -> VertexRayLeaseAsyncHook:
        return VertexRayLeaseAsyncHook(
            self.gcp_conn_id, self.impersonation_chain, self.default_project_id, self.default_location
        )

    def holders(self, lease_uri: str, cluster_id: str) -> list[Holder]:
        """Who uses a cluster at this moment; see ``VertexRayLeaseAsyncHook.get_lease``."""
        return list(run_sync(lambda: self._async().get_lease(lease_uri, cluster_id)).live(time.time()))

    def release_lease(self, lease_uri: str, cluster_id: str, owner: str) -> None:
        """Give a hold back; see ``VertexRayLeaseAsyncHook.release_lease``."""
        run_sync(lambda: self._async().release_lease(lease_uri, cluster_id, owner))
