"""A job's output: each line once and in order, whatever the connections do."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.api import job_logs
from airflow_provider_vertex_ray.api.job_logs import KEPT_LINES, LONGEST_KEPT, LONGEST_LINE, JobLog, LineAssembler
from airflow_provider_vertex_ray.api.jobs import JobsApi
from airflow_provider_vertex_ray.api.transport import Transport
from tests.support.clusters import dashboard_of, start, submit
from tests.support.emulator import EmulatorProcess

LINES = st.lists(
    st.text(st.characters(blacklist_characters="\n\r", blacklist_categories=("Cs",)), max_size=8), max_size=12
)
TAIL = "GET /api/jobs/*/logs/tail"


@st.composite
def connections(draw: st.DrawFn, text: str) -> list[list[str]]:
    """What several connections say: each begins at the beginning, in pieces, and breaks off anywhere; the last not."""
    ends = [draw(st.integers(0, len(text))) for _ in range(draw(st.integers(0, 4)))]
    found = []
    for end in [*ends, len(text)]:
        cuts = sorted(draw(st.lists(st.integers(0, end), max_size=6)))
        found.append([text[a:b] for a, b in zip([0, *cuts], [*cuts, end], strict=True)])
    return found


def assembled(several: list[list[str]]) -> list[str]:
    got: list[str] = []
    assembler = LineAssembler(got.append)
    for pieces in several:
        assembler.reconnected()
        for piece in pieces:
            assembler.feed(piece)
    assembler.flush()
    return got


@given(st.data(), LINES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_each_line_once_and_in_order(data: st.DataObject, lines: list[str], end: str, finished: bool) -> None:
    text = end.join(lines) + (end if finished and lines else "")
    expected = lines if finished or not lines or lines[-1] else lines[:-1]
    assert assembled(data.draw(connections(text))) == expected


@given(st.data(), st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab\r")), max_size=6))
def test_long_lines_are_bounded_however_they_come(data: st.DataObject, lines: list[tuple[int, str]]) -> None:
    limit = 10
    text = "".join(letter * length + "\n" for length, letter in lines) + "tail"
    several = data.draw(connections(text))
    original, job_logs.LONGEST_LINE = job_logs.LONGEST_LINE, limit
    try:
        assert assembled(several) == assembled([[text]])
        assert all(len(line) <= limit for line in assembled(several))
        assert len(assembled(several)) == len(lines) + 1
    finally:
        job_logs.LONGEST_LINE = original


def test_a_line_that_never_ends_does_not_fill_the_memory() -> None:
    got: list[str] = []
    assembler = LineAssembler(got.append)
    for _ in range(1000):
        assembler.feed("\r 50%|#####     |" * 100)
        assert len(assembler._rest) <= LONGEST_LINE
    assembler.feed("\nnext\n")
    assert [len(got[0]), *got[1:]] == [LONGEST_LINE, "next"]


class Following:
    """A job on the emulator and its log as a trigger follows it."""

    def __init__(self, emulator: EmulatorProcess, api: JobsApi) -> None:
        self.emulator, self.api = emulator, api
        self.lines: list[str] = []

    def job(self, entrypoint: str) -> JobLog:
        submit(self.emulator, "shared", "one", entrypoint)
        return JobLog(self.api, "one", self.lines.append)

    async def ended(self) -> None:
        end = time.monotonic() + 30
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
async def following(transport: Transport, fake_emulator: EmulatorProcess) -> Following:
    start(fake_emulator)
    dashboard = f"http://{fake_emulator.host}{dashboard_of(fake_emulator, 'shared')}"
    return Following(fake_emulator, JobsApi(transport, dashboard))


def echo(count: int, pause: str = "") -> str:
    return f" && {pause}".join(f"echo {n}" for n in range(count))


NUMBERS = [str(n) for n in range(60)]


async def test_all_lines_while_they_come(following: Following) -> None:
    log = following.job("echo early && sleep 1.5 && echo late")
    log.start()
    end = time.monotonic() + 10
    while "early" not in following.lines:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    assert (await following.api.get("one")).status.value == "RUNNING"
    await following.ended()
    assert await following.finish(log) == ["early", "late"]


@pytest.mark.parametrize("action", ["ws_abort", "ws_close"])
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_connections_that_end_too_early(following: Following, action: str, after: int) -> None:
    with following.emulator.fault(scope="dashboard", method=TAIL, action=action, after=after, times=2):
        assert await following.to_the_end(following.job(echo(60, "sleep 0.02 && "))) == NUMBERS


@pytest.mark.parametrize("action", ["ws_abort", "ws_close"])
async def test_a_long_log_whose_connections_end_too_early_after_the_jobs_end(
    following: Following, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr(job_logs, "LONGEST_WHOLE", 10)
    log = following.job(echo(60))
    await following.ended()
    # Each connection gets a bit more of the log, the last one all.
    faults = [{"scope": "dashboard", "method": TAIL, "action": action, "after": after} for after in (1, 3)]
    following.emulator.admin("POST", "faults", faults)
    assert await following.finish(log) == NUMBERS


async def test_the_rest_of_a_log_whose_connection_waits_for_its_next_try(following: Following) -> None:
    # The tail can not be opened while the job runs, so that the next try is seconds away when the job ends.
    log = following.job("sleep 2 && echo done")
    with following.emulator.fault(scope="dashboard", method=TAIL, status=503, times=None):
        log.start()
        end = time.monotonic() + 10
        while len(following.emulator.calls(TAIL)) < 2:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
    await following.ended()
    assert await following.finish(log) == ["done"]


async def test_a_log_without_a_tail(following: Following) -> None:
    with following.emulator.fault(scope="dashboard", method=TAIL, status=404, times=None):
        assert await following.to_the_end(following.job(echo(60))) == NUMBERS


async def test_a_log_that_can_not_be_read_does_not_hold_the_job_up(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_logs, "DRAIN_LIMIT", 2.0)
    log = following.job("echo lost")
    with following.emulator.fault(scope="dashboard", method="GET /api/jobs/*/logs*", status=503, times=None):
        start_time = time.monotonic()
        assert await following.to_the_end(log) == []
    assert time.monotonic() - start_time < 10


async def test_a_long_log_that_is_quiet_at_its_end(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    # As with Ray: the connection stays open for seconds after the job's end.
    monkeypatch.setattr(job_logs, "LONGEST_WHOLE", 10)
    monkeypatch.setattr(job_logs, "DRAIN_QUIET", 0.3)
    log = following.job(f"{echo(60)} && sleep 60")
    log.start()
    end = time.monotonic() + 10
    while "59" not in following.lines:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    begin = time.monotonic()
    assert await following.finish(log) == NUMBERS
    assert time.monotonic() - begin < 2


async def test_a_reader_that_breaks_does_not_break_the_job(following: Following) -> None:
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


@pytest.mark.parametrize(("said", "result"), [("VERTEX_RAY_RESULT nonsense", None), ("xVERTEX_RAY_RESULT 1", None)])
async def test_what_is_no_result(following: Following, said: str, result: Any) -> None:
    log = following.job(f"echo {said}")
    assert await following.to_the_end(log) == [said]
    assert log.result is result


async def test_the_last_result_counts(following: Following) -> None:
    log = following.job("echo VERTEX_RAY_RESULT 1 && echo VERTEX_RAY_RESULT 2")
    await following.to_the_end(log)
    assert log.result == 2


async def test_cancelling_ends_the_connection(following: Following) -> None:
    log = following.job("sleep 60")
    log.start()
    end = time.monotonic() + 10
    while not following.emulator.calls(TAIL):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    await asyncio.wait_for(log.cancel(), 5)
    await log.cancel()
    assert [task for task in asyncio.all_tasks() if "_follow" in repr(task)] == []
