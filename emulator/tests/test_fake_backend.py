"""What is specific to the backend without Ray: scripted entrypoints, instant clusters, simulated kills."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest
import pytest_asyncio
from emulator_support.data_plane import plans, until
from emulator_support.process import PATIENCE
from hypothesis import given
from hypothesis import strategies as st
from vertex_ray_emulator.backends import fake_dashboard
from vertex_ray_emulator.backends.fake_backend import FakeBackend
from vertex_ray_emulator.backends.fake_jobs import NOT_RUN, FakeJobs, steps
from vertex_ray_emulator.backends.job_request import JobRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[FakeBackend]:
    made = FakeBackend()
    yield made
    await made.close()


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def _jobs(backend: FakeBackend, key: str = "a", workers: int = 1) -> str:
    addresses = await backend.start(key, plans(workers))
    return f"http://127.0.0.1:{addresses.dashboard_port}/api/jobs/"


async def _submit(session: aiohttp.ClientSession, jobs: str, entrypoint: str, **more: object) -> str:
    async with session.post(jobs, json={"entrypoint": entrypoint, **more}) as response:
        return (await response.json())["submission_id"]


async def _ended(session: aiohttp.ClientSession, url: str) -> dict:
    async def ended() -> dict | None:
        async with session.get(url) as response:
            details = await response.json()
        return details if details["end_time"] else None

    return await until(ended, url)


@pytest.mark.parametrize(
    ("entrypoint", "expected"),
    [
        ("echo a b", [["echo", "a", "b"]]),
        ("echo 'a && b' && exit 3", [["echo", "a && b"], ["exit", "3"]]),
        ("sleep 1&&fail", [["sleep", "1"], ["fail"]]),
        ("python job.py --n=3", [["python", "job.py", "--n=3"]]),
        ("echo # all", [["echo", "#", "all"]]),
        ("echo 'open", []),
        ("", [[]]),
    ],
)
def test_entrypoints_are_split_into_commands(entrypoint, expected):
    assert list(steps(entrypoint)) == expected


@given(st.text())
def test_any_entrypoint_can_be_split(entrypoint):
    assert all(isinstance(word, str) for command in steps(entrypoint) for word in command)


@pytest.mark.parametrize(
    ("entrypoint", "status", "code", "lines"),
    [
        ("echo a && echo b", "SUCCEEDED", 0, ["a", "b"]),
        ("python train.py", "SUCCEEDED", 0, [NOT_RUN]),
        ("echo a && fail && echo b", "FAILED", 1, ["a"]),
        ("exit 7", "FAILED", 7, []),
        ("exit 0 && echo never", "SUCCEEDED", 0, []),
        ("exit", "SUCCEEDED", 0, []),
        ("sleep soon", "FAILED", 2, ["could not convert string to float: 'soon'"]),
    ],
)
async def test_commands_set_status_exit_code_and_log(backend, session, entrypoint, status, code, lines):
    jobs = await _jobs(backend)
    job = await _submit(session, jobs, entrypoint)
    details = await _ended(session, jobs + job)
    assert (details["status"], details["driver_exit_code"]) == (status, code)
    async with session.get(f"{jobs}{job}/logs") as response:
        assert (await response.json())["logs"].splitlines()[1:] == lines


async def test_sleep_delays_the_end_of_a_job(backend, session):
    jobs = await _jobs(backend)
    began = time.monotonic()
    details = await _ended(session, jobs + await _submit(session, jobs, "sleep 0.3"))
    assert time.monotonic() - began >= 0.3
    assert details["end_time"] - details["start_time"] >= 300


async def test_count_spreads_lines_evenly(backend, session):
    jobs = await _jobs(backend)

    async def lines(url: str) -> list[str]:
        async with session.get(f"{url}/logs") as response:
            return (await response.json())["logs"].splitlines()[1:]

    async def counted(url: str) -> list[int]:
        counts: list[int] = []

        async def complete() -> bool:
            counts.append(len(await lines(url)))
            return counts[-1] >= 203

        await until(complete, "all lines")
        return counts

    # On a busy machine, a job may end between two looks at its log.
    for seconds in (0.6, 5, 40):
        url = jobs + await _submit(session, jobs, f"count 200 {seconds} && count 3 0 && count")
        counts = await counted(url)
        assert (await _ended(session, url))["status"] == "SUCCEEDED"
        assert await lines(url) == [f"line {number}" for number in [*range(200), *range(3)]]
        if spread := any(20 < count < 180 for count in counts):
            break
    assert spread, counts


async def test_thousand_jobs_run_at_once(backend, session):
    jobs = await _jobs(backend)
    began = time.monotonic()
    await asyncio.gather(*(_submit(session, jobs, "sleep 0.5 && echo done") for _ in range(1000)))
    async with session.get(jobs) as response:
        assert len(await response.json()) == 1000

    async def all_ended() -> bool:
        async with session.get(jobs) as response:
            return all(job["status"] == "SUCCEEDED" for job in await response.json())

    await until(all_ended, "a thousand jobs")
    assert time.monotonic() - began < 400  # one after the other would take 500 s


async def test_clusters_are_independent(backend, session):
    first, second = await _jobs(backend, "a"), await _jobs(backend, "b")
    await _submit(session, first, "echo x", submission_id="same")
    await _submit(session, second, "echo x", submission_id="same")
    await backend.stop("a")
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.get(first)
    assert (await session.get(second)).status == 200
    assert await backend.nodes("a") == []
    await backend.stop("a")


async def test_pending_job_starts_when_a_node_with_its_resources_is_added(backend, session):
    jobs = await _jobs(backend, workers=0)
    job = await _submit(session, jobs, "echo x", entrypoint_num_gpus=1)
    async with session.get(jobs + job) as response:
        assert (await response.json())["status"] == "PENDING"
    await backend.resize("a", plans(1))
    assert (await _ended(session, jobs + job))["status"] == "SUCCEEDED"


async def test_reserved_resources_are_in_use_until_the_job_ends(backend, session):
    jobs = await _jobs(backend)
    running = await _submit(session, jobs, "sleep 600", entrypoint_num_cpus=2)
    await _submit(session, jobs, "sleep 600")

    async def used() -> list[float]:
        async with session.get(jobs.replace("jobs/", "cluster_status")) as response:
            usage = (await response.json())["data"]["clusterStatus"]["loadMetricsReport"]["usage"]
        return usage["CPU"]

    async def two() -> bool:
        return (await used())[0] == 2

    assert await until(two, "in use")
    async with session.post(f"{jobs}{running}/stop"):
        pass
    await _ended(session, f"{jobs}{running}")
    assert (await used())[0] == 0


async def test_job_that_cannot_be_placed_fails_after_the_start_timeout(monkeypatch):
    monkeypatch.setattr("vertex_ray_emulator.backends.fake_jobs.START_TIMEOUT", 0.05)
    jobs = FakeJobs("http://127.0.0.1:1", lambda demands: None)
    job = jobs.get(jobs.submit(JobRequest("echo x", entrypoint_num_cpus=1)))
    assert job is not None
    await until(lambda: job.terminal, "the deadline")
    assert job.status == "FAILED"
    assert job.message.startswith("Job supervisor actor failed to start within 0.05 seconds.")
    assert "specified resources" in job.message
    await jobs.close()


async def test_killed_dashboard_refuses_connections_and_stopped_one_hangs(backend, session):
    jobs = await _jobs(backend)
    assert await backend.kill("a", "dashboard", "STOP") == []
    with pytest.raises(asyncio.TimeoutError):
        await session.get(jobs, timeout=aiohttp.ClientTimeout(total=0.3))
    await backend.kill("a", "dashboard", "CONT")
    assert (await session.get(jobs)).status == 200
    await backend.kill("a", "dashboard", "KILL")
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.get(jobs)
    assert [node["alive"] for node in await backend.nodes("a")] == [True, True]


async def test_killing_the_head_kills_all_nodes(backend, session):
    jobs = await _jobs(backend)
    await backend.kill("a", "head", "KILL")
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.get(jobs)
    assert [node["alive"] for node in await backend.nodes("a")] == [False, False]


async def test_dashboard_without_gcs_answers_500_after_a_timeout(backend, session, monkeypatch):
    monkeypatch.setattr(fake_dashboard, "GCS_TIMEOUT", 0.3)
    jobs = await _jobs(backend)
    await backend.kill("a", "gcs", "KILL")
    began = time.monotonic()
    assert (await session.get(jobs + "x")).status == 500
    assert time.monotonic() - began >= 0.3


async def test_dashboard_without_agent_rejects_jobs_but_answers_their_status(backend, session):
    jobs = await _jobs(backend)
    job = await _submit(session, jobs, "sleep 600")
    await backend.kill("a", "agent", "KILL")
    assert (await session.post(jobs, json={"entrypoint": "echo"})).status == 500
    assert (await session.get(f"{jobs}{job}/logs")).status == 500
    assert (await session.get(jobs + job)).status == 200


async def test_killing_a_raylet_kills_its_node_and_jobs(backend, session):
    jobs = await _jobs(backend)
    job = await _submit(session, jobs, "sleep 600", entrypoint_num_cpus=1)
    await until(lambda: _is(session, jobs + job, "RUNNING"), "the job to run")
    await backend.kill("a", "raylet", "KILL", node="worker-pool1-0")
    assert (await _ended(session, jobs + job))["status"] == "FAILED"
    assert [node["alive"] for node in await backend.nodes("a")] == [True, False]
    await backend.resize("a", plans(1))  # which replaces the dead
    assert [node["alive"] for node in await backend.nodes("a")] == [True, True]


async def _is(session: aiohttp.ClientSession, url: str, status: str) -> bool:
    async with session.get(url) as response:
        return (await response.json())["status"] == status


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("a", "engine", "KILL"), {}, ValueError),
        (("a", "head", "HUP"), {}, ValueError),
        (("a", "driver", "KILL"), {}, ValueError),
        (("a", "raylet", "KILL"), {"node": "worker-9"}, KeyError),
        (("b", "head", "KILL"), {}, KeyError),
    ],
)
async def test_invalid_kill_raises_error(backend, arguments, options, error):
    await _jobs(backend)
    with pytest.raises(error):
        await backend.kill(*arguments, **options)


async def test_tail_ends_when_its_client_disconnects(backend, session):
    jobs = await _jobs(backend)
    job = await _submit(session, jobs, "echo first && sleep 600")
    tail = await session.ws_connect(f"{jobs}{job}/logs/tail")
    received = ""
    while "first" not in received:
        received += await tail.receive_str()
    await tail.close()
    await asyncio.wait_for(backend.stop("a"), PATIENCE)  # the job takes longer
