"""Measure how fast a large log of a job that has ended reaches the task's log, beside a bare download of the same log.

Both run alternately in one process, with websockets and without. Ours finds the lines, checks each for secrets and for
what cannot be stored, looks for the result, and hands each line on once; the bare client only splits the answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator

from airflow_provider_vertex_ray.core.http.auth import EmulatorTokenSource
from benchmarks.clusters import INSTANT, Bench, bench
from benchmarks.report import Figure, print_figures

LINES = 200_000
ROUNDS = 3
MIB = 1 << 20
GOAL = 2.0
"""MiB a second; a job that prints more than that for long has another problem."""

JOB = f"count {LINES} 0"


async def _ours(where: Bench, job: str) -> tuple[float, int]:
    """Return the seconds and the bytes of all lines."""
    from airflow_provider_vertex_ray.hooks.calls.job import JobCalls
    from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

    found = {"bytes": 0, "lines": 0}

    class Counting(VertexRayJobTrigger):
        def _emit(self, line: str) -> None:
            found["bytes"] += len(line) + 1
            found["lines"] += 1

    async with JobCalls().session():
        begun = time.perf_counter()
        outcome = await Counting(cluster_name=where.cluster, submission_id=job, poll_interval=1.0).outcome()
        seconds = time.perf_counter() - begun
    if outcome["status"] != "success" or found["lines"] < LINES:
        raise RuntimeError(f"{found['lines']} of {LINES} lines arrived: {outcome['status']}")
    return seconds, found["bytes"]


async def _bare(where: Bench, job: str) -> float:
    import aiohttp

    token = await EmulatorTokenSource(where.emulator.host).get()
    url = f"http://{where.emulator.host}/{where.dashboard_uri.rsplit('/', 1)[-1]}/api/jobs/{job}/logs"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        begun = time.perf_counter()
        async with session.get(url) as answer:
            lines = json.loads(await answer.read())["logs"].splitlines()
        seconds = time.perf_counter() - begun
    if len(lines) < LINES:
        raise RuntimeError(f"{len(lines)} of {LINES} lines arrived.")
    return seconds


async def _finished(where: Bench, job: str) -> None:
    from airflow_provider_vertex_ray.core.job.client import JobRequest
    from airflow_provider_vertex_ray.hooks.calls.job import JobCalls
    from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

    calls = JobCalls()
    async with calls.jobs(where.cluster, where.dashboard_uri) as api:
        await api.submit(JobRequest(JOB, job))
    outcome = await VertexRayJobTrigger(
        cluster_name=where.cluster, submission_id=job, stream_logs=False, poll_interval=0.2
    ).outcome()
    if outcome["status"] != "success":
        raise RuntimeError(f"The job failed: {outcome}")


def run() -> Iterator[Figure]:
    """Measure both, and take the minimum of each."""
    for way, arguments in (("without websockets", ()), ("with websockets", ("--without", "no-websockets"))):
        with bench((*INSTANT, *arguments)) as where:
            asyncio.run(_finished(where, "big"))
            # The first round imports what the others share.
            rounds = [(asyncio.run(_ours(where, "big")), asyncio.run(_bare(where, "big"))) for _ in range(ROUNDS + 1)][
                1:
            ]
            size = rounds[0][0][1] / MIB
            ours, bare = size / min(each[0][0] for each in rounds), size / min(each[1] for each in rounds)
            what = f"log of {LINES:,} lines, {size:.1f} MiB, {way}"
            yield Figure(what, ours, "MiB/s", "goal", GOAL, 1.0, more_is_better=True)
            yield Figure(what, ours, "MiB/s", "bare download", bare, more_is_better=True)


def main() -> int:
    """Measure and print the figures."""
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
