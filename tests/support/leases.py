"""Leases that somebody else writes."""

from __future__ import annotations

from collections.abc import Callable

from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.hooks.base import run_sync
from airflow_provider_vertex_ray.hooks.lease import VertexRayLeaseAsyncHook
from tests.support.clusters import LOCATION

NUMBER = "123456789012"
"""The emulator's project, as the service names it."""


def change_lease(storage: StorageEmulator, step: Callable[[Lease], Lease], cluster_id: str = "shared") -> Lease:
    """Change the lease of a cluster; gives what it is then."""

    async def change() -> Lease:
        async with VertexRayLeaseAsyncHook().store(storage.uri) as store:
            return await store.change(ClusterName(NUMBER, LOCATION, cluster_id), step)

    return run_sync(change)
