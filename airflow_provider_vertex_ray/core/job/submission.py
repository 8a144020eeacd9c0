"""Exactly one job for each attempt of a task: find what earlier tries left, and submit only what is not there."""

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
"""Jobs of one task instance on one cluster; a bound for the search, far above what retries and clears come to."""

STOP_SECONDS = 60.0
"""Seconds for which a superseded job may take to end; Ray kills a driver that ignores the stop after 3."""

STOP_AGAIN = 5.0
"""Seconds after which a job that goes on is told to stop once more: Ray answers before it has told the job, and never
says whether that worked. Longer than the 3 s that it leaves a driver between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class Found:
    """What the look for a task's job came to.

    :param attempt: The attempt that counts.
    :param submission_id: Its id.
    :param job: The job, if there is one: it runs (ADOPT) or has succeeded (RESULT). None: it is to be submitted.
    """

    attempt: int
    submission_id: str
    job: Job | None


@dataclass
class Submission:
    """A task's job on one cluster.

    :param api: The cluster's Jobs API.
    :param prefix: Submission id of the first attempt.
    :param this: The try that asks.
    :param notify: Gets a sentence for each thing that a user should know.
    """

    api: JobsApi
    prefix: str
    this: Try
    notify: Callable[[str], None] = field(default=log.info)

    async def find(self, first_attempt: int = 1) -> Found:
        """Look through the attempts for the one that this try is to wait for, or to submit.

        :param first_attempt: Where to begin.
        :raises SubmissionIdTakenError: One of the ids is used by a job that is not this task's.
        :raises JobNotStoppedError: A job whose task was cleared goes on in spite of being told to stop.
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
                self.notify(f"Ray job {job_id} is of a try that was cleared; stopping it")
                await stop_and_wait(self.api, job_id)
        raise InvalidArgumentError(
            "submission_id", self.prefix, f"all of its {MAX_ATTEMPTS} attempts are used up on this cluster"
        )

    async def submit(
        self, found: Found, request: JobRequest, prepare: Callable[[JobRequest], Awaitable[JobRequest]]
    ) -> tuple[Found, bool]:
        """Submit what ``find`` found missing.

        :param request: The job; its id and its metadata about the try are set here.
        :param prepare: Sends its files to the cluster; called only when something is submitted.
        :return: The job that the try is to wait for, and whether it was there before.
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
            # Somebody was quicker: another worker with the same try, or a submit whose answer was lost.
            found = await self.find(found.attempt)
            if found.job is not None:
                return found, True


async def stop_and_wait(api: JobsApi, submission_id: str, timeout: float = STOP_SECONDS) -> None:
    """Stop a job and return when it has ended. One that the cluster does not know counts as ended.

    :raises JobNotStoppedError: It goes on after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    pause = 0.1
    told = float("-inf")
    try:
        while True:
            if time.monotonic() - told >= STOP_AGAIN:
                await api.stop(submission_id)
                told = time.monotonic()
            job = await api.get(submission_id)
            if job.status.is_terminal:
                return
            if time.monotonic() > deadline:
                raise JobNotStoppedError(
                    f"Ray job {submission_id} was told to stop {timeout:.0f} s ago and is still {job.status.value}.",
                    {"submission_id": submission_id, "status": job.status.value},
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
    except JobNotFoundError:
        return
