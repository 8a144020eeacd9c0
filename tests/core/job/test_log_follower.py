"""A job's output: each line once and in order, whatever the connections do."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job import log_client, log_follower, log_reader
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.log_follower import BEGINS_ANEW, GOES_ON, KEPT_LINES, LONGEST_KEPT, JobLog
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES
from tests.support.clusters import dashboard_of, start, submit, until_exists
from tests.support.log_server import reached

TAIL = "GET /api/jobs/*/logs/tail"
WHOLE = "GET /api/jobs/*/logs"
FILE = "GET /api/v0/logs/file"


class Following:
    """A job on the emulator and its log as a trigger follows it."""

    def __init__(self, emulator: EmulatorProcess, api: JobsApi) -> None:
        self.emulator, self.api = emulator, api
        self.lines: list[str] = []

    def job(self, entrypoint: str, **more: Any) -> JobLog:
        submit(self.emulator, "shared", "one", entrypoint)
        return JobLog(self.api, "one", self.lines.append, **more)

    async def said(self, line: str) -> None:
        end = time.monotonic() + 240
        while line not in self.lines:
            assert time.monotonic() < end, self.lines[-5:]
            await asyncio.sleep(0.02)

    async def ended(self) -> None:
        end = time.monotonic() + 240
        while not (await self.api.get("one")).status.is_terminal:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)

    async def to_the_end(self, log: JobLog) -> list[str]:
        """Follow as the trigger does; gives the job's own lines."""
        log.start()
        await self.ended()
        return await self.finish(log)

    async def finish(self, log: JobLog) -> list[str]:
        await log.finish()
        return [line for line in self.lines if "job_manager.py" not in line]


@pytest.fixture
async def following(websocket_transport: Transport, websocket_emulator: EmulatorProcess) -> Following:
    start(websocket_emulator)
    dashboard = f"http://{websocket_emulator.host}{dashboard_of(websocket_emulator, 'shared')}"
    return Following(websocket_emulator, JobsApi(websocket_transport, dashboard))


@pytest.fixture
def only_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow websocket is waited for: nothing reads the log in another way meanwhile."""
    monkeypatch.setattr(log_client, "HANDSHAKE_SECONDS", 240.0)
    monkeypatch.setattr(log_follower, "HEAD_START", 240.0)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that a job waits for."""
    return tmp_path / "gate"


def echo(count: int, pause: str = "") -> str:
    return f" && {pause}".join(f"echo {n}" for n in range(count))


NUMBERS = [str(n) for n in range(60)]


async def test_all_lines_while_they_come(following: Following, gate: Path) -> None:
    log = following.job(f"echo early; {until_exists(gate)}; echo late")
    log.start()
    await following.said("early")
    assert (await following.api.get("one")).status.value == "RUNNING"
    await asyncio.to_thread(gate.touch)
    await following.ended()
    assert await following.finish(log) == ["early", "late"]


@pytest.mark.parametrize("action", ["ws_abort", "ws_close"])
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_connections_that_end_too_early(following: Following, action: str, after: int) -> None:
    with following.emulator.fault(scope="dashboard", method=TAIL, action=action, after=after, times=2):
        assert await following.to_the_end(following.job(echo(60, "sleep 0.02 && "))) == NUMBERS


@pytest.mark.parametrize("action", ["ws_abort", "ws_close"])
async def test_a_log_that_only_comes_by_connections_that_end_too_early(
    following: Following, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_follower, "DRAIN_QUIET", 30.0)
    monkeypatch.setattr(log_follower, "DRAIN_PAUSE", 0.01)
    log = following.job(echo(60))
    await following.ended()
    # Each connection gets a bit more of the log, the last one all.
    faults = [{"scope": "dashboard", "method": TAIL, "action": action, "after": after} for after in (1, 3)]
    reads = [{"scope": "dashboard", "method": method, "times": None} for method in (FILE, WHOLE)]
    following.emulator.admin("POST", "faults", [*faults, *reads])
    assert await following.finish(log) == NUMBERS


async def test_the_rest_of_a_log_whose_connection_waits_for_its_next_try(following: Following) -> None:
    # The tail can not be opened while the job runs, so that the next try is seconds away when the job ends.
    log = following.job("sleep 2 && echo done")
    with following.emulator.fault(scope="dashboard", method=TAIL, status=503, times=None):
        log.start()
        end = time.monotonic() + 240
        while len(following.emulator.calls(TAIL)) < 2:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
    await following.ended()
    assert await following.finish(log) == ["done"]


async def test_a_log_without_a_tail(following: Following) -> None:
    with following.emulator.fault(scope="dashboard", method=TAIL, status=404, times=None):
        assert await following.to_the_end(following.job(echo(60))) == NUMBERS


