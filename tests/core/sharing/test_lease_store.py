"""Leases in a real emulator of Cloud Storage, which honours generation preconditions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing import lease_objects
from airflow_provider_vertex_ray.core.sharing.guarded_delete import new_closing
from airflow_provider_vertex_ray.core.sharing.lease import KEPT_USE, Holder, HolderId, Lease
from airflow_provider_vertex_ray.core.sharing.lease_objects import parse_lease_uri
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseStoreError,
    LeaseStoreUnavailableError,
    LeaseUnreadableError,
)
from tests.support.server import QUICK, FakeTokens, serving

NAME = ClusterName("1234", "us-central1", "etl-g1")
FOLDER = "leases/1234/us-central1/etl-g1"
RUN = HolderId("dag/run")
PATH = f"{FOLDER}/holders/{RUN.key}.json"
TTL = 900.0


def told(message: str) -> dict[str, object]:
    """An error as the JSON API says it."""
    return {"error": {"message": message}}


def store_at(host: str, uri: str, *, timeout: float = 20.0) -> LeaseStore:
    addresses = Addresses("127.0.0.1:1", storage_emulator=host)
    return LeaseStore(Transport(FakeTokens(), addresses, retry=QUICK, timeout=timeout), uri)


@asynccontextmanager
async def opened(host: str, uri: str) -> AsyncIterator[LeaseStore]:
    store = store_at(host, uri)
    try:
        yield store
    finally:
        await store._objects._transport.close()


@pytest.fixture
async def store(storage: StorageEmulator) -> AsyncIterator[LeaseStore]:
    async with opened(storage.host, storage.uri) as found:
        yield found


async def test_lease_is_written_read_and_deleted(store: LeaseStore, storage: StorageEmulator) -> None:
    assert await store.read(NAME) == Lease()
    await store.acquire(NAME, RUN, TTL)
    (held,) = (await store.read(NAME)).live(time.time())
    assert (held.owner, held.expires > time.time() + TTL) == ("dag/run", True)
    assert storage.names() == [PATH]
    assert Holder.from_json(json.loads(storage.read(PATH))) == held, "the content says the same, for people"
    await store.forget(NAME)
    assert await store.read(NAME) == Lease()
    await store.forget(NAME)
    assert storage.names() == []


async def test_release_keeps_the_time_of_the_last_use(store: LeaseStore, storage: StorageEmulator) -> None:
    await store.acquire(NAME, RUN, TTL)
    await store.release(NAME, RUN)
    lease = await store.read(NAME)
    assert lease.live(time.time()) == ()
    assert time.time() - (lease.used_until(time.time()) or 0) < 60
    # Whoever renews what was released does not hold it again; whoever acquires it does.
    assert not await store.renew(NAME, RUN, TTL)
    assert (await store.read(NAME)).live(time.time()) == ()
    await store.acquire(NAME, RUN, TTL)
    assert await store.renew(NAME, RUN, TTL)
    await store.release_all(NAME, "dag/another")
    assert (await store.read(NAME)).live(time.time())
    await store.release_all(NAME, "dag/run")
    assert (await store.read(NAME)).live(time.time()) == ()


async def test_a_hold_that_lasts_is_not_written_again(storage: StorageEmulator) -> None:
    async def counted(request: web.Request) -> web.StreamResponse:
        methods.append(request.method)
        return await passed_on(request, storage)

    methods: list[str] = []
    async with serving(counted) as proxy, opened(proxy.host, storage.uri) as store:
        for _ in range(20):
            await store.acquire(NAME, RUN, TTL)
            await store.renew(NAME, RUN, TTL)
    assert methods.count("POST") == 1


async def test_many_holders_hold_at_once(storage: StorageEmulator) -> None:
    # Each with a connection of its own, as in processes of their own.
    async def some(number: int) -> None:
        async with opened(storage.host, storage.uri) as own:
            await asyncio.gather(*(own.acquire(NAME, HolderId(f"run-{number}-{place}"), TTL) for place in range(30)))

    await asyncio.gather(*(some(number) for number in range(6)))
    async with opened(storage.host, storage.uri) as own:
        lease = await own.read(NAME)
    assert {each.owner for each in lease.live(time.time())} == {f"run-{n}-{p}" for n in range(6) for p in range(30)}


async def test_concurrent_hold_and_close_never_both_succeed(storage: StorageEmulator) -> None:
    for number in range(20):
        name = ClusterName("1234", "us-central1", f"race-g{number + 1}")
        async with opened(storage.host, storage.uri) as one, opened(storage.host, storage.uri) as other:
            outcomes = await asyncio.gather(
                one.acquire(name, RUN, TTL),
                other.close(name, new_closing("reaper", "idle"), 60),
                return_exceptions=True,
            )
            lease = await one.read(name)
        acquired, closed = (outcome is None for outcome in outcomes)
        assert not (acquired and closed)
        assert all(
            outcome is None or isinstance(outcome, (ClusterClosingError, LeaseHeldError)) for outcome in outcomes
        )
        assert (lease.closing is not None) is closed


async def test_one_closes_at_a_time(store: LeaseStore) -> None:
    mark = new_closing("one", "idle")
    await store.close(NAME, mark, 60)
    with pytest.raises(ClusterClosingError, match=r"one is already about to change the cluster \(idle\)"):
        await store.close(NAME, new_closing("one", "idle"), 60)
    await store.close(NAME, mark, 60)
    await store.reopen(NAME, "somebody else")
    with pytest.raises(ClusterClosingError, match=r"one is about to change it \(idle\)"):
        await store.acquire(NAME, RUN, TTL)
    await store.reopen(NAME, mark.token)
    await store.acquire(NAME, RUN, TTL)
    with pytest.raises(LeaseHeldError):
        await store.close(NAME, mark, 60)
    assert (await store.read(NAME)).closing is None
    await store.close(NAME, mark, 60, ignoring="dag/run")
    await store.reopen(NAME, mark.token)
    await store.close(NAME, mark, 60, force=True)


async def test_a_closing_is_renewed_when_most_of_it_has_passed(store: LeaseStore) -> None:
    mark = new_closing("one", "idle")
    await store.close(NAME, mark, 60)
    first = (await store.read(NAME)).closing
    await store.close(NAME, mark, 60)
    assert (await store.read(NAME)).closing == first
    await store.close(NAME, mark, 600)
    again = (await store.read(NAME)).closing
    assert first is not None
    assert again is not None
    assert (again.since, again.until > first.until + 500) == (first.since, True)


async def test_only_the_last_writer_takes_a_hold_back(store: LeaseStore, storage: StorageEmulator) -> None:
    await store.acquire(NAME, RUN, TTL, writer="try 1")
    await store.acquire(NAME, RUN, TTL, writer="try 2")
    await store.take_back(NAME, RUN, "try 1")
    assert (await store.read(NAME)).live(time.time())
    await store.take_back(NAME, RUN, "try 2")
    assert storage.names() == []


async def test_old_holds_are_tidied_away(store: LeaseStore, storage: StorageEmulator) -> None:
    for owner, ago in (("old", KEPT_USE + 2000), ("last", KEPT_USE + 1000)):
        held = json.dumps(Holder(owner, 0.0, time.time() - ago).to_json())
        storage.put(f"{FOLDER}/holders/{HolderId(owner).key}.json", held.encode(), {"lease": held})
    await store.acquire(NAME, RUN, TTL)
    await store.tidy(NAME)
    assert {each.owner for each in (await store.read(NAME)).holders.values()} == {"dag/run"}


async def test_a_store_that_works_is_left_as_it_was(store: LeaseStore, storage: StorageEmulator) -> None:
    await store.check()
    assert storage.names() == []


async def passed_on(request: web.Request, storage: StorageEmulator) -> web.Response:
    """What the emulator says to a proxy's request."""
    async with ClientSession(auto_decompress=False) as client:
        url = f"http://{storage.host}{request.raw_path}"
        kind = {"Content-Type": request.headers.get("Content-Type", "")}
        async with client.request(request.method, url, data=await request.read(), headers=kind) as answer:
            headers = {key: value for key, value in answer.headers.items() if key.lower().startswith("x-goog")}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)


