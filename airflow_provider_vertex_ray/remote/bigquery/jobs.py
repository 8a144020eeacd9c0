"""BigQuery jobs that do their work once, however often they are asked for: the id is chosen before the call.

A job id can be used once in a project and location
(https://cloud.google.com/bigquery/docs/running-jobs#generate-jobid), and a job is atomic: one that failed has changed
nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

__all__ = ["MOST_JOBS", "done_before", "once"]

MOST_JOBS = 12
"""Jobs that are tried for one piece of work."""

LONGEST_PAUSE = 60.0
"""Seconds between two of them."""

TRANSIENT = {
    "backendError",
    "internalError",
    "jobBackendError",
    "jobInternalError",
    "jobRateLimitExceeded",
    "rateLimitExceeded",
    "tableUnavailable",
}
"""Reasons that go away (https://cloud.google.com/bigquery/docs/error-messages)."""


def once(client: Any, base: str, location: str, start: Callable[[str], Any]) -> Any:
    """The job that has done a piece of work: one that was there, or a new one.

    :param client: A ``google.cloud.bigquery.Client``.
    :param base: The id's beginning, the same whenever the same work is asked for.
    :param location: BigQuery's location of the job.
    :param start: Starts a job of that id.
    :raises google.api_core.exceptions.GoogleAPICallError: The job failed for a reason that does not go away.
    """
    from google.api_core.exceptions import Conflict, GoogleAPICallError

    for number in range(MOST_JOBS):
        job_id, started_here = f"{base}_{number}", True
        try:
            job = start(job_id)
        except Conflict:
            # Somebody asked for the same before: a task that Ray ran again, or a call whose answer was lost.
            job, started_here = client.get_job(job_id, location=location), False
        try:
            job.result()
            return job
        except GoogleAPICallError:
            reason = (job.error_result or {}).get("reason")
            last = number == MOST_JOBS - 1
            # One that failed for an earlier try may do now: its reason may have been mended.
            if last or (started_here and reason not in TRANSIENT):
                raise
        if started_here:
            time.sleep(min(LONGEST_PAUSE, 2.0**number) * random.uniform(0.5, 1.0))  # noqa: S311
    raise AssertionError("the last one returns or raises")


def done_before(client: Any, base: str, location: str) -> Any:
    """The job that has done a piece of work already; None when there is none. One that runs is waited for."""
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