async def test_unreadable_log_does_not_delay_the_job(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_follower, "DRAIN_LIMIT", 10.0)
    log = following.job("echo lost")
    with following.emulator.fault(scope="dashboard", method="GET /api/*/logs*", status=503, times=None):
        start_time = time.monotonic()
        assert await following.to_the_end(log) == []
    assert time.monotonic() - start_time < 240
    assert log.problem.startswith("reading it took too long. The cluster's dashboard answered 503")


@pytest.mark.parametrize("fault", [{"status": 503}, {"action": "reset"}, {"action": "truncate", "after": 300}])
@pytest.mark.parametrize("method", [FILE, WHOLE])
async def test_reads_that_fail(following: Following, fault: dict[str, Any], method: str) -> None:
    log = following.job(echo(60))
    await following.ended()
    other = {"scope": "dashboard", "method": WHOLE if method == FILE else FILE, "times": None}
    following.emulator.admin("POST", "faults", [other, {"scope": "dashboard", "method": method, "times": 1, **fault}])
    assert await following.finish(log) == NUMBERS
    assert following.emulator.calls(TAIL) == []
    assert log.problem == ""


async def test_what_a_job_left_behind_does_not_delay_its_end(following: Following) -> None:
    log = following.job("count 100000 600")
    log.start()
    await following.said("line 5")
    await asyncio.wait_for(following.finish(log), 240)


@pytest.mark.usefixtures("only_websockets")
async def test_a_log_costs_one_request_at_its_end(following: Following) -> None:
    log = following.job("echo before && sleep 600")
    log.start()
    await following.said("before")
    following.emulator.admin("DELETE", "calls")
    assert await asyncio.wait_for(following.finish(log), 240) == ["before"]
    assert len([call for call in following.emulator.calls("GET /api/*/logs*") if "tail" not in call["method"]]) == 1


@pytest.mark.parametrize("action", ["ws_abort", "ws_close"])
async def test_log_that_no_connection_delivers_completely(following: Following, action: str) -> None:
    # Each connection repeats the beginning and ends before it says anything new.
    log = following.job("count 3000 2 && echo written && sleep 600")
    with following.emulator.fault(scope="dashboard", method=TAIL, action=action, after=20, times=None):
        begin = time.monotonic()
        log.start()
        await following.said("written")
    await log.cancel()
    seconds = time.monotonic() - begin
    assert following.lines[1:-1] == [f"line {number}" for number in range(3000)]
    assert following.emulator.calls(WHOLE) == []
    # A read four times a second at most, and another connection twice a second.
    assert 1 <= len(following.emulator.calls(FILE)) <= 2 + 4 * seconds
    assert len(following.emulator.calls(TAIL)) <= 2 + 2 * seconds


