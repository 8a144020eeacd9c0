"""The exit code of a failed job whose output Ray could not read."""

from __future__ import annotations

import pytest
from aiohttp import web

from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.exit_code import with_exit_code
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from tests.support.server import serving, transport_to

LOST = Job("one", JobStatus.FAILED, message="Traceback …\nUnicodeDecodeError: 'utf-8' codec …", node_id="abc")
RAY_LOG = (
    "2026-11-29 04:04:41,354\tINFO job_supervisor.py:291 -- Submitting job with RAY_ADDRESS = 127.0.0.1:1\n"
    "2026-11-29 04:04:41,954\tINFO job_supervisor.py:417 -- Job one entrypoint command exited with code 3\n"
    "2026-11-29 04:04:41,955\tERROR job_supervisor.py:455 -- Got unexpected exception while trying to execute driver\n"
)


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (web.Response(text=RAY_LOG), 3, "Job entrypoint command failed with exit code 3"),
        (web.Response(text=""), None, "Ray could not read the job's output, which is not UTF-8"),
        (web.Response(status=500), None, "Ray could not read the job's output, which is not UTF-8"),
    ],
)
async def test_lost_exit_code_comes_from_rays_own_log(answer: web.Response, code: int | None, message: str) -> None:
    async with serving(answer) as server, transport_to(server) as transport:
        found = await with_exit_code(JobsApi(transport, server.url), LOST)
        assert "filename=jobs/supervisor-one.log" in server.requests[0][1]
    assert found.exit_code == code
    assert found.message.startswith(message)


@pytest.mark.parametrize(
    "job",
    [
        Job("one", JobStatus.FAILED, message="exit code 3", exit_code=3, node_id="abc"),
        Job("one", JobStatus.FAILED, message="runtime_env failed", node_id="abc"),
        Job("one", JobStatus.SUCCEEDED, message="UnicodeDecodeError", node_id="abc"),
    ],
)
async def test_other_jobs_are_not_asked_about(job: Job) -> None:
    async with serving(web.Response(text=RAY_LOG)) as server, transport_to(server) as transport:
        assert await with_exit_code(JobsApi(transport, server.url), job) == job
        assert server.requests == []
