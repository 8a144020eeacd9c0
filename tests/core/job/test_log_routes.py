"""The ways to a job's output: whatever a proxy does to websockets and long answers, no line and no result is lost."""

from __future__ import annotations

import asyncio
import random
import time
import tracemalloc
from collections.abc import Callable

import pytest

from airflow_provider_vertex_ray.core.job import log_client, log_follower, log_pace, log_routes
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.log_follower import JobLog
from tests.support.log_server import LogServer, reached

RESULT = b'VERTEX_RAY_RESULT {"value": 42}\n'


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"line %07d of the job\n" % number for number in range(first, last))


def expected(last: int) -> list[str]:
    return [f"line {number:07} of the job" for number in range(last)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test need not wait for."""
    monkeypatch.setattr(log_client, "HANDSHAKE_SECONDS", 1.0)
    monkeypatch.setattr(log_follower, "HEAD_START", 0.1)
    monkeypatch.setattr(log_follower, "LAG", 0.2)
    monkeypatch.setattr(log_pace, "FIRST_CHECK", 0.2)


WAYS = ("works", "hangs", "silent", "stalls", "400")
REFUSALS = ("401", "403", "404", "524", "302")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("websocket", "ray"),
    [
        *((websocket, ray) for ray in ("2.47.1", "2.42.0", "2.33.0") for websocket in WAYS),
        *((websocket, "2.47.1") for websocket in REFUSALS),
        *(
            pytest.param(websocket, ray, marks=pytest.mark.soak)
            for ray in ("2.42.0", "2.33.0")
            for websocket in REFUSALS
        ),
    ],
)
async def test_lines_come_while_the_job_runs_whatever_websockets_do(websocket: str, ray: str) -> None:
    server = LogServer(websocket, ray)
    shown: list[str] = []
    async with server.api() as api:
        log = JobLog(api, "one", shown.append)
        begin = time.monotonic()
        log.start()
        for step in range(3):
            server.log += numbered(step * 1000, step * 1000 + 1000)
            await reached(lambda step=step: len(shown) == step * 1000 + 1000)
        server.log += RESULT
        await log.finish()
    assert shown[:-1] == expected(3000)
    assert (log.result, log.problem) == ({"value": 42}, "")
    assert bool(server.calls["file"]) == (ray == "2.47.1" and websocket != "works") or websocket in ("works", "stalls")
    if websocket not in ("works", "stalls"):
        # Again after 2 s, and then after four times as long each time; a 401 is answered with another token at once.
        seconds = time.monotonic() - begin
        tries = 1 + sum(seconds >= due for due in (2, 10, 42, 170))
        assert server.calls["tail"] <= tries * (2 if websocket == "401" else 1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("lines", [1, 40])
@pytest.mark.parametrize("ray", ["2.47.1", "2.42.0"])
async def test_page_of_a_proxy_is_not_output(ray: str, lines: int) -> None:
    server = LogServer("400", ray)
    shown: list[str] = []
    server.log += numbered(0, 2)
    async with server.api() as api:
        log = JobLog(api, "one", shown.append)
        log.start()
        await reached(lambda: shown == expected(2))
        server.page = "<html><body>" + "We are down for maintenance.\n" * lines + "</body></html>"
        await reached(lambda: server.calls["page"] >= 3)
        server.page = ""
        # Less than the page, which must not hide it.
        server.log += RESULT
        await log.finish()
    assert shown[:-1] == expected(2)
    assert (log.result, log.problem) == ({"value": 42}, "")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("websocket", ["works", "silent", "400"])
async def test_one_byte_that_is_not_utf8(websocket: str) -> None:
    server = LogServer("400" if websocket == "works" else websocket)
    shown: list[str] = []
    server.log += b"one\ncaf\xe9\ntwo\r\n50%\r100%\n"
    async with server.api() as api:
        log = JobLog(api, "one", shown.append)
        log.start()
        await reached(lambda: "100%" in shown)
        server.log += RESULT + b"\xc3"
        await log.finish()
    assert shown == ["one", "caf\ufffd", "two", "50%", "100%", RESULT.decode().strip(), "\ufffd"]
    assert log.result == {"value": 42}


async def test_a_log_that_no_way_can_read_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_follower, "DRAIN_LIMIT", 10.0)
    # Without log files at all.
    server = LogServer("400", "2.33.0")
    server.log += b"caf\xe9\n" + RESULT
    async with server.api() as api:
        log = JobLog(api, "one", None)
        await log.finish()
    assert log.result is None
    assert "UnicodeDecodeError" in log.problem


@pytest.mark.parametrize("cut_visibly", [True, False])
@pytest.mark.parametrize("start", [True, False])
# In the shorter one, an answer with all lines ends where the first answer has ended.
@pytest.mark.parametrize("count", [300_000, 100_000])
async def test_answers_that_a_proxy_cuts(cut_visibly: bool, start: bool, count: int) -> None:
    server = LogServer("400", cut=1 << 20, cut_visibly=cut_visibly)
    shown: list[str] = []
    server.log += numbered(0, count) + RESULT
    async with server.api() as api:
        log = JobLog(api, "one", shown.append)
        if start:
            log.start()
            await reached(lambda: bool(shown))
        await log.finish()
    assert (log.result, log.problem) == ({"value": 42}, "")
    assert shown[:-1] == expected(count)


async def test_a_log_whose_start_cannot_be_read_keeps_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    server = LogServer("400")
    shown: list[str] = []
    server.log += numbered(0, 20_000) + RESULT
    original = server._send

    async def only_short(request: object, content: bytes, *kind: str) -> object:
        if len(content) > 200_000:
            from aiohttp import web

            return web.Response(status=524)
        return await original(request, content, *kind)  # type: ignore[arg-type]

    monkeypatch.setattr(server, "_send", only_short)
    async with server.api() as api:
        log = JobLog(api, "one", shown.append)
        await log.finish()
    assert log.result == {"value": 42}
    assert shown[0] == log_follower.LEFT_OUT
    assert shown[1:-1] == expected(20_000)[-4999:]
    assert "could not be read" in log.problem


LONG: dict[str, Callable[[int], bytes]] = {
    "distinct": lambda number: b"line %07d %s\n" % (number, b"x" * 100),
    "identical": lambda number: b"x" * 120 + b"\n",
    "blocks": lambda number: b"epoch step %d: loss 0.5\n" % (number % 20),
    "progress": lambda number: b"\r%d%%" % (number % 100) if number % 500 else b"\n",
}


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("ray", ["2.47.1", "2.42.0"])
@pytest.mark.parametrize("steps", [20, pytest.param(60, marks=pytest.mark.soak)])
async def test_a_growing_log_is_shown_once(kind: str, ray: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_pace, "SHORTEST", 0.02)
    monkeypatch.setattr(log_pace, "LONGEST", 0.05)
    monkeypatch.setattr(log_pace, "CATCH_UP_RATE", 1 << 30)
    server = LogServer("400", ray)
    shown: list[str] = []
    randomly = random.Random(4)
    async with server.api() as api:
        log = JobLog(api, "one", shown.append)
        log.start()
        number = 0
        for _ in range(steps):
            for _ in range(randomly.choice((0, 1, 30, 400, 3000))):
                server.log += LONG[kind](number)
                number += 1
            await asyncio.sleep(0.02)
        server.log += b"\n" + RESULT
        await log.finish()
    text = bytes(server.log).decode().replace("\r\n", "\n").replace("\r", "\n")
    assert len(shown) == text.count("\n")
    assert shown == text.splitlines()
    assert log.result == {"value": 42}


async def test_reads_do_not_grow_with_the_log() -> None:
    server = LogServer("400")
    async with server.api() as api:
        log = JobLog(api, "one", None)
        server.log += numbered(0, 100_000)
        await log._reader.read()
        sent = server.sent
        server.log += numbered(100_000, 100_100)
        for _ in range(10):
            assert await log._reader.read() is None
        assert server.sent - sent < 10 * 64_000
        assert log.delivered == len(server.log)


async def _result_of_long_log(api: JobsApi, server: LogServer) -> tuple[int, object]:
    count = 0

    def emit(line: str) -> None:
        nonlocal count
        count += 1

    log = JobLog(api, "one", emit)
    await log.finish()
    return count, log.result


@pytest.mark.parametrize("ray", ["2.47.1", "2.42.0"])
@pytest.mark.parametrize("mebibytes", [20, pytest.param(90, marks=pytest.mark.soak)])
async def test_a_long_log_in_flat_memory(ray: str, mebibytes: int) -> None:
    server = LogServer("400", ray)
    line = b"x" * 1200 + b"\n"
    count = (mebibytes << 20) // len(line)
    server.log += line * count + RESULT
    async with server.api() as api:
        # Ray's JSON answer is made by this process too.
        limit = 4 << 20 if ray == "2.47.1" else (4 * mebibytes + 40) << 20
        tracemalloc.start()
        try:
            held = tracemalloc.get_traced_memory()[0]
            assert await _result_of_long_log(api, server) == (count + 1, {"value": 42})
            # The server's answer is a copy of the log.
            assert tracemalloc.get_traced_memory()[1] - held - len(server.log) < limit
        finally:
            tracemalloc.stop()


@pytest.mark.usefixtures("quick")
async def test_jobs_of_one_dashboard_share_what_is_known_about_websockets() -> None:
    server = LogServer("400")
    async with server.api() as api:
        logs = [JobLog(api, "one", None) for _ in range(20)]
        begin = time.monotonic()
        logs[0].start()
        # The request has been seen, and then its refusal.
        await reached(lambda: server.calls["tail"] and not api.log_routes.websocket_due)
        for log in logs[1:]:
            log.start()
        await reached(lambda: server.calls["tail"] > 1)
        assert time.monotonic() - begin >= log_routes.FIRST_PAUSE
        for log in logs:
            await log.cancel()
    assert server.calls["version"] == 1
