"""The lease hook, from synchronous and asynchronous code."""

from __future__ import annotations

import asyncio
import time

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.sharing import lease_store
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    InvalidArgumentError,
    LeaseStoreError,
    LeaseUnreadableError,
)
from airflow_provider_vertex_ray.hooks import base
from airflow_provider_vertex_ray.hooks.base import run_sync
from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
from airflow_provider_vertex_ray.hooks.lease import VertexRayLeaseAsyncHook, VertexRayLeaseHook
from tests.support.clusters import LOCATION, full_name, start

TTL = 900.0


@pytest.fixture
def cluster(fake_emulator: EmulatorProcess) -> ClusterName:
    """A cluster, by the name that the service gives: with the project's number."""
    return ClusterName(fake_emulator.project_number, LOCATION, start(fake_emulator))


@pytest.fixture
def hook(cluster: ClusterName, storage: StorageEmulator) -> VertexRayLeaseHook:
    return VertexRayLeaseHook(location=LOCATION)


def path_of(name: ClusterName) -> str:
    return f"leases/{name.project}/{name.location}/{name.cluster_id}.json"


def held(uri: str, name: ClusterName, owner: str, *, ago: float = 0.0) -> None:
    async def change() -> None:
        async with VertexRayLeaseAsyncHook().store(uri) as store:
            await store.change(name, lambda lease: lease.acquire(owner, time.time() - ago, TTL))

    run_sync(change)


def test_holders_and_release(hook: VertexRayLeaseHook, cluster: ClusterName, storage: StorageEmulator) -> None:
    assert hook.holders(storage.uri, "shared") == []
    # To look is not to write.
    assert storage.names() == []
    held(storage.uri, cluster, "etl/run-1")
    held(storage.uri, cluster, "etl/run-2")
    held(storage.uri, cluster, "etl/dead", ago=TTL + 301)
    assert [each.owner for each in hook.holders(storage.uri, "shared")] == ["etl/run-1", "etl/run-2"]
    hook.release_lease(storage.uri, "shared", "etl/run-1")
    hook.release_lease(storage.uri, "shared", "nobody")
    assert [each.owner for each in hook.holders(storage.uri, "shared")] == ["etl/run-2"]


def test_every_name_of_a_cluster_leads_to_one_lease(
    hook: VertexRayLeaseHook, cluster: ClusterName, storage: StorageEmulator
) -> None:
    """Somebody who writes the project's id and somebody who writes its number must not miss each other."""
    held(storage.uri, cluster, "etl/run-1")
    for name in ("shared", full_name("shared"), cluster.full):
        assert [each.owner for each in hook.holders(storage.uri, name)] == ["etl/run-1"]
    hook.release_lease(storage.uri, full_name("shared"), "etl/run-1")
    assert hook.holders(storage.uri, cluster.full) == []
    assert storage.names() == [path_of(cluster)]


async def test_async_hook_works_in_an_event_loop(cluster: ClusterName, storage: StorageEmulator) -> None:
    hook = VertexRayLeaseAsyncHook(location=LOCATION)
    async with hook.store(storage.uri) as store:
        await store.change(cluster, lambda lease: lease.acquire("etl/run-1", time.time(), TTL))
    assert set((await hook.get_lease(storage.uri, "shared")).holders) == {"etl/run-1"}
    await hook.release_lease(storage.uri, "shared", "etl/run-1")
    assert (await hook.get_lease(storage.uri, "shared")).live(time.time()) == ()
    # A synchronous hook in a thread that has a running loop.
    assert VertexRayLeaseHook(location=LOCATION).holders(storage.uri, "shared") == []