async def test_being_slower_than_others_is_not_a_failure(storage: StorageEmulator) -> None:
    said = [412, 412, 412, 429, 503, 503]

    async def moody(request: web.Request) -> web.StreamResponse:
        if request.method == "POST" and said:
            return web.json_response({"error": {"message": "no"}}, status=said.pop(0))
        return await passed_on(request, storage)

    async with serving(moody) as proxy, opened(proxy.host, storage.uri) as store:
        await store.acquire(NAME, RUN, TTL)
        assert (await store.read(NAME)).live(time.time())
    assert not said


@pytest.mark.parametrize("lost", [1, 2])
async def test_the_answer_to_a_write_is_lost(storage: StorageEmulator, lost: int) -> None:
    """A proxy that lets the write through, and cuts the connection instead of answering."""
    left = lost

    async def forward(request: web.Request) -> web.StreamResponse:
        nonlocal left
        answer = await passed_on(request, storage)
        if request.method == "POST" and left:
            left -= 1
            assert request.transport is not None
            request.transport.close()
        return answer

    async with serving(forward) as proxy, opened(proxy.host, storage.uri) as store:
        await store.acquire(NAME, RUN, TTL)
        assert [each.owner for each in (await store.read(NAME)).holders.values()] == ["dag/run"]
    assert left == (lost - 1 if lost > 1 else 0)


