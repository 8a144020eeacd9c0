"""Requests for the jobs of a task that runs many: submit the next ones, and stop all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.core.job.batch import JOB_KEY, REJECTED_KEY, BatchPlan, JobRow, rejected_text
from airflow_provider_vertex_ray.core.job.client import JobRequest, JobsApi
from airflow_provider_vertex_ray.core.job.listing import Listed
from airflow_provider_vertex_ray.core.job.submission import STOP_AGAIN
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    JobNotFoundError,
    ServiceUnavailableError,
    UnreadableAnswerError,
    VertexRayError,
)

T = TypeVar("T")

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Number of concurrent requests for the jobs of one task."""

LIST_SECONDS = 4.0
"""Seconds for the list of jobs before each of the jobs that are to be stopped is asked without it. Airflow allows
``on_kill`` 30."""

LOOK_AGAIN = 0.5
"""Seconds between two looks at jobs that were asked to stop."""


async def each(items: Iterable[T], call: Callable[[T], Awaitable[None]]) -> None:
    """Call a function for each item, ``AT_ONCE`` of them concurrently; raise its first error once all have ended."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> None:
        async with gate:
            await call(item)

    for outcome in await asyncio.gather(*map(one, items), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


@dataclass
class Submitter:
    """Submits the jobs of a plan.

    :param api: Jobs API of the cluster
    :param plan: the plan
    """

    api: JobsApi
    plan: BatchPlan

    def __post_init__(self) -> None:
        self.rejected: set[int] = set()
        """Places of the jobs that the cluster has rejected, which each further job tells another triggerer."""
        self._variables: dict[str, dict[str, str]] = {}

    def request(self, place: int, row: JobRow) -> JobRequest:
        """Return the request for a job.

        :param place: its place in the list
        :param row: the job
        """
        cpus, gpus, memory, resources = row.reservation
        common = self.plan.metadata or {}
        own = {JOB_KEY: self.plan.batch.keys[place], **self.plan.this.metadata()}
        if self.rejected:
            own[REJECTED_KEY] = rejected_text(self.rejected)
        return JobRequest(
            entrypoint=row.entrypoint,
            submission_id=self.plan.job_id(place),
            runtime_env=row.runtime_env,
            metadata={**common, **row.metadata, **own},
            num_cpus=cpus,
            num_gpus=gpus,
            memory=memory,
            resources=resources,
        )

    async def submit(self, place: int, row: JobRow) -> bool:
        """Submit a job, unless it is on the cluster already.

        :param place: its place in the list
        :param row: the job
        :return: False if its secrets are no longer on the cluster
        :raises VertexRayError: it could not be submitted
        """
        if row.hidden:
            if row.hidden_in not in self._variables:
                try:
                    self._variables[row.hidden_in] = await self.api.variables(row.hidden_in)
                except JobNotFoundError:
                    return False
                except InvalidRequestError as error:
                    # It says nothing about the job that is to be submitted.
                    raise UnreadableAnswerError(error.message, error.details) from None
            known = self._variables[row.hidden_in]
            if not known.keys() >= set(row.hidden):
                return False
            variables = {**(row.runtime_env.get("env_vars") or {}), **{name: known[name] for name in row.hidden}}
            row = replace(row, runtime_env={**row.runtime_env, "env_vars": variables})
        await self.api.submit(self.request(place, row))
        return True


async def stop_all(
    api: JobsApi, submission_ids: Collection[str], seconds: float, *, submitting: bool = True, at_once: bool = False
) -> list[str]:
    """Stop the active ones of some jobs, and wait until they have ended.

    While the list of jobs cannot be read, each of them is asked to stop: that harms none that has ended.

    :param api: Jobs API of the cluster
    :param submission_ids: the jobs; those that do not exist or have ended are skipped
    :param seconds: seconds to wait
    :param submitting: whether one of them may just have been submitted, so that it appears a moment later
    :param at_once: whether to ask each of them to stop, in their order, while the list is read for the first time: for
        a caller that may have few seconds left
    :return: IDs of those that are still active after that time
    :raises VertexRayError: jobs may still be active after that time, but the list of jobs could not be read
    """
    deadline = time.monotonic() + seconds
    asked: dict[str, float] = {}
    over: set[str] = set()
    missing: set[str] = set()
    quiet = 0
    longest = LIST_SECONDS

    async def stop(submission_id: str) -> None:
        try:
            if not await api.stop(submission_id, attempts=1):
                over.add(submission_id)
            missing.discard(submission_id)
        except JobNotFoundError:
            missing.add(submission_id)
        except VertexRayError as error:
            # Asked again with the next look.
            log.debug("Could not stop Ray job %s: %s", submission_id, error)
            return
        asked[submission_id] = time.monotonic()

    async def look() -> Listed:
        try:
            return await within(longest, api.list_ids(submission_ids))
        except asyncio.TimeoutError:
            raise ServiceUnavailableError(f"The list of jobs was not read within {longest:.0f} s.") from None

    async def look_and_stop() -> Listed:
        stopping = asyncio.ensure_future(each(submission_ids, stop))
        try:
            return await look()
        finally:
            # Those whose answers are still missing are asked again, if the list says that they are active.
            stopping.cancel()
            await asyncio.wait({stopping})

    while True:
        unread: VertexRayError | None = None
        try:
            found = await (look_and_stop() if at_once else look())
        except VertexRayError as error:
            log.warning("Could not read the list of Ray jobs; asking each of this task's to stop: %s", error.message)
            unread = error
            active = [each_id for each_id in submission_ids if each_id not in over]
        else:
            active = [job.submission_id for job in found.jobs.values() if not job.status.is_terminal]
            active += [each_id for each_id in found.unreadable if each_id not in over]
        at_once = False
        quiet = 0 if active else quiet + 1
        if quiet > submitting:
            return []
        now = time.monotonic()
        if now > deadline and unread is None:
            return active
        # Ray may lose a stop request.
        due = [each_id for each_id in active if now - asked.get(each_id, -STOP_AGAIN) >= STOP_AGAIN]
        if unread is None:
            await each(due, stop)
        else:
            # The requests may hang as the list does.
            with contextlib.suppress(asyncio.TimeoutError):
                await within(max(deadline - now, LIST_SECONDS), each(due, stop))
            if now > deadline:
                if missing.issuperset(active):
                    return []
                raise unread
        # A long list may just take longer.
        longest = max(LIST_SECONDS, deadline - time.monotonic())
        await asyncio.sleep(LOOK_AGAIN)
