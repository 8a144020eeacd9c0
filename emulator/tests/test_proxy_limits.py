"""The limits of Google's proxy in front of dashboards: time, size and websockets."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from emulator_support.proxy_world import CUT, HOST, World, proxied
from vertex_ray_emulator.profile import TRAITS
from vertex_ray_emulator.surfaces.dashboard_target import REQUEST_BYTES, RESPONSE_SECONDS, ProxyLimits, Target

KIB = 1024


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    limits = ProxyLimits(websockets=False, response_seconds=600.0, request_bytes=64 * KIB)
    async with proxied(tmp_path, limits) as made:
        yield made


async def test_websocket_arrives_as_a_plain_request(world: World) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await world.session.ws_connect(f"{world.url}/ws")
    assert refused.value.status == 400
    assert world.last_request() == ("GET /ws", "etl", True, 400)


async def test_answer_that_does_not_begin_in_time_is_524(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server, proxied(tmp_path, ProxyLimits(response_seconds=0.5)) as world:
        world.targets[HOST] = Target("etl", server.sockets[0].getsockname()[1])
        assert (await world.get("/api/jobs/"))[0] == 524
        assert world.last_request() == ("GET /api/jobs/", "etl", True, 524)


async def test_answer_that_does_not_end_in_time_is_cut(tmp_path: Path) -> None:
    got = b""
    # On a busy machine, the answer may not have begun by the time it is cut.
    for seconds in (0.5, 5.0, 50.0):
        limits = ProxyLimits(response_seconds=seconds)
        async with proxied(tmp_path, limits) as world, world.session.get(f"{world.url}/download") as response:
            if response.status == 524:
                continue
            assert response.status == 200
            with pytest.raises(CUT):
                async for chunk in response.content.iter_any():
                    got += chunk
        if got:
            break
    assert got == b"first"


async def test_answer_in_time_is_complete(world: World) -> None:
    world.upstream.go_on.set()
    assert await world.get("/download") == (200, "firstlater")


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_upload_is_413(world: World, chunked: bool) -> None:
    async def parts(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // KIB):
            yield bytes(KIB)

    async def put(size: int) -> int:
        data = parts(size) if chunked else bytes(size)
        try:
            async with world.session.put(f"{world.url}/upload", data=data) as response:
                return response.status
        except aiohttp.ClientConnectionError:
            # A client that is still sending may see the closed connection before the answer.
            return world.last_request()[3]

    assert await put(64 * KIB) == 200
    assert await put(65 * KIB) == 413


async def test_dashboard_comes_up_as_the_reports_say(world: World) -> None:
    world.targets[HOST] = Target("etl", world.upstream.port, math.inf, 0.0, 524)
    assert (await world.get("/echo/x"))[0] == 524
    # In the past, or far in the future: no clock decides this test.
    for warm_since, status in ((5000.0, 200), (1500.0, 403), (500.0, 401)):
        world.targets[HOST] = Target("etl", world.upstream.port, time.time() - warm_since, 2000.0, 524)
        assert (await world.get("/echo/x"))[0] == status


def test_limits_belong_to_traits() -> None:
    assert ProxyLimits.of(()) == ProxyLimits()
    assert ProxyLimits.of(TRAITS) == ProxyLimits(False, RESPONSE_SECONDS, REQUEST_BYTES)
    assert (RESPONSE_SECONDS, REQUEST_BYTES) == (30.0, 32 * KIB * KIB)
