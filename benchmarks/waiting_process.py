"""One process of ``many_waits``: start the jobs, wait for all of them in one way, and print the cost as JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.many_waits import JOB_SECONDS, POLL_INTERVAL, REST_SECONDS, settle_seconds

TICK = 0.005


def _resident_kib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmRSS.")


class _Collections:
    """Processor time of the interpreter's garbage collections, which visit everything in the process."""

    def __init__(self) -> None:
        self.spent = self.longest = self._begun = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.thread_time()
            return
        took = time.thread_time() - self._begun
        self.spent += took
        self.longest = max(self.longest, took)


async def _watch(found: dict[str, float]) -> None:
    """Record the longest time for which the loop was blocked, and the most processor time that a round took.

    On a busy machine only the latter is due to the waits, without the time of the interpreter's collections.
    """
    collections = _Collections()
    while True:
        before, cpu, collected = time.perf_counter(), time.thread_time(), collections.spent
        await asyncio.sleep(TICK)
        took = time.thread_time() - cpu
        found["blocked"] = max(found["blocked"], time.perf_counter() - before - TICK)
        found["turn"] = max(found["turn"], took)
        found["own_turn"] = max(found["own_turn"], took - (collections.spent - collected))
        found["collection"] = collections.longest


async def _submit(cluster: str, count: int, prefix: str) -> str:
    """Submit the jobs; return the address of the dashboard."""
    from airflow_provider_vertex_ray.core.job.client import JobRequest
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
    from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook

    hook = VertexRayJobAsyncHook()
    uri = (await VertexRayClusterAsyncHook().get_cluster(cluster)).dashboard_uri or ""
    async with hook.jobs(cluster, uri) as api:
        limit = asyncio.Semaphore(20)

        async def one(number: int) -> None:
            async with limit:
                await api.submit(JobRequest(f"echo begin && sleep {JOB_SECONDS}", f"{prefix}-{number}"))

        await asyncio.gather(*(one(number) for number in range(count)))
    return uri


async def _ours(cluster: str, uri: str, job: str) -> None:
    from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

    await VertexRayJobTrigger(
        cluster_name=cluster, submission_id=job, dashboard_uri=uri, poll_interval=POLL_INTERVAL
    ).outcome()


async def _floor_of(base: str, token: str) -> Callable[[str, str, str], Awaitable[None]]:
    import aiohttp

    session = aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"}, connector=aiohttp.TCPConnector(limit=0), trust_env=False
    )

    async def tail(job: str) -> None:
        async with session.ws_connect(f"{base}/api/jobs/{job}/logs/tail") as connection:
            async for _ in connection:
                pass

    async def floor(cluster: str, uri: str, job: str) -> None:
        following = asyncio.create_task(tail(job))
        while True:
            async with session.get(f"{base}/api/jobs/{job}") as answer:
                if (await answer.json())["status"] in ("SUCCEEDED", "FAILED", "STOPPED"):
                    break
            await asyncio.sleep(POLL_INTERVAL)
        following.cancel()

    return floor


def _peer_of(base: str, token: str) -> Callable[[str, str, str], Awaitable[None]]:
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(base, headers={"Authorization": f"Bearer {token}"})

    async def peer(cluster: str, uri: str, job: str) -> None:
        # As in astro-provider-ray: the blocking client is called in the triggerer's event loop.
        for _ in range(JOB_SECONDS):
            if client.get_job_status(job).is_terminal():
                return
            await asyncio.sleep(POLL_INTERVAL)

    return peer


async def measure(way: str, count: int) -> dict[str, float]:
    """Wait in one way and return the cost."""
    from airflow_provider_vertex_ray.core.http.addresses import Addresses
    from airflow_provider_vertex_ray.hooks.base import VertexRayBaseHook
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
    from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterReadyTrigger

    sync_hook = await asyncio.to_thread(VertexRayBaseHook)
    project = await asyncio.to_thread(sync_hook.known_project)
    cluster = f"projects/{project}/locations/us-central1/persistentResources/{way}"
    await VertexRayClusterAsyncHook().create_cluster(
        cluster, {"worker_node_types": [{"machine_type": "n1-standard-8"}]}
    )
    ready = await VertexRayClusterReadyTrigger(cluster_name=cluster, poll_interval=0.5).outcome()
    if ready["status"] != "success":
        raise RuntimeError(f"The cluster did not become ready: {ready}")
    uri = await _submit(cluster, count, way)
    token = await (await asyncio.to_thread(sync_hook.token_source)).get()
    base = Addresses.from_environment().dashboard(uri)
    if way == "ours":
        wait: Callable[[str, str, str], Awaitable[None]] = _ours
        # What the first wait loads is not part of a wait's own memory.
        warm = asyncio.create_task(_ours(cluster, uri, f"{way}-0"))
        await asyncio.sleep(2)
        warm.cancel()
        await asyncio.wait({warm})
    else:
        wait = await _floor_of(base, token) if way == "floor" else _peer_of(base, token)
    gc.collect()
    before = _resident_kib()
    found = dict.fromkeys(("blocked", "turn", "own_turn", "collection"), 0.0)
    watch = asyncio.create_task(_watch(found))
    waits = []
    for number in range(count):
        waits.append(asyncio.create_task(wait(cluster, uri, f"{way}-{number}")))  # type: ignore[arg-type]
        # A triggerer starts what it finds in batches; a hundred at a time is the default on Airflow 3.3.
        if number % 100 == 99:
            await asyncio.sleep(0.5)
    await asyncio.sleep(settle_seconds(count))
    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(REST_SECONDS)
    busy = (time.process_time() - cpu) / (time.perf_counter() - begun)
    found |= {"busy": busy, "memory": (_resident_kib() - before) / count}
    ended = [task for task in waits if task.done()]
    if ended:
        raise RuntimeError(f"{len(ended)} waits ended too early: {ended[0]}")
    for task in (*waits, watch):
        task.cancel()
    return found


def main() -> int:
    """Measure, and print the result as the last line."""
    logging.disable(logging.INFO)
    print(json.dumps(asyncio.run(measure(sys.argv[1], int(sys.argv[2])))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
