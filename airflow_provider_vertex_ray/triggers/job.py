"""Waiting for a job: its output as it comes, its status by id, its deadlines, its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.cluster_state import ClusterState
from airflow_provider_vertex_ray.deadlines import seconds_left
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    JobLostError,
    JobNotFoundError,
    JobPendingTimeoutError,
    JobTimeoutError,
    OperationTimeoutError,
    RateLimitedError,
    ServiceUnavailableError,
    VertexRayError,
)
from airflow_provider_vertex_ray.job_state import Job, JobStatus
from airflow_provider_vertex_ray.triggers.base import WaitTrigger

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.api.job_logs import JobLog
    from airflow_provider_vertex_ray.api.jobs import JobsApi


class VertexRayJobTrigger(WaitTrigger):
    """Waits for the end of a job; the result is ``Job.summary()`` with ``logs_tail`` and ``result``.

    :param cluster_name: Full resource name of the cluster.
    :param submission_id: The job.
    :param dashboard_uri: The cluster's ``RAY_DASHBOARD_URI`` where it is known.
    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain.
    :param poll_interval: Seconds between two status requests at most; the first ones come sooner, and one comes
        whenever the log's connection ends.
    :param pending_deadline: Unix time by which the driver must have started; else the job is stopped.
    :param deadline: Unix time by which the job must have ended; else it is stopped.
    :param lost_timeout: Seconds for which a job that the cluster does not know, or a cluster that does not answer, is
        waited for.
    :param stream_logs: Whether the job's output goes to the task's log as it comes.
    :param raise_on_failure: Whether a job that ended in FAILED or STOPPED is an error or a result.
    :param stop_at_deadline: Whether a job that passes its deadline is stopped (ours), or only not waited for.
    :param carry: JSON that is handed back in the event as it is.

    Errors: JobFailedError, JobStoppedError, JobLostError, JobPendingTimeoutError, JobTimeoutError,
    OperationTimeoutError (when the job is not stopped at its deadline).
    """

    def __init__(
        self,
        *,
        cluster_name: str,
        submission_id: str,
        dashboard_uri: str | None = None,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        poll_interval: float = 15.0,
        pending_deadline: float | None = None,
        deadline: float | None = None,
        lost_timeout: float = 600.0,
        stream_logs: bool = True,
        raise_on_failure: bool = True,
        stop_at_deadline: bool = True,
        carry: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            cluster_name=cluster_name,
            submission_id=submission_id,
            dashboard_uri=dashboard_uri,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            poll_interval=poll_interval,
            pending_deadline=pending_deadline,
            deadline=deadline,
            lost_timeout=lost_timeout,
            stream_logs=stream_logs,
            raise_on_failure=raise_on_failure,
            stop_at_deadline=stop_at_deadline,
            carry=carry,
        )
        self.cluster_name = cluster_name
        self.submission_id = submission_id
        self._pending_deadline = pending_deadline
        self._deadline = deadline
        self._lost_timeout = lost_timeout
        self._poll_interval = poll_interval
        self._status: JobStatus | None = None

    async def wait(self) -> dict[str, Any]:
        """Follow the job to its end."""
        from airflow_provider_vertex_ray.api.job_logs import JobLog
        from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook

        hook = VertexRayJobAsyncHook(self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"])
        async with hook.jobs(self.cluster_name, self.arguments["dashboard_uri"]) as api:
            log = JobLog(api, self.submission_id, self._say if self.arguments["stream_logs"] else None)
            log.start()
            try:
                job = await self._until_ended(api, log)
                await log.finish()
            finally:
                await log.cancel()
        lines = list(log.last_lines)
        if job.status is not JobStatus.SUCCEEDED and self.arguments["raise_on_failure"]:
            raise job.failure(lines)
        return {**job.summary(), "logs_tail": lines, "result": log.result}

    def _say(self, line: str) -> None:
        self.log.info("%s", line)

    async def _until_ended(self, api: JobsApi, log: JobLog) -> Job:
        interval = min(1.0, self._poll_interval)
        unread_since: float | None = None
        while True:
            try:
                job = await api.get(self.submission_id, attempts=1)
                unread_since = None
                self._note(job)
                if job.status.is_terminal:
                    return job
                await self._check_deadlines(api, job)
            except (ServiceUnavailableError, RateLimitedError, JobNotFoundError) as error:
                unread_since = unread_since or time.time()
                await self._check_lost(unread_since, error)
                await self._check_deadlines(api, None)
            log.closed.clear()
            left = min(seconds_left(self._deadline), seconds_left(self._pending_deadline_of(self._status)))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(log.closed.wait(), max(0.1, min(interval, left)))
            interval = min(interval * 1.5, self._poll_interval)

    def _note(self, job: Job) -> None:
        if job.status is not self._status:
            self._status = job.status
            self.log.info("Ray job %s is %s", self.submission_id, job.status.value)

    def _pending_deadline_of(self, status: JobStatus | None) -> float | None:
        return self._pending_deadline if status in (None, JobStatus.PENDING) else None

    async def _check_deadlines(self, api: JobsApi, job: Job | None) -> None:
        """Raise when one has passed.

        :param job: The job as it is; None while it can not be read.
        """
        status = job.status if job else self._status
        details = {"submission_id": self.submission_id}
        if seconds_left(self._deadline) <= 0:
            state = status.value if status else "not known"
            if not self.arguments["stop_at_deadline"]:
                raise OperationTimeoutError(
                    f"Ray job {self.submission_id} did not end in time; its status is {state}, and it goes on.", details
                )
            stopped = await self._stop(api)
            raise JobTimeoutError(f"Ray job {self.submission_id} did not end in time; {stopped}.", details)
        if seconds_left(self._pending_deadline_of(status)) <= 0:
            stopped = await self._stop(api)
            raise JobPendingTimeoutError(
                f"The driver of Ray job {self.submission_id} was not started within pending_timeout; {stopped}. "
                f"Ray says: {job.message if job else 'nothing'}",
                details,
            )

    async def _stop(self, api: JobsApi) -> str:
        """Ask the job to stop; says what came of it."""
        try:
            await api.stop(self.submission_id)
        except VertexRayError as error:
            return f"it could not be stopped: {error.message}"
        return "it was told to stop"

    async def _check_lost(self, since: float, error: VertexRayError) -> None:
        """Decide whether a job that can not be read is lost: at once when its cluster is, else after a time."""
        from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook

        self.log.warning("Ray job %s can not be read for the moment: %s", self.submission_id, error)
        hook = VertexRayClusterAsyncHook(self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"])
        details = {"submission_id": self.submission_id, "cluster": self.cluster_name}
        try:
            cluster = await hook.get_cluster(self.cluster_name)
        except ClusterNotFoundError:
            raise JobLostError(
                f"Ray job {self.submission_id} is lost: its cluster {self.cluster_name} was deleted.", details
            ) from None
        except VertexRayError as unreadable:
            self.log.warning("The cluster can not be read either: %s", unreadable)
        else:
            if cluster.state in (ClusterState.ERROR, ClusterState.STOPPING):
                why = f" ({cluster.error_message})" if cluster.error_message else ""
                raise JobLostError(
                    f"Ray job {self.submission_id} is lost: its cluster is {cluster.state.value}{why}.",
                    details,
                )
        waited = time.time() - since
        if waited > self._lost_timeout:
            raise JobLostError(
                f"Ray job {self.submission_id} is lost: for {waited:.0f} s it could not be read. Last: {error.message}",
                details,
            )
