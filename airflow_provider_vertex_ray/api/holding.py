"""Holding a cluster's lease while one works on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from airflow_provider_vertex_ray.api.clusters import ClustersApi
from airflow_provider_vertex_ray.api.leases import LeaseStore
from airflow_provider_vertex_ray.api.transport import Transport
from airflow_provider_vertex_ray.cluster_name import ClusterName, parse_cluster_name
from airflow_provider_vertex_ray.cluster_state import Cluster
from airflow_provider_vertex_ray.errors import VertexRayError

log = logging.getLogger(__name__)

SHARE_OF_TTL = 1 / 3
"""A lease is renewed after this share of its time."""


async def hold(store: LeaseStore, name: ClusterName, owner: str, ttl: float) -> None:
    """Hold the lease from now on for ``ttl`` seconds.

    :param name: As the service says it, with the project's number: the same for all holders.
    :raises ClusterClosingError: The cluster is about to be deleted.
    :raises LeaseStoreError: The store can not be reached.
    """
    await store.change(name, lambda lease: lease.acquire(owner, time.time(), ttl))


async def held_cluster(transport: Transport, store: LeaseStore, cluster: Cluster, owner: str, ttl: float) -> Cluster:
    """Hold a cluster's lease; gives the cluster as it is since: it may have been deleted before it was held.

    :raises ClusterClosingError: It is about to be deleted.
    :raises ClusterNotFoundError: It is gone.
    """
    name = parse_cluster_name(cluster.name)
    await hold(store, name, owner, ttl)
    return await ClustersApi(transport).get(name)


@contextlib.asynccontextmanager
async def heartbeat(store: LeaseStore, name: ClusterName, owner: str, ttl: float) -> AsyncIterator[None]:
    """Renew the lease as long as the block runs.

    What fails is said and tried again: the job on the cluster is itself a sign of use.
    """

    async def beat() -> None:
        while True:
            try:
                await hold(store, name, owner, ttl)
            except VertexRayError as error:
                log.warning("The lease of %s could not be renewed: %s", name.full, error)
            await asyncio.sleep(ttl * SHARE_OF_TTL)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait({beating})
