"""Leases in a real emulator of Cloud Storage, which honours generation preconditions."""

from __future__ import annotations

import asyncio
import heapq
import json
import time
import types
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing import lease_store
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore, parse_lease_uri
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseStoreError,
    LeaseUnreadableError,
)
from tests.support.server import QUICK, FakeTokens, serving

NAME = ClusterName("1234", "us-central1", "etl-g1")
PATH = "leases/1234/us-central1/etl-g1.json"
NOW, TTL = 1_800_000_000.0, 900.0


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
        await store._transport.close()


@pytest.fixture
async def store(storage: StorageEmulator) -> AsyncIterator[LeaseStore]:
    async with opened(storage.host, storage.uri) as found:
        yield found


async def test_lease_is_written_read_and_deleted(store: LeaseStore, storage: StorageEmulator) -> None:
    assert await store.read(NAME) == (Lease(), 0)
    written = await store.change(NAME, lambda lease: lease.acquire("dag/run", NOW, TTL))
    lease, generation = await store.read(NAME)
    assert lease == written
    assert generation > 0
    assert storage.names() == [PATH]
    await store.forget(NAME)
    assert await store.read(NAME) == (Lease(), 0)
    await store.forget(NAME)


async def test_no_change_is_lost_when_many_write_at_once(storage: StorageEmulator) -> None:
    # Each with a connection of its own, as in processes of their own; the first write is raced for too.
    async def one(number: int) -> None:
        async with opened(storage.host, storage.uri) as own:
            for turn in range(3):
                owner = f"run-{number}-{turn}"
                await own.change(NAME, lambda lease, owner=owner: lease.acquire(owner, NOW, TTL))  # type: ignore[misc]

    await asyncio.gather(*(one(number) for number in range(12)))
    async with opened(storage.host, storage.uri) as own:
        lease, _ = await own.read(NAME)
    assert set(lease.holders) == {f"run-{number}-{turn}" for number in range(12) for turn in range(3)}


async def test_concurrent_hold_and_close_have_one_winner(storage: StorageEmulator) -> None:
    for number in range(20):
        name = ClusterName("1234", "us-central1", f"race-g{number + 1}")
        async with opened(storage.host, storage.uri) as one, opened(storage.host, storage.uri) as other:
            outcomes = await asyncio.gather(
                one.change(name, lambda lease: lease.acquire("run", NOW, TTL)),
                other.change(name, lambda lease: lease.close("reaper", "idle", NOW, 60)),
                return_exceptions=True,
            )
            lease, _ = await one.read(name)
        errors = [type(each) for each in outcomes if isinstance(each, BaseException)]
        assert errors in ([ClusterClosingError], [LeaseHeldError])
        assert bool(lease.live(NOW)) is (errors == [LeaseHeldError])
        assert (lease.closing is not None) is (errors == [ClusterClosingError])


async def test_what_a_step_raises_comes_through_and_nothing_is_written(
    store: LeaseStore, storage: StorageEmulator
) -> None:
    await store.change(NAME, lambda lease: lease.close("reaper", "idle", NOW, 60))
    with pytest.raises(ClusterClosingError):
        await store.change(NAME, lambda lease: lease.acquire("run", NOW, TTL))
    assert (await store.read(NAME))[0].holders == {}


async def passed_on(request: web.Request, storage: StorageEmulator) -> web.Response:
    """What the emulator says to a proxy's request."""
    async with ClientSession(auto_decompress=False) as client:
        url = f"http://{storage.host}{request.raw_path}"
        kind = {"Content-Type": request.headers.get("Content-Type", "")}
        async with client.request(request.method, url, data=await request.read(), headers=kind) as answer:
            headers = {key: value for key, value in answer.headers.items() if key.lower().startswith("x-goog")}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)


class Pauses:
    """The store's pauses: virtual seconds, and whoever is due first goes on when all others wait too."""

    def __init__(self, writers: int) -> None:
        self.time = 0.0
        self.waiting = writers
        """Writers that are not asleep and not done."""
        self._due: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = 0

    async def sleep(self, seconds: float) -> None:
        self._number += 1
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._due, (self.time + seconds, self._number, woken))
        self.done()
        await woken
        self.waiting += 1

    def done(self) -> None:
        """One writer less that could do something now."""
        self.waiting -= 1
        if self.waiting == 0 and self._due:
            self.time, _, woken = heapq.heappop(self._due)
            woken.set_result(None)


