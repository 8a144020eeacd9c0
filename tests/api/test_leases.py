"""Leases in a real emulator of Cloud Storage, which honours generation preconditions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web

from airflow_provider_vertex_ray.api.addresses import Addresses
from airflow_provider_vertex_ray.api.leases import LeaseStore, parse_lease_uri
from airflow_provider_vertex_ray.api.transport import Transport
from airflow_provider_vertex_ray.cluster_name import ClusterName
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    LeaseHeldError,
    LeaseStoreError,
    LeaseUnreadableError,
)
from airflow_provider_vertex_ray.lease import Lease
from airflow_provider_vertex_ray.spec_error import SpecError
from tests.support.server import QUICK, FakeTokens, serving
from tests.support.storage import StorageEmulator

NAME = ClusterName("1234", "us-central1", "etl-g1")
PATH = "leases/1234/us-central1/etl-g1.json"
NOW, TTL = 1_800_000_000.0, 900.0


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


async def test_a_lease_is_written_read_and_forgotten(store: LeaseStore, storage: StorageEmulator) -> None:
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


async def test_of_a_holder_and_a_closer_one_wins(storage: StorageEmulator) -> None:
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


@pytest.mark.parametrize("lost", [1, 2])
async def test_the_answer_to_a_write_is_lost(storage: StorageEmulator, lost: int) -> None:
    """A proxy that lets the write through, and cuts the connection instead of answering."""
    left = lost

    async def forward(request: web.Request) -> web.StreamResponse:
        nonlocal left
        async with ClientSession(auto_decompress=False) as client:
            url = f"http://{storage.host}{request.raw_path}"
            kind = {"Content-Type": request.headers.get("Content-Type", "")}
            async with client.request(request.method, url, data=await request.read(), headers=kind) as answer:
                body = await answer.read()
                headers = {k: v for k, v in answer.headers.items() if k.lower().startswith("x-goog")}
                status = answer.status
        if request.method == "POST" and left:
            left -= 1
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=status, body=body, headers=headers)

    async with serving(forward) as proxy, opened(proxy.host, storage.uri) as store:
        lease = await store.change(NAME, lambda lease: lease.acquire("run", NOW, TTL))
        assert set(lease.holders) == {"run"}
        assert (await store.read(NAME))[0] == lease
    assert left == (lost - 1 if lost > 1 else 0)


async def test_a_write_that_never_gets_an_answer(storage: StorageEmulator) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(status=404, text="no such object")
        return web.json_response({"error": {"message": "backend error"}}, status=503)

    async with serving(refuse) as server, opened(server.host, storage.uri) as store:
        with pytest.raises(LeaseStoreError, match="could not be written: Cloud Storage answered 503: backend error"):
            await store.change(NAME, lambda lease: lease.acquire("run", NOW, TTL))


async def test_nobody_answers(storage: StorageEmulator) -> None:
    async with serving(web.Response()) as server:
        host = server.host
    async with opened(host, storage.uri) as store:
        with pytest.raises(LeaseStoreError, match="can not be reached"):
            await store.read(NAME)
        with pytest.raises(LeaseStoreError, match="can not be reached"):
            await store.forget(NAME)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 7}', b"\xff\xfe", b"null"])
async def test_garbage_is_no_empty_lease(store: LeaseStore, storage: StorageEmulator, content: bytes) -> None:
    storage.put(PATH, content)
    with pytest.raises(LeaseUnreadableError):
        await store.change(NAME, lambda lease: lease.close("reaper", "idle", NOW, 60))


async def test_no_bucket_is_no_empty_lease(storage: StorageEmulator) -> None:
    async with opened(storage.host, "gs://another-bucket/leases") as store:
        with pytest.raises(LeaseStoreError, match="There is no bucket for gs://another-bucket/leases"):
            await store.change(NAME, lambda lease: lease.acquire("run", NOW, TTL))


async def test_access_is_refused() -> None:
    denied = web.json_response({"error": {"message": "no storage.objects.get access"}}, status=403)
    async with serving(denied) as server, opened(server.host, "gs://bucket") as store:
        with pytest.raises(LeaseStoreError, match=r"answered 403: no storage\.objects\.get access") as raised:
            await store.read(NAME)
    assert raised.value.details == {"http_status": 403}


async def test_the_request_carries_its_precondition(storage: StorageEmulator) -> None:
    read = web.Response(status=404)
    async with serving(read, web.json_response({})) as server, opened(server.host, "gs://bucket") as store:
        await store.change(NAME, lambda lease: lease.acquire("run", NOW, TTL))
        method, path, headers, body = server.requests[1]
    assert (method, headers["Authorization"]) == ("POST", "Bearer t1")
    assert path == "/upload/storage/v1/b/bucket/o?uploadType=multipart&ifGenerationMatch=0"
    metadata, content = (part.split(b"\r\n\r\n", 1)[1].split(b"\r\n")[0] for part in body.split(b"--")[1:3])
    assert json.loads(metadata) == {"name": "1234/us-central1/etl-g1.json", "contentType": "application/json"}
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
def test_uris_that_are_none(uri: str) -> None:
    with pytest.raises(SpecError, match="lease_uri"):
        parse_lease_uri(uri)
