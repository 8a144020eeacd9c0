"""Hold the lease of a cluster while it is used: acquire it before a job, renew it during the job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing.lease import HolderId
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import VertexRayError

log = logging.getLogger(__name__)

SHARE_OF_TTL = 1 / 3
"""Share of its duration after which a hold is renewed."""


async def held_cluster(transport: Transport, store: LeaseStore, cluster: Cluster, who: HolderId, ttl: float) -> Cluster:
    """Acquire a hold on a cluster and return the cluster, re-read afterwards.

    :param transport: the connection
    :param store: the lease store
    :param cluster: the cluster
    :param who: the hold
    :param ttl: seconds for which the hold lasts at least
    :raises ClusterClosingError: the cluster is about to be deleted or scaled down
    :raises ClusterNotFoundError: the cluster was deleted before the hold was acquired
    :raises LeaseStoreError: the lease could not be read or written
    """
    name = cluster.resource_name
    await store.acquire(name, who, ttl)
    return await ClustersApi(transport).get(name)


@contextlib.asynccontextmanager
async def heartbeat(store: LeaseStore, name: ClusterName, who: HolderId, ttl: float) -> AsyncIterator[None]:
    """Renew a hold periodically while the block runs, until somebody releases it.

    A failure is logged and retried, because the job on the cluster also keeps the cluster in use.

    :param store: the lease store
    :param name: the cluster
    :param who: the hold
    :param ttl: seconds for which the hold lasts at least after each renewal
    """

    async def beat() -> None:
        while True:
            await asyncio.sleep(ttl * SHARE_OF_TTL)
            try:
                if not await store.renew(name, who, ttl):
                    log.info("The lease of %s on cluster %s was released; its job keeps it in use", who.owner, name)
                    return
            except VertexRayError as error:
                log.warning(
                    "Could not renew the lease of cluster %s; retrying in %.0f s: %s", name, ttl * SHARE_OF_TTL, error
                )

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait({beating})