async def test_a_write_that_never_gets_an_answer(storage: StorageEmulator) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(status=404, text="Not Found")
        return web.json_response({"error": {"message": "backend error"}}, status=503)

    async with serving(refuse) as server, opened(server.host, storage.uri) as store:
        with pytest.raises(LeaseStoreUnavailableError, match="could not be written: Cloud Storage answered 503"):
            await store.acquire(NAME, RUN, TTL)


async def test_unreachable_store_raises(storage: StorageEmulator) -> None:
    async with serving(web.Response()) as server:
        host = server.host
    async with opened(host, storage.uri) as store:
        with pytest.raises(LeaseStoreUnavailableError, match="Could not reach the leases"):
            await store.read(NAME)
        with pytest.raises(LeaseStoreUnavailableError, match="Could not reach the leases"):
            await store.forget(NAME)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 7}', "null", '{"version": 2}', "[" * 4000, '{"version": 2, "owner": 1}']
)
async def test_garbage_is_not_an_empty_lease(store: LeaseStore, storage: StorageEmulator, content: str) -> None:
    storage.put(PATH, b"{}", {"lease": content})
    for call in (store.read(NAME), store.close(NAME, new_closing("reaper", "idle"), 60), store.acquire(NAME, RUN, TTL)):
        with pytest.raises(LeaseUnreadableError):
            await call


