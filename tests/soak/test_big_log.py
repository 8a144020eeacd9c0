"""A log of 500 MiB on a real Ray without websockets: each line once, the result, flat memory, and few requests."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess, cluster_body

from airflow_provider_vertex_ray.core.job.client import JobRequest
from airflow_provider_vertex_ray.core.job.log_client import LogsApi
from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from tests.conftest import use
from tests.soak.long_log import Lines, resident_bytes
from tests.support.clusters import full_name

pytestmark = [pytest.mark.soak, pytest.mark.ray, pytest.mark.timeout(1200)]

LINES = 1_000_000
SECONDS = 120
MOST_GROWTH = 64 << 20

PROGRAM = """python -c "
import sys, time
begin = time.time()
for number in range({lines}):
    sys.stdout.write('line ' + str(number) + chr(10) + 'x' * 515 + chr(10))
    while number / {lines} > (time.time() - begin) / {seconds}:
        sys.stdout.flush()
        time.sleep(0.1)
print('VERTEX_RAY_RESULT', {lines})
"
"""


@pytest.fixture(scope="module")
def cluster(ray_process: EmulatorProcess) -> Iterator[EmulatorProcess]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(ray_process, monkeypatch)
        assert ray_process.create("real", cluster_body(workers=1))["state"] == "RUNNING"
        yield ray_process


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes of log files that were received, and the answers that had them."""
    counted: Counter[str] = Counter()
    read = LogsApi.log_file

    @contextlib.asynccontextmanager
    async def counting(self: LogsApi, submission_id: str, **options: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            counted["answers"] += 1
            async for piece in answer:
                counted["bytes"] += len(piece)
                yield piece

        async with read(self, submission_id, **options) as answer:
            yield pieces()

    monkeypatch.setattr(LogsApi, "log_file", counting)
    return counted


def test_half_a_gibibyte(cluster: EmulatorProcess, received: Counter[str]) -> None:
    lines = Lines()
    resident: list[int] = []

    async def watch() -> None:
        while True:
            resident.append(resident_bytes())
            await asyncio.sleep(1)

    async def follow() -> tuple[dict[str, object], float]:
        hook = VertexRayJobAsyncHook()
        async with hook.session():
            program = PROGRAM.format(lines=LINES, seconds=SECONDS)
            await hook.submit_job(full_name("real"), JobRequest(program, "big"))
            trigger = VertexRayJobTrigger(cluster_name=full_name("real"), submission_id="big")
            trigger._emit = lines.take  # type: ignore[method-assign]
            watching = asyncio.create_task(watch())
            try:
                event = await trigger.outcome()
            finally:
                watching.cancel()
            return event, time.time()

    event, ended = asyncio.run(follow())
    found = result_of(event)
    growth = max(resident) - min(resident[5:20])
    calls = Counter((call["method"].replace("big", "*"), call["status"]) for call in cluster.calls())
    took = (found["end_time"] - found["start_time"]) / 1000
    size = (1 << 20, LINES * 516 + sum(len(f"line {number}\n") for number in range(LINES)))
    print(
        f"event {ended - found['end_time'] / 1000:.2f} s after the end; growth {growth / 2**20:.0f} MiB; "
        f"{size[1] / size[0]:.0f} MiB of log in {took:.0f} s, {received['bytes'] / size[0]:.0f} MiB received in "
        f"{received['answers']} answers; {dict(calls)}"
    )
    assert (found["result"], lines.expected, lines.wrong) == (LINES, LINES, [])
    # Each numbered line is followed by a long one; the result's and Ray's own are few.
    assert LINES <= lines.others <= LINES + 5
    assert growth < MOST_GROWTH


def test_the_end_of_jobs_is_noticed_within_a_second(cluster: EmulatorProcess) -> None:
    async def late(number: int) -> float:
        hook = VertexRayJobAsyncHook()
        job = f"prints-{number}"
        program = PROGRAM.format(lines=2_000 * number, seconds=4 + number)
        async with hook.session():
            await hook.submit_job(full_name("real"), JobRequest(program, job))
            event = await VertexRayJobTrigger(cluster_name=full_name("real"), submission_id=job).outcome()
        return time.time() - float(result_of(event)["end_time"]) / 1000

    async def measure() -> list[float]:
        return [await late(number) for number in (1, 3, 6, 9, 13)]

    delays = asyncio.run(measure())
    print(f"events {[round(delay, 2) for delay in delays]} s after the end")
    assert statistics.median(delays) < 1
