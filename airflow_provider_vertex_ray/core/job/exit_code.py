"""The exit code of a failed job that Ray does not report."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.log_lines import LogBytes
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.errors import VertexRayError

log = logging.getLogger(__name__)

LINES = 100
"""Last lines of Ray's own log about a job in which the exit code is looked for."""

EXITED = re.compile(r"entrypoint command exited with code (-?\d{1,10})")


async def with_exit_code(api: JobsApi, job: Job) -> Job:
    """Return the job with its exit code, if Ray lost it.

    When a job fails, Ray reads the end of its output as UTF-8. If that fails, it reports the traceback of its own
    failure instead of the exit code (Ray 2.47.1, ``JobSupervisor.run``), which is then found only in its log.
    """
    lost = job.status is JobStatus.FAILED and job.exit_code is None and "UnicodeDecodeError" in job.message
    if not lost or not job.node_id:
        return job
    text = ""
    try:
        decoder = LogBytes()
        async with api.log_file(job.submission_id, lines=LINES, node_id=job.node_id, supervisor=True) as pieces:
            async for data in pieces:
                text = (text + decoder.feed(data))[-(1 << 20) :]
    except VertexRayError as error:
        log.debug("Could not read Ray's log about job %s: %s", job.submission_id, error)
    codes = EXITED.findall(text)
    if not codes:
        reason = "Ray could not read the job's output, which is not UTF-8, and did not report the exit code"
        return replace(job, message=reason)
    return replace(job, exit_code=int(codes[-1]), message=f"Job entrypoint command failed with exit code {codes[-1]}")
