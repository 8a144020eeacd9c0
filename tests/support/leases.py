"""Leases that somebody else writes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.sharing.guarded_delete import new_closing
from airflow_provider_vertex_ray.core.sharing.lease import Closing, Holder, HolderId, Lease
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.core.threads import run_sync
from airflow_provider_vertex_ray.hooks.lease import VertexRayLeaseAsyncHook
from tests.support.clusters import LOCATION

T = TypeVar("T")

NUMBER = "123456789012"
"""The emulator's project, as the service names it."""


def held_by(*owners: str, now: float, ttl: float = 60.0) -> Lease:
    """A lease with these holders."""
    return Lease({HolderId(owner).key: Holder(owner, now, now + ttl) for owner in owners})


def with_lease(
    storage: StorageEmulator, act: Callable[[LeaseStore, ClusterName], Awaitable[T]], cluster_id: str = "shared"
) -> T:
    """Do something with the lease of a cluster."""

    async def acting() -> T:
        async with VertexRayLeaseAsyncHook().store(storage.uri) as store:
            return await act(store, ClusterName(NUMBER, LOCATION, cluster_id))

    return run_sync(acting)


def hold(
    storage: StorageEmulator, owner: str, cluster_id: str = "shared", *, ttl: float = 60.0, scope: str = ""
) -> None:
    """Acquire a hold."""
    with_lease(storage, lambda store, name: store.acquire(name, HolderId(owner, scope), ttl), cluster_id)


def release(storage: StorageEmulator, owner: str, cluster_id: str = "shared") -> None:
    """Release what an owner holds."""
    with_lease(storage, lambda store, name: store.release_all(name, owner), cluster_id)


def hold_until(storage: StorageEmulator, owner: str, expires: float, cluster_id: str = "shared") -> None:
    """Write a hold that expires at this time."""

    async def act(store: LeaseStore, name: ClusterName) -> None:
        path = f"{name.project}/{name.location}/{name.cluster_id}/holders/{HolderId(owner).key}.json"
        held = Holder(owner, expires - 60, expires).to_json()
        await store._objects.update(path, lambda content: None if content == held else held)

    with_lease(storage, act, cluster_id)


def close(storage: StorageEmulator, by: str, cluster_id: str = "shared", *, seconds: float = 60.0) -> Closing:
    """Close the lease."""
    mark = new_closing(by, "idle")
    with_lease(storage, lambda store, name: store.close(name, mark, seconds), cluster_id)
    return mark


def lease_of(storage: StorageEmulator, cluster_id: str = "shared") -> Lease:
    """Read the lease of a cluster."""
    return with_lease(storage, lambda store, name: store.read(name), cluster_id)


def owners_of(storage: StorageEmulator, cluster_id: str = "shared") -> list[str]:
    """The owners who hold a cluster now."""
    return sorted({each.owner for each in lease_of(storage, cluster_id).live(time.time())})