@pytest.mark.usefixtures("only_websockets")
async def test_a_long_log_is_read_as_a_whole_only_at_its_end(
    following: Following, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A cluster whose Ray does not return log files.
    monkeypatch.setattr(log_reader, "LONGEST_CATCH_UP", 500)
    log = following.job("count 1000 0 && sleep 3")
    faults = [
        {"scope": "dashboard", "method": TAIL, "action": "ws_close", "after": 20, "times": None},
        {"scope": "dashboard", "method": FILE, "status": 404, "times": None},
    ]
    following.emulator.admin("POST", "faults", faults)
    log.start()
    end = time.monotonic() + 240
    while len(following.emulator.calls(TAIL)) < 3:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    assert len(following.lines) == 200
    assert following.emulator.calls(WHOLE) == []
    assert caplog.text.count("Ray job one has a long log") == 1
    await following.ended()
    assert (await following.finish(log))[:1000] == [f"line {number}" for number in range(1000)]
    assert len(following.emulator.calls(WHOLE)) == 1


async def test_another_process_continues_the_output(following: Following, gate: Path) -> None:
    lines = "; ".join(f"echo line {number}" for number in range(30))
    first = following.job(f"echo VERTEX_RAY_RESULT 1; {lines}; {until_exists(gate)}; echo late; echo later")
    first.start()
    await following.said("line 29")
    await first.cancel()
    assert first.position == len("".join(f"{line}\n" for line in following.lines))
    shown: list[str] = []
    second = JobLog(following.api, "one", shown.append, position=first.position)
    second.start()
    await reached(lambda: second.delivered == first.position)
    assert (second.position, shown) == (first.position, [])
    await asyncio.to_thread(gate.touch)
    await following.ended()
    await second.finish()
    assert shown == [GOES_ON, "late", "later"]
    assert (second.result, list(second.last_lines)[-3:]) == (1, ["line 29", "late", "later"])
    assert second.position == first.position + len("late\nlater\n")


async def test_another_process_that_finds_nothing_new(following: Following) -> None:
    first = following.job(echo(60))
    await following.to_the_end(first)
    shown: list[str] = []
    second = JobLog(following.api, "one", shown.append, position=first.position)
    await second.finish()
    assert shown == []
    assert second.last_lines == first.last_lines


@pytest.mark.parametrize("start", [True, False])
async def test_another_process_that_finds_another_log(following: Following, start: bool) -> None:
    log = following.job("echo VERTEX_RAY_RESULT 1 && echo new", position=5000)
    await following.ended()
    if start:
        log.start()
        await following.said("new")
    assert await following.finish(log) == [BEGINS_ANEW, "VERTEX_RAY_RESULT 1", "new"]
    assert (log.result, len(log.last_lines)) == (1, 3)
    assert log.position < 5000


async def test_what_is_hidden(following: Following) -> None:
    secret = "s3cret!"
    log = following.job(f"echo key={secret}, && echo 'VERTEX_RAY_RESULT \"{secret}\"'", hidden=[secret, "no"])
    assert await following.to_the_end(log) == ["key=***,", 'VERTEX_RAY_RESULT "***"']
    assert list(log.last_lines)[1:] == ["key=***,", 'VERTEX_RAY_RESULT "***"']
    assert log.result == secret


async def test_secret_across_truncation_is_masked(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_follower, "LONGEST_LINE", 20)
    log = following.job(f"echo {'x' * 15}s3cret-value", hidden=["s3cret-value"])
    assert (await following.to_the_end(log))[-1] == "x" * 15 + "***"


async def test_broken_emit_does_not_break_the_job(following: Following) -> None:
    def refuse(line: str) -> None:
        raise RuntimeError("the log handler is gone")

    following.job(echo(3))
    log = JobLog(following.api, "one", refuse)
    await following.to_the_end(log)
    assert list(log.last_lines)[1:] == ["0", "1", "2"]


async def test_the_result_and_the_last_lines(following: Following) -> None:
    long = "x" * (LONGEST_KEPT + 50)
    log = following.job(f'{echo(60)} && echo {long} && echo \'VERTEX_RAY_RESULT {{"answer": [42, "ä"]}}\'')
    await following.to_the_end(log)
    assert log.result == {"answer": [42, "ä"]}
    assert len(log.last_lines) == KEPT_LINES
    assert log.last_lines[-2] == long[:LONGEST_KEPT]
    assert long in following.lines


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        ("VERTEX_RAY_RESULT nonsense", "result of 8 bytes, which is not JSON"),
        ("VERTEX_RAY_RESULT 1 && echo VERTEX_RAY_RESULT nonsense", "which is not JSON"),
        ("xVERTEX_RAY_RESULT 1", ""),
    ],
)
async def test_invalid_result_lines_are_ignored(
    following: Following, caplog: pytest.LogCaptureFixture, said: str, warning: str
) -> None:
    caplog.set_level(logging.WARNING)
    log = following.job(f"echo {said}")
    assert await following.to_the_end(log) == said.split(" && echo ")
    assert log.result is None
    assert warning in caplog.text
    assert bool(warning) == any(each.name.startswith("airflow_provider_vertex_ray") for each in caplog.records)


@pytest.mark.parametrize("more", [0, 1, 3000])
async def test_a_long_result(following: Following, more: int) -> None:
    text = "ä" + "x" * (MAX_RESULT_BYTES - len('"ä"'.encode()) + more)
    log = following.job(f"echo 'VERTEX_RAY_RESULT \"{text}\"'")
    [shown] = await following.to_the_end(log)
    size = MAX_RESULT_BYTES + more
    assert shown == f'VERTEX_RAY_RESULT "{text}'[:LONGEST_KEPT] + f"… ({size} bytes)"
    assert len(log.last_lines[-1]) == LONGEST_KEPT
    assert (log.result == text) == (more == 0)
    assert (log.result_error is None) == (more == 0)
    said = f"The job's result has {size:,} bytes; the limit is {MAX_RESULT_BYTES:,} bytes"
    assert more == 0 or str(log.result_error).startswith(said)


async def test_the_last_result_counts(following: Following) -> None:
    log = following.job("echo VERTEX_RAY_RESULT 1 && echo VERTEX_RAY_RESULT 2")
    await following.to_the_end(log)
    assert log.result == 2


async def test_news(following: Following, gate: Path) -> None:
    log = following.job(f"echo early; {until_exists(gate)}; echo late; sleep 600")
    assert not log.news.is_set()
    log.start()
    for line in ("early", "late"):
        await asyncio.wait_for(log.news.wait(), 240)
        await following.said(line)
        log.news.clear()
        # Nothing else comes before the job goes on.
        await asyncio.to_thread(gate.touch)

    async def cut() -> None:
        # More than once, for there may be no connection just then.
        while not log.news.is_set():
            await asyncio.to_thread(following.emulator.admin, "POST", "connections/cut")
            await asyncio.sleep(0.1)

    await asyncio.wait_for(cut(), 240)
    await log.cancel()


async def test_cancelling_ends_the_connection(following: Following) -> None:
    log = following.job("sleep 600")
    log.start()
    end = time.monotonic() + 240
    while not following.emulator.calls(TAIL):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    await asyncio.wait_for(log.cancel(), 240)
    await log.cancel()
    assert [task for task in asyncio.all_tasks() if "._follow" in repr(task.get_coro())] == []
