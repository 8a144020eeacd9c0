"""The list of all jobs of a cluster, which Ray neither pages nor shortens: read as a stream, in bounded memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeVar

from airflow_provider_vertex_ray.core.http.body import TooLargeError
from airflow_provider_vertex_ray.core.http.decoding import SLICE, ArrayReader
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.answers import JobAnswer, JobUseAnswer
from airflow_provider_vertex_ray.core.job.dashboard_errors import dashboard_error
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.errors import ServiceUnavailableError, UnreadableAnswerError

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_LISTED = 20_000
"""Maximum number of jobs that are listed. Ray keeps all jobs of a cluster for good."""

MOST_ACTIVE = 1_000
"""Maximum number of active jobs that are kept to tell whether a cluster is in use."""

LONGEST_LISTED_MESSAGE = 2_000
"""Characters of a listed job's message; Ray appends up to 20,000 characters of its output to that of a failed one."""

MAX_LIST_BYTES = 1 << 30
"""Maximum size in bytes of the list of all jobs, which is read as a stream."""

LIST_TIMEOUT = 180.0
"""Seconds for one attempt to read the list of all jobs."""

LIST_ATTEMPTS = 3
"""Attempts to read the list of all jobs."""


class Listed(NamedTuple):
    """Some of the jobs of a cluster.

    :param jobs: the jobs by their submission IDs
    :param unreadable: those that exist, but whose entries cannot be read, and why
    """

    jobs: dict[str, Job]
    unreadable: dict[str, UnreadableAnswerError]


class JobListing:
    """Reads the list of all jobs of one cluster; see the methods of ``JobsApi``.

    :param transport: the connection
    :param url: URL of the list
    """

    def __init__(self, transport: Transport, url: str) -> None:
        self._transport = transport
        self._url = url

    async def all(self, *, drivers: bool) -> list[Job]:
        """Return all jobs, and the drivers if they are asked for."""
        found: list[Job] = []

        def take(job: Job) -> None:
            if drivers or not job.is_driver:
                found.append(job)
            if len(found) > MOST_LISTED:
                raise TooLargeError(f"The cluster has more than {MOST_LISTED} jobs.")

        await self._each(JobAnswer, _listed, take, found.clear)
        return found

    async def newest(self, most: int) -> list[Job]:
        """Return the active jobs and drivers, then the newest ones, in all at most ``most``."""
        found: list[Job] = []

        def shorten() -> None:
            found.sort(key=lambda job: (job.status.is_terminal, -(job.start_time or 0)))
            del found[most:]

        def take(job: Job) -> None:
            found.append(job)
            if len(found) >= 2 * most:
                shorten()

        await self._each(JobAnswer, _listed, take, found.clear)
        shorten()
        return found

    async def some(self, wanted: Callable[[JobAnswer], bool], needed: Callable[[str], bool]) -> Listed:
        """Return the jobs for which ``wanted`` holds, however many others there are.

        An entry that cannot be read, such as one of more than 1 MiB, does not make the others unreadable: everybody
        who may submit a job to the cluster could end all waits on it.

        :param wanted: tells which jobs to return
        :param needed: tells by its ID whether a job whose entry cannot be read may be one of them
        """
        found = Listed({}, {})

        def spare(submission_id: str | None, error: UnreadableAnswerError) -> bool:
            # The cluster names each job that was submitted; a driver has no ID.
            if submission_id is not None and needed(submission_id):
                text = f"The entry of Ray job {submission_id} in the list of jobs could not be read: {error.message}"
                found.unreadable[submission_id] = UnreadableAnswerError(text, {"submission_id": submission_id})
            else:
                log.debug("Skipping the entry of job %s in %s: %s", submission_id, self._url, error.message)
            return True

        def take(job: Job) -> None:
            found.jobs[job.submission_id] = job

        def restart() -> None:
            found.jobs.clear()
            found.unreadable.clear()

        await self._each(JobAnswer, lambda answer: _listed(answer) if wanted(answer) else None, take, restart, spare)
        return found

    async def in_use(self) -> list[Job]:
        """Return the active jobs and drivers, and the one that ended last."""
        active: list[Job] = []
        last: list[Job] = []

        def take(job: Job) -> None:
            if not job.status.is_terminal:
                if len(active) < MOST_ACTIVE:
                    active.append(job)
            elif not last or (job.end_time or 0) > (last[0].end_time or 0):
                last[:] = [job]

        def restart() -> None:
            active.clear()
            last.clear()

        await self._each(JobUseAnswer, Job.in_use, take, restart)
        return [*active, *last]

    async def _each(
        self,
        kind: type[T],
        job_of: Callable[[T], Job | None],
        take: Callable[[Job], None],
        restart: Callable[[], None],
        spare: Callable[[str | None, UnreadableAnswerError], bool] | None = None,
    ) -> None:
        """Read the list, several times if need be.

        :param kind: the model of a job
        :param job_of: returns the job that an answer describes; None to skip it
        :param take: receives each job
        :param restart: called before each attempt
        :param spare: see ``ArrayReader``
        """

        def note(answer: T) -> None:
            job = job_of(answer)
            if job is not None:
                take(job)

        for attempt in range(1, LIST_ATTEMPTS + 1):
            restart()
            try:
                await self._read(ArrayReader(kind, spare, "submission_id", self._transport.redact), note)
                return
            except ServiceUnavailableError as error:
                if attempt == LIST_ATTEMPTS or isinstance(error, TooLargeError):
                    raise
                log.info("Could not read %s; retrying: %s", self._url, error.message)
                await self._transport.back_off(attempt)

    async def _read(self, reader: ArrayReader[T], take: Callable[[T], None]) -> None:
        opened = self._transport.stream(
            self._url, error_from=dashboard_error, timeout=LIST_TIMEOUT, max_bytes=MAX_LIST_BYTES
        )
        async with opened as pieces:
            async for piece in pieces:
                for start in range(0, len(piece), SLICE):
                    for answer in reader.feed(piece[start : start + SLICE]):
                        take(answer)
                    await asyncio.sleep(0)
        for answer in reader.finish():
            take(answer)


def _listed(answer: JobAnswer) -> Job:
    job = Job.of(answer)
    if len(job.message) <= LONGEST_LISTED_MESSAGE:
        return job
    return replace(job, message=f"{job.message[:LONGEST_LISTED_MESSAGE]}…")
