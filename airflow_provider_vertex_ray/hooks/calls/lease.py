"""Calls for the leases of shared clusters."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing.generations import SHARED_LABEL, newest_first, shared_name_of
from airflow_provider_vertex_ray.core.sharing.lease import HolderId, Lease
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import ClusterNotFoundError
from airflow_provider_vertex_ray.hooks.calls.base import BaseCalls


class LeaseCalls(BaseCalls):
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
            return await LeaseStore(transport, lease_uri).read(cluster.resource_name)

    async def release_lease(self, lease_uri: str, cluster_id: str | ClusterName, owner: str) -> None:
        """Release everything that an owner holds on a cluster.

        :param lease_uri: folder in Cloud Storage with the leases (``gs://bucket/folder``).
        :param cluster_id: id or full resource name.
        :param owner: owner of the lease.
        :raises ClusterNotFoundError: the cluster does not exist.
        :raises LeaseStoreError: the lease could not be written.
        """
        async with self.session() as (transport, project):
            cluster = await ClustersApi(transport).get(self.cluster_name(cluster_id, project))
            await LeaseStore(transport, lease_uri).release_all(cluster.resource_name, owner)

    async def release_hold(
        self, lease_uri: str, cluster_id: str | ClusterName, holder: HolderId, *, run: str | None = None
    ) -> None:
        """Release a hold on all generations of a shared cluster.

        :param lease_uri: folder in Cloud Storage with the leases (``gs://bucket/folder``).
        :param cluster_id: id or full resource name of one of the generations, which may have been deleted.
        :param holder: the hold.
        :param run: DAG run (``<dag_id>/<run_id>``) whose other holds on this cluster under the same owner's name are
            released as well; None for none.
        :raises ClusterNotFoundError: the cluster does not exist, nor does another generation.
        :raises LeaseStoreError: the lease could not be written.
        """
        async with self.session() as (transport, project):
            store = LeaseStore(transport, lease_uri)
            name = self.cluster_name(cluster_id, project)
            for cluster in await _generations(transport, name):
                if run is not None and cluster.cluster_id == name.cluster_id:
                    await store.release_all(cluster.resource_name, holder.owner, run)
                else:
                    await store.release(cluster.resource_name, holder)


async def _generations(transport: Transport, name: ClusterName) -> list[Cluster]:
    """Return a cluster and, if it is shared, all its generations.

    :raises ClusterNotFoundError: none of them exists.
    """
    api = ClustersApi(transport)
    missing: ClusterNotFoundError | None = None
    try:
        cluster = await api.get(name)
        shared = cluster.labels.get(SHARED_LABEL)
        if not shared:
            return [cluster]
    except ClusterNotFoundError as error:
        missing, shared = error, shared_name_of(name.cluster_id)
    found = newest_first(await api.list_all(name.project, name.location), shared) if shared else []
    if not found and missing:
        raise missing
    return [each for _, each in found]
