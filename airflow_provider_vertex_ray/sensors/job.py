"""Sensor that waits for a job that another task or user submitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_vertex_ray.core.job.inputs import check_submission_id
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.errors import OperationTimeoutError, VertexRayError
from airflow_provider_vertex_ray.links.link_sets import JOB_LINKS
from airflow_provider_vertex_ray.operators.arguments import check_flags, check_strings
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.triggers.base import WaitTrigger


class VertexRayJobSensor(VertexRayBaseSensor):
    """Wait for the end of a job that another task or user submitted; returns ``Job.summary()``.

    The sensor never stops the job.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param submission_id: submission ID of the job. (templated)
    :param stream_logs: whether to copy the output of the job to the log of this task; only if deferrable.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises NotARayClusterError: the resource is not a Ray cluster.
    :raises JobNotFoundError: the cluster does not know the job.
    :raises JobFailedError: the job failed; carries its exit code, message and last lines of output.
    :raises JobStoppedError: the job was stopped.
    :raises JobLostError: the cluster no longer knows the job, or no longer answers.
    :raises AirflowSensorTimeout: the timeout expired.
    """

    template_fields: Sequence[str] = ("cluster_id", "submission_id", *VertexRayBaseSensor.connection_fields)
    operator_extra_links = JOB_LINKS
    timeout_errors = (OperationTimeoutError,)

    def __init__(
        self, *, cluster_id: str | None = None, submission_id: str, stream_logs: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        check_strings(submission_id=submission_id)
        check_submission_id(submission_id)
        check_flags(stream_logs=stream_logs)
        self.cluster_id = cluster_id
        self.submission_id = submission_id
        self.stream_logs = stream_logs

    def _check(self, context: Context) -> PokeReturnValue:
        """Check the status of the job."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        check_submission_id(self.submission_id)
        job = run_sync(lambda: self._look(context))
        self.log.info("Ray job %s is %s", self.submission_id, job.status.value)
        if not job.status.is_terminal:
            return PokeReturnValue(False)
        if job.status is not JobStatus.SUCCEEDED:
            raise run_sync(lambda: self._failure(job))
        return PokeReturnValue(True, job.summary())

    async def _failure(self, job: Job) -> VertexRayError:
        """Return the error of the job, with its last lines of output if Cloud Logging has them."""
        from airflow_provider_vertex_ray.triggers.log_fallback import last_lines

        if job.status is not JobStatus.FAILED:
            return job.failure()
        name = self._name(self.cluster_id).full
        begun = job.start_time / 1000 if job.start_time else None
        connection = self._connection_arguments()
        found = await last_lines(connection, name, self.submission_id, hidden=job.hidden, begun=begun)
        return job.failure(found.lines)

    async def _look(self, context: Context) -> Job:
        from airflow_provider_vertex_ray.core.job.exit_code import with_exit_code
        from airflow_provider_vertex_ray.hooks.calls.job import usable_dashboard

        name = self._name(self.cluster_id)
        hook = self.job_hook
        async with hook.session():
            dashboard = usable_dashboard(await self.cluster_hook.get_cluster(name))
            self._keep_link_facts(context, dashboard_uri=dashboard)
            async with hook.jobs(name, dashboard) as api:
                return await with_exit_code(api, await api.get(self.submission_id))

    def _keep_link_facts(self, context: Context, **more: str | None) -> None:
        super()._keep_link_facts(context, **{"submission_id": self.submission_id, **more})

    def trigger(self, deadline: float | None) -> WaitTrigger:
        """Return the trigger that waits for the same job."""
        return VertexRayJobTrigger(
            cluster_name=self._name(self.cluster_id).full,
            submission_id=self.submission_id,
            poll_interval=self.poke_interval,
            deadline=deadline,
            stop_at_deadline=False,
            stream_logs=self.stream_logs,
            **self._connection_arguments(),
        )
