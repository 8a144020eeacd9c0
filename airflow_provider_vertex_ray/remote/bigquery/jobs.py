"""Idempotent BigQuery jobs: the id is chosen before the call, so that repeated requests do the work once.

A job id can be used once in a project and location
(https://cloud.google.com/bigquery/docs/running-jobs#generate-jobid), and a job is atomic: a failed one has
changed nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

__all__ = ["MOST_JOBS", "done_before", "once"]

MOST_JOBS = 12
"""Maximum number of attempts for the same work."""

LONGEST_PAUSE = 60.0
"""Maximum number of seconds between two attempts."""

TRANSIENT = {
    "backendError",
    "internalError",
    "jobBackendError",
    "jobInternalError",
    "jobRateLimitExceeded",
    "rateLimitExceeded",
    "tableUnavailable",
}
"""Reasons of transient failures (https://cloud.google.com/bigquery/docs/error-messages)."""


def once(client: Any, base: str, location: str, start: Callable[[str], Any]) -> Any:
    """Do some work in a job, unless an earlier job has done it, and return that job.

    :param client: a ``google.cloud.bigquery.Client``.
    :param base: prefix of the job id, which is the same for the same work.
    :param location: BigQuery location of the job.
    :param start: starts a job with the given id.
    :raises google.api_core.exceptions.GoogleAPICallError: The job failed for a reason that is not transient.
    """
    from google.api_core.exceptions import Conflict, GoogleAPICallError

    for number in range(MOST_JOBS):
        job_id, started_here = f"{base}_{number}", True
        try:
            job = start(job_id)
        except Conflict:
            # The job exists: Ray ran a task again, or the response to an earlier call was lost.
            job, started_here = client.get_job(job_id, location=location), False
        try:
            job.result()
            return job
        except GoogleAPICallError:
            reason = (job.error_result or {}).get("reason")
            last = number == MOST_JOBS - 1
            # A job of an earlier attempt may have failed for a reason that is fixed now.
            if last or (started_here and reason not in TRANSIENT):
                raise
        if started_here:
            time.sleep(min(LONGEST_PAUSE, 2.0**number) * random.uniform(0.5, 1.0))  # noqa: S311
    raise AssertionError("the last attempt returns or raises")


def done_before(client: Any, base: str, location: str) -> Any:
    """Return the job that has done some work, and wait for it if it is running; None if there is none."""
    from google.api_core.exceptions import GoogleAPICallError, NotFound

    for number in range(MOST_JOBS):
        try:
            job = client.get_job(f"{base}_{number}", location=location)
        except NotFound:
            return None
        try:
            job.result()
            return job
        except GoogleAPICallError:
            continue
    return None
