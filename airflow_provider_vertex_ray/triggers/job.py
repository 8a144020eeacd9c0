"""Waiting for a job: its output as it comes, its status by id, its deadlines, its end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.state import ClusterState
from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
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
from airflow_provider_vertex_ray.triggers.base import WaitTrigger
from airflow_provider_vertex_ray.triggers.log_position import LogPosition
from airflow_provider_vertex_ray.triggers.polling import Pace, take_turn

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.client import JobsApi
    from airflow_provider_vertex_ray.core.job.log_follower import JobLog
    from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook
    from airflow_provider_vertex_ray.triggers.log_fallback import LastLines


FIRST_SECONDS = 10.0
"""Seconds after the deferral within which a trigger is the first of its wait; no triggerer is given up so soon."""

KILL_SECONDS = 20.0
"""Seconds in which a killed task's job has to end; Airflow leaves ``on_kill`` 30."""


class VertexRayJobTrigger(WaitTrigger):
    """Waits for the end of a job; the result is ``Job.summary()`` with ``logs_tail`` and ``result``.

    :param cluster_name: Full resource name of the cluster.
    :param submission_id: The job.
    :param dashboard_uri: The cluster's ``RAY_DASHBOARD_URI`` where it is known.
    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain.
    :param poll_interval: Seconds between two status requests at most; ``pace.Pace`` says which come sooner.
    :param pending_deadline: Unix time by which the driver must have started; else the job is stopped.
    :param deadline: Unix time by which the job must have ended; else it is stopped.
    :param lost_timeout: Seconds for which a job that the cluster does not know, or a cluster that does not answer, is
        waited for.
    :param stream_logs: Whether the job's output goes to the task's log as it comes.
    :param raise_on_failure: Whether a job that ended in FAILED or STOPPED is an error or a result.
    :param stop_at_deadline: Whether a job that passes its deadline is stopped (ours), or only not waited for.
    :param stop_on_kill: Whether the job is stopped when the task that waits is marked failed or successful, or cleared.
    :param begun: Unix time at which the task began to wait; a trigger that starts much later has taken over from
        another one, and asks how much of the output was shown.
    :param lease: What is renewed meanwhile: ``uri``, ``cluster``, ``owner`` and ``ttl``; None: no lease.
    :param passthrough: JSON that is handed back in the event as it is.

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
        stop_on_kill: bool = False,
        begun: float | None = None,
        lease: dict[str, Any] | None = None,
        passthrough: dict[str, Any] | None = None,
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
            stop_on_kill=stop_on_kill,
            begun=begun,
            lease=lease,
            passthrough=passthrough,
        )
        self.cluster_name = cluster_name
        self.submission_id = submission_id
        self._pending_deadline = pending_deadline
        self._deadline = deadline
        self._lost_timeout = lost_timeout
        self._poll_interval = poll_interval
        self._status: JobStatus | None = None
        self._hidden: Sequence[str] = ()
        self._begun: float | None = None
        self._output: JobLog | None = None
        self._shown = LogPosition(None, submission_id)

    async def wait(self) -> dict[str, Any]:
        """Follow the job to its end; a lost one's last lines come from elsewhere."""
        try:
            job, output = await self._follow()
        except JobLostError as error:
            # Only now: a log that is still open would go on to look for the cluster.
            raise (await self._last_lines()).of(error) from error
        lines = list(output.last_lines)
        if job.status is not JobStatus.SUCCEEDED and self.arguments["raise_on_failure"]:
            raise await self._failure(job, lines, output.result)
        return {**job.summary(), "logs_tail": lines, "result": output.result}

    async def _follow(self) -> tuple[Job, JobLog]:
        """The job at its end, and its output, which is read and closed."""
        self._shown = LogPosition(getattr(self, "task_instance", None), self.submission_id)
        # Who waits for a turn holds the session already: it would else be closed, and opened anew, between two turns.
        async with self._hook.session():
            started = await take_turn()
            try:
                async with self._jobs() as api, self._lease():
                    job = await self._until_ended(api, started)
                    if self._output is None:
                        self._output = await self._open_log(api, job)
                    await self._output.finish()
                    return job, self._output
            except asyncio.CancelledError:
                if self._output is not None:
                    await self._shown.keep(self._output.position)
                raise
            finally:
                started()
                if self._output is not None:
                    await self._output.cancel()

    async def _failure(self, job: Job, lines: list[str], result: Any) -> VertexRayError:
        """The error of a job that ended badly; if the cluster did not give its output, from Cloud Logging."""
        if lines or job.status is not JobStatus.FAILED:
            return job.failure(lines, result)
        found = await self._last_lines()
        error = job.failure(found.lines, result)
        return type(error)(found.note(error.message), error.details)

    async def _last_lines(self) -> LastLines:
        """What is known of the output when the cluster can not be asked."""
        from airflow_provider_vertex_ray.triggers.log_fallback import last_lines

        return await last_lines(
            self.arguments,
            self.cluster_name,
            self.submission_id,
            known=list(self._output.last_lines) if self._output else (),
            hidden=self._hidden,
            begun=self._begun,
        )

    async def killed(self) -> None:
        """Stop the job, and only that.

        :raises JobNotStoppedError: It goes on.
        """
        if not self.arguments["stop_on_kill"]:
            return
        from airflow_provider_vertex_ray.core.job.submission import stop_and_wait

        self.log.info("The task was killed; stopping Ray job %s", self.submission_id)
        async with self._jobs() as api:
            await stop_and_wait(api, self.submission_id, KILL_SECONDS)

    @property
    def _hook(self) -> VertexRayJobAsyncHook:
        from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook

        return VertexRayJobAsyncHook(self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"])

    def _jobs(self) -> contextlib.AbstractAsyncContextManager[JobsApi]:
        return self._hook.jobs(self.cluster_name, self.arguments["dashboard_uri"])

    @contextlib.asynccontextmanager
    async def _lease(self) -> AsyncIterator[None]:
        lease = self.arguments["lease"]
        if not lease:
            yield
            return
        from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
        from airflow_provider_vertex_ray.core.sharing.lease_store import heartbeat
        from airflow_provider_vertex_ray.hooks.lease import VertexRayLeaseAsyncHook

        hook = VertexRayLeaseAsyncHook(self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"])
        name = parse_cluster_name(lease["cluster"])
        async with hook.store(lease["uri"]) as store, heartbeat(store, name, lease["owner"], lease["ttl"]):
            yield

    async def _open_log(self, api: JobsApi, job: Job) -> JobLog:
        from airflow_provider_vertex_ray.core.job.log_follower import JobLog

        emit = self._say if self.arguments["stream_logs"] else None
        begun = self.arguments["begun"]
        taken_over = begun is None or time.time() - begun > FIRST_SECONDS
        position = await self._shown.kept() if emit and taken_over else 0
        return JobLog(api, self.submission_id, emit, hidden=job.hidden, position=position)

    def _say(self, line: str) -> None:
        self.log.info("%s", line)

    async def _until_ended(self, api: JobsApi, started: Callable[[], None]) -> Job:
        begin = time.time()
        unread_since: float | None = None
        with Pace(self._poll_interval) as pace:
            while True:
                try:
                    job = await api.get(self.submission_id, attempts=1)
                    unread_since = None
                    self._note(job)
                    if job.status.is_terminal:
                        return job
                    begin = min(begin, (job.start_time or math.inf) / 1000)
                    if self._output is None:
                        self._output = await self._open_log(api, job)
                        self._output.start()
                        # The log's connection is opened in the background, within a moment.
                        asyncio.get_running_loop().call_later(0.02, started)
                    await self._check_deadlines(api, job)
                except (ServiceUnavailableError, RateLimitedError, JobNotFoundError) as error:
                    unread_since = unread_since or time.time()
                    await self._check_lost(unread_since, error)
                    await self._check_deadlines(api, None)
                left = min(seconds_left(self._deadline), seconds_left(self._pending_deadline_of(self._status)))
                await pace.pause(time.time() - begin, left, self._output)
                if self._output is not None:
                    await self._shown.keep_now_and_then(self._output.position)

    def _note(self, job: Job) -> None:
        self._hidden = job.hidden
        self._begun = job.start_time / 1000 if job.start_time else None
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
            free = await self._free(api)
            stopped = await self._stop(api)
            raise JobPendingTimeoutError(
                f"The driver of Ray job {self.submission_id} was not started within pending_timeout; {stopped}. "
                f"Ray says: {job.message if job else 'nothing'} {free}".strip(),
                details,
            )

    async def _free(self, api: JobsApi) -> str:
        """What the cluster has, for a person."""
        from airflow_provider_vertex_ray.core.job.capacity import free_resources

        try:
            return f"The cluster's nodes: {await free_resources(api)}."
        except VertexRayError as error:
            return f"The cluster's nodes can not be read: {error.message}."

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