async def test_what_is_not_part_of_a_lease_keeps_the_cluster(store: LeaseStore, storage: StorageEmulator) -> None:
    storage.put(f"{FOLDER}/notes.txt", b"do not delete")
    with pytest.raises(LeaseUnreadableError):
        await store.close(NAME, new_closing("reaper", "idle"), 60)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "null", "[]", "<html>", '{"kind": "storage#objects", "items": null}', '{"items": []}', "[" * 9999],
)
async def test_an_odd_answer_is_not_an_empty_lease(text: str) -> None:
    """An empty body is no empty list, or a cluster in use would be deleted."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=text)

    async with serving(answer) as server, opened(server.host, "gs://bucket") as store:
        with pytest.raises(LeaseStoreUnavailableError):
            await store.read(NAME)
        with pytest.raises(LeaseStoreUnavailableError):
            await store.close(NAME, new_closing("reaper", "idle"), 60)


@pytest.mark.parametrize("token", [lambda page: "same", lambda page: f"t{page}"])
async def test_a_listing_that_does_not_end_is_an_error(
    token: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_objects, "MOST_PAGES", 20)
    pages = 0

    async def endless(request: web.Request) -> web.Response:
        nonlocal pages
        pages += 1
        return web.json_response({"kind": "storage#objects", "items": [], "nextPageToken": token(pages)})

    async with serving(endless) as server, opened(server.host, "gs://bucket") as store:
        with pytest.raises(LeaseStoreUnavailableError, match="does not end"):
            await store.read(NAME)


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.check(),
        lambda store: store.check_readable(),
        lambda store: store.read(NAME),
        lambda store: store.acquire(NAME, RUN, TTL),
        lambda store: store.close(NAME, new_closing("reaper", "idle"), 60),
    ],
)
async def test_a_missing_bucket_is_named(storage: StorageEmulator, act: Callable[[LeaseStore], object]) -> None:
    async with opened(storage.host, "gs://another-bucket/leases") as store:
        with pytest.raises(
            LeaseStoreError, match="bucket of lease_uri='gs://another-bucket/leases' does not exist"
        ) as no:
            await act(store)  # type: ignore[misc]
    assert not isinstance(no.value, LeaseStoreUnavailableError), "it would be tried again for an hour"


async def test_the_emulator_without_storage_says_how_to_start_it() -> None:
    store = LeaseStore(Transport(FakeTokens(), Addresses("127.0.0.1:1"), retry=QUICK), "gs://bucket/leases")
    with pytest.raises(LeaseStoreError, match="start --with storage"):
        await store.check()


# As the service was seen to say it: https://github.com/firebase/firebase-tools/pull/3647
MISSING = "No such object: my-bucket/leases/1234/us-central1/bucket-list-g1.json"


@pytest.mark.parametrize(
    "answer", [lambda: web.Response(status=404, text=MISSING), lambda: web.json_response(told(MISSING), status=404)]
)
async def test_no_object_is_an_empty_lease_whatever_the_bucket_is_called(
    answer: Callable[[], web.StreamResponse],
) -> None:
    async with serving(answer(), answer()) as server, opened(server.host, "gs://my-bucket/leases") as store:
        assert await store._objects.read("x") is None
        await store._objects.delete("x.json", 1)


@pytest.mark.parametrize("text", ["", "<html>404. That's an error.</html>", "The specified bucket does not exist."])
async def test_other_404_is_not_an_empty_lease(text: str) -> None:
    async with serving(web.Response(status=404, text=text)) as server, opened(server.host, "gs://acme") as store:
        with pytest.raises(LeaseStoreError, match="answered 404|does not exist"):
            await store.read(NAME)


async def test_unanswered_requests_raise_lease_store_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_objects, "TIMEOUT", 0.2)
    never = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    async with serving(silent) as server, opened(server.host, "gs://acme") as store:
        began = time.monotonic()
        with pytest.raises(LeaseStoreError, match="Could not reach the leases"):
            await store.read(NAME)
        # Four tries of a fifth of a second, and the pauses between them.
        assert 0.8 <= time.monotonic() - began < 60
        never.set()


async def test_access_is_refused() -> None:
    denied = web.json_response({"error": {"message": "no storage.objects.list access"}}, status=403)
    async with serving(denied) as server, opened(server.host, "gs://bucket") as store:
        with pytest.raises(LeaseStoreError, match=r"lease_uri='gs://bucket'.*403: no storage\.objects\.list") as raised:
            await store.read(NAME)
    assert "roles/storage.objectUser" in str(raised.value)
    assert (raised.value.details["http_status"], type(raised.value)) == (403, LeaseStoreError)


async def test_the_request_carries_its_precondition() -> None:
    missing = web.Response(status=404, text="No such object: bucket/x")
    unmarked = web.Response(status=404, text="No such object: bucket/y")
    async with serving(missing, web.json_response({}), unmarked) as server, opened(server.host, "gs://bucket") as store:
        await store.acquire(NAME, RUN, TTL)
        method, path, headers, body = server.requests[1]
    assert (method, headers["Authorization"]) == ("POST", "Bearer t1")
    assert path == "/upload/storage/v1/b/bucket/o?uploadType=multipart&ifGenerationMatch=0"
    metadata, content = (part.split(b"\r\n\r\n", 1)[1].split(b"\r\n")[0] for part in body.split(b"--")[1:3])
    found = json.loads(metadata)
    assert found.pop("metadata") == {"lease": content.decode()}
    assert found == {
        "name": f"1234/us-central1/etl-g1/holders/{RUN.key}.json",
        "contentType": "application/json",
        "cacheControl": "no-store",
    }
    assert Holder.from_json(json.loads(content)).live(time.time())


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("gs://bucket", ("bucket", "")),
        ("gs://bucket/", ("bucket", "")),
        ("gs://my.bucket_1/a/b", ("my.bucket_1", "a/b/")),
        ("gs://bucket/a/", ("bucket", "a/")),
    ],
)
def test_uris(uri: str, expected: tuple[str, str]) -> None:
    assert parse_lease_uri(uri) == expected


@pytest.mark.parametrize(
    "uri", ["", "bucket/a", "s3://bucket", "gs://", "gs:///a", "gs://B", "gs://b/a//c", "gs://bb/../x"]
)
def test_malformed_lease_uris_are_rejected(uri: str) -> None:
    with pytest.raises(InvalidArgumentError, match="lease_uri"):
        parse_lease_uri(uri)
