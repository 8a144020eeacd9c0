"""Faults on demand in the dashboard proxy."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest
import pytest_asyncio
from emulator_support.data_plane import until
from emulator_support.proxy_world import CUT, World, proxied
from vertex_ray_emulator.faults import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    async with proxied(tmp_path) as made:
        yield made


async def test_fault_status(world):
    world.fault(method="GET /echo/*", resource="etl", status=429, message="slow down", times=2)
    assert [await world.get("/echo/x") for _ in range(2)] == [(429, "slow down")] * 2
    assert (await world.get("/echo/x"))[0] == 200


async def test_fault_slow(world):
    world.fault(action="slow", delay=0.3)
    began = time.monotonic()
    assert (await world.get("/echo/x"))[0] == 200
    assert time.monotonic() - began >= 0.3


async def test_fault_reset_cuts_before_the_request_is_forwarded(world):
    world.fault(action="reset")
    with pytest.raises(CUT):
        await world.session.post(f"{world.url}/api/jobs/")
    assert world.upstream.submitted == 0
    assert world.last_request() == ("POST /api/jobs/", "etl", True, 0)


async def test_fault_drop_response_cuts_after_the_request_was_forwarded(world):
    world.fault(action="drop_response")
    with pytest.raises(CUT):
        await world.session.post(f"{world.url}/api/jobs/")
    assert world.upstream.submitted == 1
    assert world.last_request() == ("POST /api/jobs/", "etl", True, 0)


async def test_fault_hold_response_forwards_the_request_and_never_answers(world):
    world.fault(action="hold_response")
    held = asyncio.create_task(world.session.post(f"{world.url}/api/jobs/"))
    await until(world.request_log.listing, "the request to be forwarded")
    assert world.upstream.submitted == 1
    assert world.last_request() == ("POST /api/jobs/", "etl", True, 0)
    done, _ = await asyncio.wait({held}, timeout=0.5)
    assert done == set()
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    world.fault(action="hold_response", delay=0.1)
    with pytest.raises(CUT):
        await world.session.post(f"{world.url}/api/jobs/")
    assert world.upstream.submitted == 2


async def test_fault_can_match_the_body_of_a_request(world):
    world.fault(action="reset", contains="job-7")
    async with world.session.post(f"{world.url}/api/jobs/", data=b'{"submission_id": "job-6"}') as answer:
        assert answer.status == 200
    with pytest.raises(CUT):
        await world.session.post(f"{world.url}/api/jobs/", data=b'{"submission_id": "job-7"}')
    assert world.upstream.submitted == 1


async def test_cut_all_resets_every_connection(world):
    async with world.session.ws_connect(f"{world.url}/ws") as tail:
        await tail.send_str("hello")
        await tail.receive()
        assert world.proxy.cut_all() == 1
        assert (await tail.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert tail.close_code == 1006
    assert (await world.get("/echo/x"))[0] == 200


async def test_fault_hang_never_answers(world):
    world.fault(action="hang", times=None)
    with pytest.raises(asyncio.TimeoutError):
        await world.get("/echo/x", timeout=aiohttp.ClientTimeout(total=0.5))
    waiting = asyncio.create_task(world.get("/echo/y"))
    arrived = world.request_log.listing
    await until(lambda: any(each["method"] == "GET /echo/y" for each in arrived()), "the request to arrive")
    assert not waiting.done()
    await world.proxy.close()  # which a hanging request does not hold up
    with pytest.raises(CUT):
        await waiting


async def test_fault_hang_with_a_delay_ends_in_a_cut(world):
    world.fault(action="hang", delay=0.3)
    began = time.monotonic()
    with pytest.raises(CUT):  # a POST, as aiohttp tries a GET again by itself
        await world.session.post(f"{world.url}/api/jobs/")
    assert world.upstream.submitted == 0
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("query", ["", "?sized"])
@pytest.mark.parametrize("action", ["truncate", "ws_abort", "ws_close"])
async def test_fault_truncate_cuts_within_the_body(world, query, action):
    world.upstream.go_on.set()
    world.fault(action=action, after=7)
    async with world.session.get(f"{world.url}/download{query}") as response:
        assert await response.content.readexactly(7) == b"firstla"
        with pytest.raises(CUT):
            await response.content.read()


async def test_fault_ws_abort_cuts_after_a_number_of_frames(world):
    world.fault(action="ws_abort", after=3)
    async with world.session.ws_connect(f"{world.url}/frames") as tail:
        assert [await tail.receive_str() for _ in range(3)] == ["frame 0\n", "frame 1\n", "frame 2\n"]
        assert (await tail.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert tail.close_code == 1006


async def test_fault_ws_close_closes_with_1000_after_a_number_of_frames(world):
    world.fault(action="ws_close", after=2)
    async with world.session.ws_connect(f"{world.url}/frames") as tail:
        assert [message.data async for message in tail] == ["frame 0\n", "frame 1\n"]
        assert tail.close_code == 1000
    async with world.session.ws_connect(f"{world.url}/frames") as tail:
        assert len([message async for message in tail]) == 5


async def test_auth_fault_rejects_a_request(world):
    world.faults.add(Fault("auth", status=403, message="The caller does not have permission"))
    status, text = await world.get("/echo/x")
    assert status == 403
    assert '"message": "The caller does not have permission", "status": "PERMISSION_DENIED"' in text
    assert world.last_request() == ("GET /echo/x", "etl", False, 403)
    assert (await world.get("/echo/x"))[0] == 200


async def test_slow_auth_fault_delays_a_request(world):
    world.faults.add(Fault("auth", action="slow", delay=0.2))
    began = time.monotonic()
    assert (await world.get("/echo/x"))[0] == 200
    assert time.monotonic() - began >= 0.2
