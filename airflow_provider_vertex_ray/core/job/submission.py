"""Exactly one job for each attempt of a task: find the jobs of earlier tries, and submit only what is missing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from airflow_provider_vertex_ray.core.job.client import JobRequest, JobsApi
from airflow_provider_vertex_ray.core.job.state import Action, Job, Try, attempt_id, decide
from airflow_provider_vertex_ray.errors import InvalidArgumentError, JobNotFoundError, JobNotStoppedError

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 1000
"""Limit of the search for jobs of one task instance on one cluster, far above what retries and clears amount to."""

STOP_SECONDS = 60.0
"""Seconds that a superseded job may take to end; Ray kills a driver that ignores the stop request after 3 s."""

STOP_AGAIN = 5.0
"""Seconds after which the stop request is repeated for a job that is still active. Ray answers before it has signalled
the job, and never reports whether that worked. Longer than the 3 s that Ray leaves between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class Found:
    """Result of the search for a task's job.

    :param attempt: number of the current attempt
    :param submission_id: submission id of the attempt
    :param job: its job, which is active (ADOPT) or has succeeded (RESULT); None if it must be submitted
    """

    attempt: int
    submission_id: str
    job: Job | None


@dataclass
class Submission:
    """A task's job on one cluster.

    :param api: Jobs API of the cluster
    :param prefix: submission id of the first attempt
    :param this: the current try
    :param notify: receives log lines for the user
    """

    api: JobsApi
    prefix: str
    this: Try
    notify: Callable[[str], None] = field(default=log.info)

    async def find(self, first_attempt: int = 1) -> Found:
        """Find the attempt that this try waits for or has to submit; stop jobs whose try was cleared.

        :param first_attempt: attempt at which the search begins
        :raises SubmissionIdTakenError: one of the ids belongs to a job that this task did not submit
        :raises JobNotStoppedError: a job whose try was cleared is still active after a stop request
        :raises InvalidArgumentError: the task has used all attempts on this cluster
        """
        for attempt in range(first_attempt, MAX_ATTEMPTS):
            job_id = attempt_id(self.prefix, attempt)
            job = await self.api.find(job_id)
            action = decide(job, self.this)
            if action in (Action.ADOPT, Action.RESULT):
                return Found(attempt, job_id, job)
            if action is Action.SUBMIT:
                return Found(attempt, job_id, None)
            if action is Action.SUPERSEDE:
                self.notify(f"Stopping Ray job {job_id}, which belongs to a cleared try")
                await stop_and_wait(self.api, job_id)
        raise InvalidArgumentError(
            "submission_id",
            self.prefix,
            f"All {MAX_ATTEMPTS} attempts on this cluster are used up; delete jobs or use another cluster.",
        )

    async def submit(
        self, found: Found, request: JobRequest, prepare: Callable[[JobRequest], Awaitable[JobRequest]]
    ) -> tuple[Found, bool]:
        """Submit the job that ``find`` did not find.

        :param found: the result of ``find``
        :param request: the job; its id and the metadata of the try are set here
        :param prepare: uploads its files to the cluster; called only before a submission
        :return: the job that the try waits for, and whether it already existed
        """
        while True:
            ready = await prepare(
                replace(
                    request,
                    submission_id=found.submission_id,
                    metadata={**request.metadata, **self.this.metadata()},
                )
            )
            if await self.api.submit(ready):
                return found, False
            # Another worker with the same try was faster, or the answer to a submission was lost.
            found = await self.find(found.attempt)
            if found.job is not None:
                return found, True


async def stop_and_wait(api: JobsApi, submission_id: str, timeout: float = STOP_SECONDS) -> None:
    """Stop a job and wait until it has ended; a job that does not exist counts as ended.

    :param api: Jobs API of the cluster
    :param submission_id: the job
    :param timeout: seconds to wait
    :raises JobNotStoppedError: the job is still active after ``timeout`` seconds
    """
    try:
        await api.stop(submission_id)
    except JobNotFoundError:
        return
    await wait_until_stopped(api, submission_id, timeout)


async def wait_until_stopped(api: JobsApi, submission_id: str, timeout: float = STOP_SECONDS) -> None:
    """Wait until a job that was just asked to stop has ended; the request is repeated, as Ray may lose one.

    The parameters and errors are those of ``stop_and_wait``.
    """
    requested = time.monotonic()
    deadline = requested + timeout
    pause = 0.1
    try:
        while True:
            if time.monotonic() - requested >= STOP_AGAIN:
                await api.stop(submission_id)
                requested = time.monotonic()
            job = await api.get(submission_id)
            if job.status.is_terminal:
                return
            if time.monotonic() > deadline:
                raise JobNotStoppedError(
                    f"Ray job {submission_id} is still {job.status.value} {timeout:.0f} s after the stop request.",
                    {"submission_id": submission_id, "status": job.status.value},
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
    except JobNotFoundError:
        return
