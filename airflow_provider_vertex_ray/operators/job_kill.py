"""What a kill of a task in the worker does: it stops the task's job, and a job that is being submitted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_vertex_ray.core.deadlines import finishing
from airflow_provider_vertex_ray.core.job.state import OWNER_KEY
from airflow_provider_vertex_ray.errors import JobNotFoundError, JobStoppedError, VertexRayError

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.http.transport import Transport
    from airflow_provider_vertex_ray.core.job.client import JobsApi
    from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator

    Base = VertexRayBaseOperator
else:
    Base = object

T = TypeVar("T")

ANSWER_SECONDS = 10.0
"""Seconds to wait for the answer to a submission whose task ends meanwhile.

Ray goes on with it, so there is a job to stop. The first submission to a cluster takes some seconds."""


@dataclass(frozen=True)
class Line:
    """A way to the Jobs API of a cluster without a question to Airflow.

    The main thread, which a kill has interrupted, may be in the midst of one, and keep its lock until it goes on.

    :param transport: transport of the submission, whose token is used again.
    :param dashboard: address of the dashboard.
    """

    transport: Transport
    dashboard: str

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[JobsApi]:
        """Open the Jobs API in the event loop of another thread than the submission's."""
        from airflow_provider_vertex_ray.core.job.client import JobsApi

        async with self.transport.for_another_loop() as transport:
            yield JobsApi(transport, transport.addresses.dashboard(self.dashboard))


@dataclass(frozen=True)
class KnownJob:
    """The job that a kill stops.

    :param cluster: full name of the cluster.
    :param submission_id: ID of the job, which may not have been submitted yet.
    :param owner: owner that the job must have; empty if it can only be this task's.
    :param line: the way to it; None if it is not known yet.
    """

    cluster: str
    submission_id: str
    owner: str = ""
    line: Line | None = None


class JobKillMixin(Base):
    """Stops the job of a task that is killed while it looks for the job, submits it, or waits for it in the worker."""

    stop_on_kill: bool

    _killed = False
    _job: KnownJob | None = None
    _sent = False
    """Whether the submission may have been sent."""

    def on_kill(self) -> None:
        """Stop the job of this task, and no other, when the task is killed in the worker."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        # First, because the submission goes on meanwhile.
        self._killed = True
        run_sync(self._stop_job)

    async def _stop_job(self) -> None:
        if self._job is None or not self.stop_on_kill:
            return
        try:
            await self._stop(self._job)
        except VertexRayError as error:
            self.log.warning("Could not stop Ray job %s after the kill: %s", self._job.submission_id, error)
        else:
            # Last, because the thread that the kill interrupted may be writing to the log, and keep its lock.
            self.log.info("The task was killed; stop of Ray job %s requested", self._job.submission_id)

    async def _stop(self, job: KnownJob) -> None:
        async with job.line.open() if job.line else self.job_hook.jobs(job.cluster) as api:
            if job.owner:
                found = await api.find(job.submission_id)
                if found is None or found.metadata.get(OWNER_KEY) != job.owner:
                    return
            # While the code is still being uploaded there is no job, and there will be none.
            with contextlib.suppress(JobNotFoundError):
                await api.stop(job.submission_id)

    def _about_to_submit(self, job: KnownJob, sent: bool) -> None:
        """Remember what a kill has to stop.

        :param job: the job.
        :param sent: whether the submission comes next.
        :raises JobStoppedError: the task was killed; it must submit nothing.
        """
        self._job = job
        if self._killed:
            raise JobStoppedError("The task was killed before it had submitted its Ray job.")
        self._sent = sent

    async def _unless_killed(self, start: Coroutine[None, None, T]) -> T:
        """Await the start of the job, and stop the job if the task is killed or timed out meanwhile.

        :raises JobStoppedError: the task was killed.
        """
        try:
            started = await finishing(start, self._cancelled)
        except asyncio.CancelledError:
            await self._stop_job()
            raise
        if self._killed and self.stop_on_kill:
            await self._stop_job()
            raise JobStoppedError("The task was killed while it was submitting its Ray job.")
        return started

    def _cancelled(self) -> float:
        """Return the seconds for which the start of the job goes on: Airflow 2's kill and timeouts cancel it."""
        self._killed = True
        return ANSWER_SECONDS if self._sent and self.stop_on_kill else 0.0