async def test_all_stores_share_one_session_which_is_closed(cluster: ClusterName, storage: StorageEmulator) -> None:
    seen: set[int] = set()

    async def run(number: int) -> None:
        async with VertexRayLeaseAsyncHook().store(storage.uri) as store:
            await store.change(cluster, lambda lease: lease.acquire(f"run-{number}", time.time(), TTL))
            seen.add(id(store._transport))

    async with VertexRayClusterAsyncHook(location=LOCATION).session() as (transport, _):
        await asyncio.gather(*(run(number) for number in range(10)))
        assert seen == {id(transport)}
        assert transport._sessions
    assert not transport._sessions
    assert not base._shared[asyncio.get_running_loop()]


async def test_failed_store_leaves_no_session(storage: StorageEmulator, cluster: ClusterName) -> None:
    storage.put(path_of(cluster), b"garbage")
    with pytest.raises(LeaseUnreadableError):
        await VertexRayLeaseAsyncHook(location=LOCATION).get_lease(storage.uri, "shared")
    with pytest.raises(InvalidArgumentError, match="lease_uri"):
        async with VertexRayLeaseAsyncHook().store("s3://bucket"):
            raise AssertionError("it is refused before")
    assert not base._shared[asyncio.get_running_loop()]


def test_deleted_cluster_has_no_lease(hook: VertexRayLeaseHook, storage: StorageEmulator) -> None:
    for call in (
        lambda: hook.holders(storage.uri, "nobodys"),
        lambda: hook.release_lease(storage.uri, "nobodys", "etl/run-1"),
    ):
        with pytest.raises(ClusterNotFoundError):
            call()
    assert storage.names() == []


def test_unreachable_store_is_an_error_and_not_an_empty_lease(
    cluster: ClusterName, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StorageEmulator() as gone:
        uri, host = gone.uri, gone.host
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}")
    monkeypatch.setattr(lease_store, "ATTEMPTS", 1)
    hook = VertexRayLeaseHook(location=LOCATION)
    with pytest.raises(LeaseStoreError, match="Could not reach"):
        hook.holders(uri, "shared")
    with pytest.raises(LeaseStoreError, match="Could not reach"):
        hook.release_lease(uri, "shared", "etl/run-1")


def test_token_is_that_of_the_connection(
    hook: VertexRayLeaseHook,
    cluster: ClusterName,
    storage: StorageEmulator,
    fake_emulator: EmulatorProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The storage emulator takes any token, so what is sent is looked at here."""
    sent: list[str] = []
    send = base.Transport._send

    async def noted(self: base.Transport, method: str, url: str, token: str, *more: object) -> object:
        if storage.host in url:
            sent.append(token)
        return await send(self, method, url, token, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(base.Transport, "_send", noted)
    hook.holders(storage.uri, "shared")
    assert len(sent) == 1
    # The emulator's control plane knows it as one of its own.
    monkeypatch.setattr(fake_emulator, "token", lambda: sent[0])
    assert fake_emulator.api("GET", "persistentResources/shared")[0] == 200


def test_storage_emulator_alone_gets_no_token(storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real credentials the token goes to Google only, whatever ``STORAGE_EMULATOR_HOST`` says."""
    monkeypatch.delenv("VERTEX_RAY_EMULATOR_HOST", raising=False)
    assert base.Addresses.from_environment().storage() == "https://storage.googleapis.com"
    assert not base.Addresses.from_environment().token_may_go_to(f"http://{storage.host}/storage/v1/b/x/o/y")


async def test_racing_acquisition_and_deletion_have_one_winner(cluster: ClusterName, storage: StorageEmulator) -> None:
    now = time.time()

    async def change(step: str) -> str:
        async with VertexRayLeaseAsyncHook().store(storage.uri) as store:
            await store.change(cluster, lambda lease: _step(lease, step, now))
        return step

    found = await asyncio.gather(change("run"), change("reaper"), change("rival"), return_exceptions=True)
    assert len([each for each in found if isinstance(each, str)]) == 1, found


def _step(lease: Lease, who: str, now: float) -> Lease:
    return lease.acquire(who, now, TTL) if who == "run" else lease.close(who, "idle", now, 60)
