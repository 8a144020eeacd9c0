"""Idempotent BigQuery jobs: the id is chosen before the call, so that repeated requests do the work once.

A job id can be used once in a project and location
(https://cloud.google.com/bigquery/docs/running-jobs#generate-jobid), and a job is atomic: a failed one has
changed nothing.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import Any

__all__ = ["MOST_JOBS", "StepError", "accepted", "done_before", "once"]

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

REQUEST_SECONDS = 120.0
"""Seconds for which a request is repeated that BigQuery answers with an error of its own servers."""


class StepError(RuntimeError):
    """The step failed, and the target is unchanged."""


def once(client: Any, base: str, location: str, start: Callable[[str], Any]) -> Any:
    """Do some work in a job, unless an earlier job has done it, and return that job.

    :param client: a ``google.cloud.bigquery.Client``.
    :param base: prefix of the job id, which is the same for the same work.
    :param location: BigQuery location of the job.
    :param start: starts a job with the given id; must not repeat a request by itself.
    :raises google.api_core.exceptions.GoogleAPICallError: The job failed for a reason that is not transient.
    """
    from google.api_core.exceptions import Conflict, GoogleAPICallError

    for number in range(MOST_JOBS):
        job_id, started_here = f"{base}_{number}", True
        try:
            job = _patiently(functools.partial(start, job_id), job_id)
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
            print(f"BigQuery job {job_id} failed; trying again: {(job.error_result or {}).get('message', reason)}")
        if started_here:
            time.sleep(min(LONGEST_PAUSE, 2.0**number) * random.uniform(0.5, 1.0))  # noqa: S311
    raise AssertionError("the last attempt returns or raises")


def _patiently(request: Callable[[], Any], what: str) -> Any:
    """Return the answer of a request, which is repeated after errors of BigQuery's servers, with a line in the log.

    The client itself repeats for 10 minutes, and prints nothing meanwhile.
    """
    from google.cloud.bigquery.retry import DEFAULT_RETRY

    def note(error: Exception) -> None:
        print(f"BigQuery did not accept job {what}; trying again: {error}")

    return DEFAULT_RETRY.with_timeout(REQUEST_SECONDS)(request, on_error=note)()


def accepted(work: Callable[[], Any], what: str) -> Any:
    """Return the result of some work in BigQuery.

    :param work: the work.
    :param what: what it does, for the error.
    :raises StepError: BigQuery rejects it; the message contains BigQuery's reason.
    """
    from google.api_core.exceptions import GoogleAPICallError, RetryError

    try:
        return work()
    except GoogleAPICallError as error:
        # The message of the exception begins with the address of the request.
        told = next((each for each in error.errors or () if isinstance(each, dict)), {})
        reason = f" ({told['reason']})" if told.get("reason") else ""
        raise StepError(f"BigQuery rejected {what}{reason}: {told.get('message') or error.message}") from error
    except RetryError as error:
        raise StepError(f"BigQuery did not accept {what} for {REQUEST_SECONDS:g} s: {error.cause}") from error


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
