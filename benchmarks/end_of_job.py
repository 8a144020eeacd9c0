"""Measure the delay from a job's end to its event, on a real Ray cluster, at several poll intervals."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Figure, print_figures
from devtools.emulator_process import Emulator

POLL_INTERVALS = (1.0, 15.0, 60.0)
JOB_SECONDS = (2.3, 4.1, 6.6, 9.2, 12.7, 17.4)
WAYS = (("without websockets", (), 1.0), ("with websockets", ("--without", "no-websockets"), 0.5))
"""How jobs are waited for, the emulator's arguments, and the goal in seconds."""


async def _delays(cluster: str, poll_interval: float) -> list[float]:
    from airflow_provider_vertex_ray.core.job.client import JobRequest
    from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook
    from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

    hook = VertexRayJobAsyncHook()

    async def one(seconds: float) -> float:
        job = f"sleep-{poll_interval:.0f}-{seconds:.1f}".replace(".", "-")
        await hook.submit_job(cluster, JobRequest(f"sleep {seconds}", job))
        outcome = await VertexRayJobTrigger(
            cluster_name=cluster, submission_id=job, poll_interval=poll_interval
        ).outcome()
        now = time.time()
        if outcome["status"] != "success":
            raise RuntimeError(f"Job {job} failed: {outcome}")
        return now - float(outcome["result"]["end_time"]) / 1000

    async with hook.session():
        return list(await asyncio.gather(*(one(seconds) for seconds in JOB_SECONDS)))


async def _measure() -> dict[float, list[float]]:
    from airflow_provider_vertex_ray.hooks.base import VertexRayBaseHook
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
    from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterReadyTrigger

    sync_hook = await asyncio.to_thread(VertexRayBaseHook)
    project = await asyncio.to_thread(sync_hook.known_project)
    cluster = f"projects/{project}/locations/us-central1/persistentResources/ends"
    spec = {"worker_node_types": [{"machine_type": "n1-standard-8"}]}
    await VertexRayClusterAsyncHook().create_cluster(cluster, spec)
    ready = await VertexRayClusterReadyTrigger(cluster_name=cluster, poll_interval=0.5).outcome()
    if ready["status"] != "success":
        raise RuntimeError(f"The cluster did not become ready: {ready}")
    return {poll_interval: await _delays(cluster, poll_interval) for poll_interval in POLL_INTERVALS}


def run() -> Iterator[Figure]:
    """Measure with and without websockets, each on one cluster, one poll interval after the other."""
    for way, arguments, goal in WAYS:
        yield from _run_one(way, arguments, goal)


def _run_one(way: str, arguments: tuple[str, ...], goal: float) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="vrb-") as folder:
        emulator = Emulator(Path(folder) / "state", arguments)
        emulator.start()
        try:
            os.environ.update({**emulator.airflow_environment, "AIRFLOW_HOME": str(Path(folder) / "airflow")})
            found = asyncio.run(_measure())
        finally:
            emulator.stop()
    return [
        Figure(
            f"end of a job to its event, median, {way}, poll_interval {poll_interval:.0f} s",
            statistics.median(delays),
            "s",
            "goal",
            goal,
            1.0,
        )
        for poll_interval, delays in found.items()
    ]


def main() -> int:
    """Measure and print the figures."""
    print(f"Jobs of {JOB_SECONDS[0]} to {JOB_SECONDS[-1]} s, all at once, on a real Ray cluster.")
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