async def test_one_write_a_second_is_enough_for_runs_that_begin_together(
    storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cloud Storage takes one write a second of an object; here each second is virtual."""
    writers = 30
    pauses = Pauses(writers)
    monkeypatch.setattr(lease_store, "asyncio", types.SimpleNamespace(sleep=pauses.sleep))
    last, refused = -1.0, 0

    async def limited(request: web.Request) -> web.StreamResponse:
        nonlocal last, refused
        if request.method == "POST":
            if pauses.time - last < 1:
                refused += 1
                message = "The object exceeded the rate limit for object mutation operations"
                return web.json_response({"error": {"message": message}}, status=429)
            last = pauses.time
        return await passed_on(request, storage)

    async def one(number: int, host: str) -> None:
        try:
            async with opened(host, storage.uri) as own:
                await own.change(NAME, lambda lease: lease.acquire(f"run-{number}", NOW, TTL))
        finally:
            pauses.done()

    async with serving(limited) as proxy:
        await asyncio.gather(*(one(number, proxy.host) for number in range(writers)))
    async with opened(storage.host, storage.uri) as own:
        assert len((await own.read(NAME))[0].holders) == writers
    assert refused > writers


async def test_a_write_without_an_answer_counts_for_itself(storage: StorageEmulator) -> None:
    """Being slower than others for a while does not make the first 503 the last try."""
    said = [412, 412, 412, 429, 503, 503]

    async def moody(request: web.Request) -> web.StreamResponse:
        if request.method == "POST" and said:
            return web.json_response({"error": {"message": "no"}}, status=said.pop(0))
        return await passed_on(request, storage)

    async with serving(moody) as proxy, opened(proxy.host, storage.uri) as store:
        await store.change(NAME, lambda lease: lease.acquire("run", NOW, TTL))
        assert (await store.read(NAME))[0].live(NOW)
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
        lease = await store.change(NAME, lambda lease: lease.acquire("run", NOW, TTL))
        assert set(lease.holders) == {"run"}
        assert (await store.read(NAME))[0] == lease
    assert left == (lost - 1 if lost > 1 else 0)


async def test_a_write_that_never_gets_an_answer(storage: StorageEmulator) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(status=404, text="Not Found")
        return web.json_response({"error": {"message": "backend error"}}, status=503)

    async with serving(refuse) as server, opened(server.host, storage.uri) as store:
        with pytest.raises(LeaseStoreError, match="could not be written: Cloud Storage answered 503: backend error"):
            await store.change(NAME, lambda lease: lease.acquire("run", NOW, TTL))


async def test_unreachable_store_raises(storage: StorageEmulator) -> None:
    async with serving(web.Response()) as server:
        host = server.host
    async with opened(host, storage.uri) as store:
        with pytest.raises(LeaseStoreError, match="Could not reach the leases"):
            await store.read(NAME)
        with pytest.raises(LeaseStoreError, match="Could not reach the leases"):
            await store.forget(NAME)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 7}', b"\xff\xfe", b"null", b"[" * 100_000])
async def test_garbage_is_not_an_empty_lease(store: LeaseStore, storage: StorageEmulator, content: bytes) -> None:
    storage.put(PATH, content)
    with pytest.raises(LeaseUnreadableError):
        await store.change(NAME, lambda lease: lease.close("reaper", "idle", NOW, 60))


async def test_missing_bucket_is_not_an_empty_lease(storage: StorageEmulator) -> None:
    async with opened(storage.host, "gs://another-bucket/leases") as store:
        with pytest.raises(LeaseStoreError, match="The bucket of gs://another-bucket/leases does not exist"):
            await store.change(NAME, lambda lease: lease.acquire("run", NOW, TTL))


# As the service was seen to say it: https://github.com/firebase/firebase-tools/pull/3647
MISSING = "No such object: my-bucket/leases/1234/us-central1/bucket-list-g1.json"


@pytest.mark.parametrize(
    "answer", [lambda: web.Response(status=404, text=MISSING), lambda: web.json_response(told(MISSING), status=404)]
)
async def test_no_object_is_an_empty_lease_whatever_the_bucket_is_called(
    answer: Callable[[], web.StreamResponse],
) -> None:
    async with serving(answer(), answer()) as server, opened(server.host, "gs://my-bucket/leases") as store:
        assert await store.read(NAME) == (Lease(), 0)
        await store.forget(NAME)


@pytest.mark.parametrize("text", ["", "<html>404. That's an error.</html>", "The specified bucket does not exist."])
async def test_other_404_is_not_an_empty_lease(text: str) -> None:
    async with serving(web.Response(status=404, text=text)) as server, opened(server.host, "gs://acme") as store:
        with pytest.raises(LeaseStoreError, match="answered 404"):
            await store.read(NAME)


async def test_unanswered_requests_raise_lease_store_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_store, "TIMEOUT", 0.2)
    never = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    async with serving(silent) as server, opened(server.host, "gs://acme") as store:
        began = time.monotonic()
        with pytest.raises(LeaseStoreError, match="Could not reach the leases"):
            await store.read(NAME)
        # Four tries of a fifth of a second, and the pauses between them.
        assert 0.8 <= time.monotonic() - began < 5
        never.set()


async def test_access_is_refused() -> None:
    denied = web.json_response({"error": {"message": "no storage.objects.get access"}}, status=403)
    async with serving(denied) as server, opened(server.host, "gs://bucket") as store:
        with pytest.raises(LeaseStoreError, match=r"answered 403: no storage\.objects\.get access") as raised:
            await store.read(NAME)
    assert raised.value.details == {"http_status": 403}


async def test_the_request_carries_its_precondition(storage: StorageEmulator) -> None:
    read = web.Response(status=404, text="No such object: bucket/1234/us-central1/etl-g1.json")
    async with serving(read, web.json_response({})) as server, opened(server.host, "gs://bucket") as store:
        await store.change(NAME, lambda lease: lease.acquire("run", NOW, TTL))
        method, path, headers, body = server.requests[1]
    assert (method, headers["Authorization"]) == ("POST", "Bearer t1")
    assert path == "/upload/storage/v1/b/bucket/o?uploadType=multipart&ifGenerationMatch=0"
    metadata, content = (part.split(b"\r\n\r\n", 1)[1].split(b"\r\n")[0] for part in body.split(b"--")[1:3])
    assert json.loads(metadata) == {
        "name": "1234/us-central1/etl-g1.json",
        "contentType": "application/json",
        "cacheControl": "no-store",
    }
    assert Lease.from_json(json.loads(content)).live(NOW)


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
