"""Two clusters on one machine: a job runs on the one that it was submitted to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from emulator_support.process import PATIENCE
from vertex_ray_emulator.backends.ray_backend import RayBackend
from vertex_ray_emulator.project.plan import NodePlan

pytestmark = pytest.mark.ray

JOBS = 3
"""For each cluster: left to guess, Ray picks at random, and would be right with all of them once in 64 times."""


def plan(cpus: int) -> list[NodePlan]:
    """A head, and a worker with so many CPUs."""
    head = NodePlan("head", "head-node", True, "n1-standard-16", 16, 0, None, 1 << 30)
    return [head, NodePlan("worker-pool1-0", "worker-pool1", False, "n1-standard-4", cpus, 0, None, 1 << 30)]


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[RayBackend]:
    backend = RayBackend(tmp_path)
    try:
        yield backend
    finally:
        await backend.close()


async def cpus_seen_by_a_job(session: aiohttp.ClientSession, port: int, submission_id: str) -> float:
    """What ``ray.cluster_resources()`` says in a job: each cluster here has another number of CPUs."""
    jobs = f"http://127.0.0.1:{port}/api/jobs/"
    code = "import ray; ray.init(logging_level='ERROR'); print('CPUS', ray.cluster_resources()['CPU'])"
    body = {"entrypoint": f'python -c "{code}"', "submission_id": submission_id}
    async with session.post(jobs, json=body) as answer:
        assert answer.status == 200, await answer.text()
    async with asyncio.timeout(PATIENCE):
        while True:
            async with session.get(jobs + submission_id) as answer:
                job = await answer.json()
            if job["status"] in ("SUCCEEDED", "FAILED", "STOPPED"):
                break
            await asyncio.sleep(0.2)
    async with session.get(f"{jobs}{submission_id}/logs") as answer:
        logs = json.loads(await answer.text())["logs"]
    assert job["status"] == "SUCCEEDED", logs
    return float(next(line for line in logs.splitlines() if line.startswith("CPUS")).split()[1])


async def test_jobs_run_on_their_own_cluster(backend: RayBackend) -> None:
    one = await backend.start("one", plan(1))
    three = await backend.start("three", plan(3))
    async with aiohttp.ClientSession() as session:
        seen = await asyncio.gather(
            *(cpus_seen_by_a_job(session, one.dashboard_port, f"a{k}") for k in range(JOBS)),
            *(cpus_seen_by_a_job(session, three.dashboard_port, f"b{k}") for k in range(JOBS)),
        )
    assert seen == [1] * JOBS + [3] * JOBS
