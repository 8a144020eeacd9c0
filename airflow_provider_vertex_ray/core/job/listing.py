"""The list of all jobs of a cluster, which Ray neither pages nor shortens: read as a stream, in bounded memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from airflow_provider_vertex_ray.core.http.body import TooLargeError
from airflow_provider_vertex_ray.core.http.decoding import SLICE, ArrayReader
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.answers import JobAnswer, JobUseAnswer
from airflow_provider_vertex_ray.core.job.dashboard_errors import dashboard_error
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.errors import ServiceUnavailableError

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
        self, kind: type[T], job_of: Callable[[T], Job], take: Callable[[Job], None], restart: Callable[[], None]
    ) -> None:
        """Read the list, several times if need be.

        :param kind: the model of a job
        :param job_of: returns the job that an answer describes
        :param take: receives each job
        :param restart: called before each attempt
        """
        for attempt in range(1, LIST_ATTEMPTS + 1):
            restart()
            try:
                await self._read(ArrayReader(kind), lambda answer: take(job_of(answer)))
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
