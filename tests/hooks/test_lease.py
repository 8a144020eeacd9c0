"""The lease hook, from synchronous and asynchronous code."""

from __future__ import annotations

import asyncio
import time

import pytest
from emulator_support.process import EmulatorProcess, until
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.sharing import lease_objects
from airflow_provider_vertex_ray.core.sharing.generations import GENERATION_LABEL, SHARED_LABEL
from airflow_provider_vertex_ray.core.sharing.guarded_delete import new_closing
from airflow_provider_vertex_ray.core.sharing.lease import HolderId
from airflow_provider_vertex_ray.core.threads import run_sync
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    ClusterNotFoundError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseStoreError,
    LeaseUnreadableError,
)
from airflow_provider_vertex_ray.hooks.calls import base
from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
from airflow_provider_vertex_ray.hooks.lease import VertexRayLeaseAsyncHook, VertexRayLeaseHook
from tests.support.clusters import BODY, LOCATION, cluster_ids, full_name, start
from tests.support.leases import hold_until

TTL = 900.0


@pytest.fixture
def cluster(fake_emulator: EmulatorProcess) -> ClusterName:
    """A cluster, by the name that the service gives: with the project's number."""
    return ClusterName(fake_emulator.project_number, LOCATION, start(fake_emulator))


@pytest.fixture
def hook(cluster: ClusterName, storage: StorageEmulator) -> VertexRayLeaseHook:
    return VertexRayLeaseHook(location=LOCATION)


def path_of(name: ClusterName, owner: str) -> str:
    return f"leases/{name.project}/{name.location}/{name.cluster_id}/holders/{HolderId(owner).key}.json"


def held(uri: str, name: ClusterName, owner: str, scope: str = "") -> None:
    async def acquire() -> None:
        async with VertexRayLeaseAsyncHook().store(uri) as store:
            await store.acquire(name, HolderId(owner, scope), TTL)

    run_sync(acquire)


def test_holders_and_release(hook: VertexRayLeaseHook, cluster: ClusterName, storage: StorageEmulator) -> None:
    assert hook.holders(storage.uri, "shared") == []
    # To look is not to write.
    assert storage.names() == []
    held(storage.uri, cluster, "etl/run-1")
    held(storage.uri, cluster, "etl/run-1", "a task group")
    held(storage.uri, cluster, "etl/run-2")
    hold_until(storage, "etl/dead", time.time() - 301)
    assert sorted(each.owner for each in hook.holders(storage.uri, "shared")) == ["etl/run-1", "etl/run-1", "etl/run-2"]
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
    assert storage.names() == [path_of(cluster, "etl/run-1")]


async def test_async_hook_works_in_an_event_loop(cluster: ClusterName, storage: StorageEmulator) -> None:
    hook = VertexRayLeaseAsyncHook(location=LOCATION)
    async with hook.store(storage.uri) as store:
        await store.acquire(cluster, HolderId("etl/run-1"), TTL)
    (found,) = (await hook.get_lease(storage.uri, "shared")).holders.values()
    assert found.owner == "etl/run-1"
    await hook.release_lease(storage.uri, "shared", "etl/run-1")
    assert (await hook.get_lease(storage.uri, "shared")).live(time.time()) == ()
    # A synchronous hook in a thread that has a running loop.
    assert VertexRayLeaseHook(location=LOCATION).holders(storage.uri, "shared") == []


async def test_all_stores_share_one_session_which_is_closed(cluster: ClusterName, storage: StorageEmulator) -> None:
    seen: set[int] = set()

    async def run(number: int) -> None:
        async with VertexRayLeaseAsyncHook().store(storage.uri) as store:
            await store.acquire(cluster, HolderId(f"run-{number}"), TTL)
            seen.add(id(store._objects._transport))

    async with VertexRayClusterAsyncHook(location=LOCATION).session() as (transport, _):
        await asyncio.gather(*(run(number) for number in range(10)))
        assert seen == {id(transport)}
        assert transport._connections._sessions
    assert not transport._connections._sessions
    assert not base._shared[asyncio.get_running_loop()]


async def test_failed_store_leaves_no_session(storage: StorageEmulator, cluster: ClusterName) -> None:
    storage.put(path_of(cluster, "etl/run"), b"garbage")
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
    monkeypatch.setattr(lease_objects, "ATTEMPTS", 1)
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


def state_of(emulator: EmulatorProcess, cluster_id: str) -> str:
    return str(emulator.api("GET", f"persistentResources/{cluster_id}")[1]["state"])


async def test_racing_acquisition_and_deletion_have_at_most_one_winner(
    cluster: ClusterName, storage: StorageEmulator
) -> None:
    async def act(who: str) -> str:
        async with VertexRayLeaseAsyncHook().store(storage.uri) as store:
            if who == "run":
                await store.acquire(cluster, HolderId(who), TTL)
            else:
                await store.close(cluster, new_closing(who, "idle"), 60)
        return who

    found = await asyncio.gather(act("run"), act("reaper"), act("rival"), return_exceptions=True)
    assert all(isinstance(each, (str, ClusterClosingError, LeaseHeldError)) for each in found), found
    assert len([each for each in found if isinstance(each, str)]) <= 1, found


def test_a_hold_is_released_on_all_generations_and_nobody_elses(
    hook: VertexRayLeaseHook, fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    generations = []
    for number in (1, 2):
        labels = {SHARED_LABEL: "etl", GENERATION_LABEL: str(number)}
        fake_emulator.create(f"etl-g{number}", {**BODY, "labels": labels})
        until(lambda number=number: state_of(fake_emulator, f"etl-g{number}") == "RUNNING")  # type: ignore[misc]
        generations.append(ClusterName(fake_emulator.project_number, LOCATION, f"etl-g{number}"))
    for name in generations:
        for scope in ("one", "two"):
            held(storage.uri, name, "etl/run-1", scope)

    def left() -> list[tuple[str, str]]:
        return sorted((name.cluster_id, each.scope) for name in generations for each in hook.holders(storage.uri, name))

    assert len(left()) == 4
    asked = VertexRayLeaseAsyncHook(location=LOCATION)
    run_sync(lambda: asked.release_hold(storage.uri, "etl-g1", HolderId("etl/run-1", "one")))
    assert left() == [("etl-g1", "two"), ("etl-g2", "two")]
    # The cluster that the tasks began on may be gone; the next generation is not.
    fake_emulator.api("DELETE", "persistentResources/etl-g1")
    until(lambda: "etl-g1" not in cluster_ids(fake_emulator))
    run_sync(lambda: asked.release_hold(storage.uri, "etl-g1", HolderId("etl/run-1", "two")))
    assert hook.holders(storage.uri, "etl-g2") == []
