"""Waiting for a job: its output as it comes, its status by id, its deadlines, its end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.deadlines import seconds_left, span, within
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.errors import (
    JobLostError,
    JobNotFoundError,
    JobOutputError,
    JobPendingTimeoutError,
    JobTimeoutError,
    NotStorableError,
    OperationTimeoutError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers.job_cluster import KILL_SECONDS, JobWaitTrigger, waited_out
from airflow_provider_vertex_ray.triggers.job_pace import Pace, take_turn
from airflow_provider_vertex_ray.triggers.log_position import LogPosition

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.client import JobsApi
    from airflow_provider_vertex_ray.core.job.log_follower import JobLog
    from airflow_provider_vertex_ray.triggers.log_fallback import LastLines


FIRST_SECONDS = 10.0
"""Seconds after the deferral in which a trigger must be the first of its wait: no triggerer is replaced so soon."""


class VertexRayJobTrigger(JobWaitTrigger):
    """Wait for the end of a job; the result is ``Job.summary()`` with ``logs_tail`` and ``result``.

    :param cluster_name: full resource name of the cluster.
    :param submission_id: submission id of the job.
    :param dashboard_uri: the cluster's ``RAY_DASHBOARD_URI``, if it is known.
    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param poll_interval: seconds between two status requests at most; see ``job_pace.Pace`` for shorter pauses.
    :param pending_deadline: Unix time by which the driver must have started; otherwise the job is stopped.
    :param deadline: Unix time by which the job must have ended; otherwise it is stopped.
    :param lost_timeout: seconds after which a job that cannot be read counts as lost, because the cluster does not
        know it, does not answer, or refuses the request.
    :param stream_logs: whether to copy the job's output to the task's log as it arrives.
    :param raise_on_failure: whether a job that ended in FAILED or STOPPED is an error; otherwise it is a result.
    :param stop_at_deadline: whether to stop the job at its deadline; otherwise only the wait ends.
    :param stop_on_kill: whether to stop the job when the waiting task is marked failed or successful, or is cleared.
    :param begun: Unix time at which the task began to wait. A trigger that starts much later has taken over from
        another one, and reads how much of the output is already in the task's log.
    :param lease: the lease to renew meanwhile: ``uri``, ``cluster``, ``owner``, ``scope`` and ``ttl``; None for none.
    :param passthrough: JSON that is returned in the event unchanged.
    :param end: how the task ends without a worker; see ``WaitTrigger``.
    :raises JobFailedError: the job ended in FAILED.
    :raises JobStoppedError: the job ended in STOPPED.
    :raises NotStorableError: the job succeeded, but Airflow cannot store its result.
    :raises JobOutputError: the job succeeded, but its output could not be read to its end, so its result is unknown.
    :raises JobLostError: the cluster was deleted or failed, or the job could not be read for ``lost_timeout`` seconds.
    :raises JobPendingTimeoutError: the driver did not start before ``pending_deadline``.
    :raises JobTimeoutError: the job did not end before ``deadline``, and a stop request was sent.
    :raises OperationTimeoutError: the job did not end before ``deadline``, and ``stop_at_deadline`` is False.
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
        end: dict[str, Any] | None = None,
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
            end=end,
        )
        self.submission_id = submission_id
        self._pending_deadline = pending_deadline
        self._deadline = deadline
        self._poll_interval = poll_interval
        self._status: JobStatus | None = None
        self._hidden: Sequence[str] = ()
        self._begun: float | None = None
        self._output: JobLog | None = None
        self._log_position = LogPosition(None, submission_id)

    async def wait(self) -> dict[str, Any]:
        """Follow the job to its end; the last lines of a lost job come from Cloud Logging."""
        try:
            job, output = await self._follow()
        except JobLostError as error:
            # Only now, because a log that is still open would keep looking for the cluster.
            raise (await self._last_lines()).of(error) from error
        lines = list(output.last_lines)
        if self.arguments["raise_on_failure"]:
            if job.status is not JobStatus.SUCCEEDED:
                raise await self._failure(job, lines, output.result)
            self._check_output(output)
        return {**job.summary(), "logs_tail": lines, "result": output.result}

    def _check_output(self, output: JobLog) -> None:
        """Raise if the job succeeded, but its result is not known or cannot be stored."""
        details = {"submission_id": self.submission_id, "logs_tail": list(output.last_lines)}
        if output.result_error is not None:
            raise self._of_job(output.result_error, details)
        if output.problem and output.result is None:
            raise JobOutputError(
                f"Ray job {self.submission_id} succeeded, but its output could not be read to its end: "
                f"{output.problem}",
                details,
            )

    def _of_job(self, error: NotStorableError, details: dict[str, Any]) -> NotStorableError:
        message = f"Ray job {self.submission_id} succeeded, but what it returned cannot be stored: {error.message}"
        return NotStorableError(message, {**error.details, **details})

    def on_not_storable(self, error: NotStorableError) -> VertexRayError:
        """Return the error of a job whose summary cannot be stored."""
        return self._of_job(error, {"submission_id": self.submission_id})

    async def _follow(self) -> tuple[Job, JobLog]:
        """Return the ended job and its output, which is read to its end and closed."""
        self._log_position = LogPosition(getattr(self, "task_instance", None), self.submission_id)
        # The session is held before the turn: otherwise it would be closed and reopened between two turns.
        async with self._hook.session():
            started = await take_turn()
            try:
                async with self._jobs() as api, self._renewed_lease():
                    job = await self._until_ended(api, started)
                    if self._output is None:
                        self._output = await self._open_log(api, job)
                    await self._output.finish()
                    job = await self._with_exit_code(api, job)
                    self.log.info("%s", _closing_line(job))
                    return job, self._output
            except asyncio.CancelledError:
                if self._output is not None:
                    await self._log_position.keep(self._output.position)
                raise
            finally:
                started()
                if self._output is not None:
                    await self._output.cancel()

    @staticmethod
    async def _with_exit_code(api: JobsApi, job: Job) -> Job:
        from airflow_provider_vertex_ray.core.job.exit_code import with_exit_code

        return await with_exit_code(api, job)

    async def _failure(self, job: Job, lines: list[str], result: Any) -> VertexRayError:
        """Return the error of a failed or stopped job, with output from Cloud Logging if the cluster has none."""
        if lines or job.status is not JobStatus.FAILED:
            return job.failure(lines, result)
        found = await self._last_lines()
        error = job.failure(found.lines, result)
        return type(error)(found.note(error.message), error.details)

    async def _last_lines(self) -> LastLines:
        """Return the last lines of the output when the cluster cannot be asked."""
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
        """Stop this job, and no other.

        :raises JobNotStoppedError: the job is still running.
        """
        if not self.arguments["stop_on_kill"]:
            return
        from airflow_provider_vertex_ray.core.job.submission import stop_and_wait

        self.log.info("The task was killed; stopping Ray job %s", self.submission_id)
        async with self._jobs() as api:
            await stop_and_wait(api, self.submission_id, KILL_SECONDS)

    async def _open_log(self, api: JobsApi, job: Job) -> JobLog:
        from airflow_provider_vertex_ray.core.job.log_follower import JobLog

        emit = self._emit if self.arguments["stream_logs"] else None
        begun = self.arguments["begun"]
        taken_over = begun is None or time.time() - begun > FIRST_SECONDS
        position = await self._log_position.kept() if emit and taken_over else 0
        output = JobLog(api, self.submission_id, emit, hidden=job.hidden, position=position)
        output.node_id = job.node_id
        return output

    def _emit(self, line: str) -> None:
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
                    if self._output is not None:
                        self._output.node_id = job.node_id
                    if job.status.is_terminal:
                        return job
                    begin = min(begin, (job.start_time or math.inf) / 1000)
                    if self._output is None:
                        self._output = await self._open_log(api, job)
                        self._output.start()
                        # The log connection opens in the background, within milliseconds.
                        asyncio.get_running_loop().call_later(0.02, started)
                    await self._check_deadlines(api, job)
                except VertexRayError as error:
                    if not (isinstance(error, JobNotFoundError) or waited_out(error)):
                        raise
                    unread_since = unread_since or time.time()
                    if await self._check_lost(api, unread_since, error):
                        unread_since = None
                    await self._check_deadlines(api, None)
                left = min(seconds_left(self._deadline), seconds_left(self._pending_deadline_of(self._status)))
                await pace.pause(time.time() - begin, left, self._output)
                if self._output is not None:
                    await self._log_position.keep_now_and_then(self._output.position)

    def _note(self, job: Job) -> None:
        self._hidden = job.hidden
        self._begun = job.start_time / 1000 if job.start_time else None
        if job.status is not self._status:
            self._status = job.status
            if not job.status.is_terminal:
                self.log.info("Ray job %s is %s", self.submission_id, job.status.value)

    def _pending_deadline_of(self, status: JobStatus | None) -> float | None:
        return self._pending_deadline if status in (None, JobStatus.PENDING) else None

    async def _check_deadlines(self, api: JobsApi, job: Job | None) -> None:
        """Raise the error of a deadline that has passed.

        :param job: the job; None while it cannot be read.
        """
        status = job.status if job else self._status
        details = {"submission_id": self.submission_id}
        if seconds_left(self._deadline) <= 0:
            state = status.value if status else "unknown"
            if not self.arguments["stop_at_deadline"]:
                raise OperationTimeoutError(
                    f"Timed out waiting for Ray job {self.submission_id}; its status is {state}, and it continues.",
                    details,
                )
            stopped = await self._stop(api)
            raise JobTimeoutError(f"Ray job {self.submission_id} did not end before its deadline; {stopped}.", details)
        if seconds_left(self._pending_deadline_of(status)) <= 0:
            nodes = await self._describe_nodes(api)
            stopped = await self._stop(api)
            raise JobPendingTimeoutError(
                f"The driver of Ray job {self.submission_id} did not start within pending_timeout; {stopped}. "
                f"{self._message_of(job)}{nodes}",
                details,
            )

    @staticmethod
    def _message_of(job: Job | None) -> str:
        return f"Ray's message: {job.message} " if job and job.message else ""

    async def _describe_nodes(self, api: JobsApi) -> str:
        """Describe the free resources of the cluster's nodes."""
        from airflow_provider_vertex_ray.core.job.capacity import free_resources

        try:
            return f"The cluster's nodes: {await free_resources(api)}."
        except VertexRayError as error:
            return f"The cluster's nodes could not be read: {error.message}."

    async def _stop(self, api: JobsApi) -> str:
        """Stop the job, and describe the outcome."""
        from airflow_provider_vertex_ray.core.job.submission import wait_until_stopped

        try:
            await api.stop(self.submission_id)
        except VertexRayError as error:
            return f"it could not be stopped: {error.message}"
        if self._status is JobStatus.RUNNING:
            # Ray may lose a single request, for example while the driver starts.
            with contextlib.suppress(VertexRayError, TimeoutError, asyncio.TimeoutError):
                await within(KILL_SECONDS, wait_until_stopped(api, self.submission_id, KILL_SECONDS))
        return "a stop request was sent"

    async def _check_lost(self, api: JobsApi, since: float, error: VertexRayError) -> bool:
        subject = f"Ray job {self.submission_id}"
        self.log.warning("Could not read the status of %s; retrying: %s", subject, error.message)
        return await self._check_cluster(api, since, error, subject, {"submission_id": self.submission_id})


def _closing_line(job: Job) -> str:
    """Return the last line of a job in the task's log, which comes after the job's own output."""
    seconds = job.duration_seconds
    after = "" if seconds is None else f" after {span(seconds)}"
    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    return f"Ray job {job.submission_id} is {job.status.value}{after}{code}"
