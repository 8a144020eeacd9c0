"""Operators that get, list, stop and delete the jobs of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from airflow_provider_vertex_ray.core.checks import check_duration
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.job.inputs import check_statuses, check_submission_id
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import JOB_LINKS
from airflow_provider_vertex_ray.operators.arguments import check_lists, check_strings, resolve_deferrable
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.google_arguments import either
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.job.client import JobsApi

T = TypeVar("T")


class JobSummary(TypedDict):
    """A job in the result of a task. Times are milliseconds since 1970, or None while unknown."""

    submission_id: str
    status: str
    message: str
    error_type: str | None
    exit_code: int | None
    start_time: int | None
    end_time: int | None
    duration_seconds: float | None
    metadata: dict[str, str]


class ReadJob(JobSummary):
    """Result of ``VertexRayGetJobOperator``."""

    cluster_id: str


class StoppedJob(JobSummary):
    """Result of ``VertexRayStopJobOperator``; ``was_running`` tells whether there was a job to stop."""

    cluster_id: str
    was_running: bool
    logs_tail: list[str]
    result: Any


class DeletedJob(TypedDict):
    """Result of ``VertexRayDeleteJobOperator``; ``existed`` tells whether there was a job to delete."""

    submission_id: str
    cluster_id: str
    existed: bool


class JobCallsOperator(VertexRayBaseOperator):
    """Base class of the operators that call the Jobs API of a cluster.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param cluster_address: name of ``cluster_id`` in the Google provider; may be the address of the dashboard.
    """

    template_fields: Sequence[str] = ("cluster_id", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = JOB_LINKS

    def __init__(self, *, cluster_id: str | None = None, cluster_address: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(either("cluster_id", cluster_id, "cluster_address", cluster_address))
        self.cluster_id = cluster_id

    def _ask(
        self,
        context: Context,
        name: ClusterName,
        call: Callable[[JobsApi], Coroutine[Any, Any, T]],
        submission_id: str | None = None,
    ) -> T:
        """Call the Jobs API of the cluster, and store the facts for the links."""
        from airflow_provider_vertex_ray.core.threads import run_sync
        from airflow_provider_vertex_ray.hooks.calls.job import usable_dashboard

        async def ask() -> T:
            hook = self.job_hook
            async with hook.session():
                dashboard = usable_dashboard(await self.cluster_hook.get_cluster(name))
                persist_link_facts(
                    context,
                    project_id=name.project,
                    location=name.location,
                    cluster_id=name.cluster_id,
                    dashboard_uri=dashboard,
                    submission_id=submission_id,
                )
                async with hook.jobs(name, dashboard) as api:
                    return await call(api)

        return run_sync(ask)


class JobCallOperator(JobCallsOperator):
    """Base class of the operators on one job of a cluster.

    :param submission_id: submission ID of the job. (templated)
    :param job_id: name of ``submission_id`` in the Google provider.
    """

    template_fields: Sequence[str] = ("cluster_id", "submission_id", *VertexRayBaseOperator.connection_fields)

    def __init__(self, *, submission_id: str | None = None, job_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        submission_id = either("submission_id", submission_id, "job_id", job_id)
        check_strings(submission_id=submission_id)
        check_submission_id(submission_id)
        self.submission_id = str.__str__(submission_id) if isinstance(submission_id, str) else submission_id


class VertexRayGetJobOperator(JobCallOperator):
    """Get one job of a cluster; returns a ``ReadJob``.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param submission_id: submission ID of the job. (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises NotARayClusterError: the resource is not a Ray cluster.
    :raises JobNotFoundError: the cluster does not know the job.
    """

    def execute(self, context: Context) -> ReadJob:
        """Read the job."""
        check_submission_id(self.submission_id)
        name = self._name(self.cluster_id)
        job = self._ask(context, name, lambda api: api.get(self.submission_id), self.submission_id)
        return cast(ReadJob, {**job.summary(), "cluster_id": name.cluster_id})


class VertexRayStopJobOperator(JobCallOperator):
    """Stop one job of a cluster and wait until it has ended; returns a ``StoppedJob``.

    A job that has already ended is not an error.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param submission_id: submission ID of the job. (templated)
    :param stop_timeout: seconds within which the job must end. Ray kills a driver that ignores the stop after 3
        seconds.
    :param deferrable: whether to wait in the triggerer; default: ``[operators] default_deferrable``.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises NotARayClusterError: the resource is not a Ray cluster.
    :raises JobNotFoundError: the cluster does not know the job.
    :raises JobTimeoutError: the job did not end within ``stop_timeout``.
    """

    def __init__(self, *, stop_timeout: float = 300.0, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_duration("stop_timeout", stop_timeout, none_allowed=False)
        self.stop_timeout = stop_timeout
        self.deferrable = resolve_deferrable(deferrable)

    def execute(self, context: Context) -> StoppedJob:
        """Send the stop request, then wait until the job has ended."""
        check_submission_id(self.submission_id)
        name = self._name(self.cluster_id)
        was_running = self._ask(context, name, lambda api: api.stop(self.submission_id), self.submission_id)
        self.log.info("Stopping Ray job %s" if was_running else "Ray job %s has already ended", self.submission_id)
        trigger = VertexRayJobTrigger(
            cluster_name=name.full,
            submission_id=self.submission_id,
            deadline=deadline_after(self.stop_timeout),
            stream_logs=False,
            raise_on_failure=False,
            passthrough={"was_running": was_running, "cluster_id": name.cluster_id},
            **self._connection_arguments(),
        )
        return cast(StoppedJob, self._wait(context, trigger, self.deferrable))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> StoppedJob:
        """Return the ended job."""
        result = result_of(event)
        return cast(StoppedJob, {**result, **((event or {}).get("passthrough") or {})})


class VertexRayListJobsOperator(JobCallsOperator):
    """List the jobs of a cluster, whoever submitted them; returns a list of ``JobSummary``.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param statuses: only list jobs with these statuses, such as ``["RUNNING", "PENDING"]``; default: all. (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises NotARayClusterError: the resource is not a Ray cluster.
    """

    template_fields: Sequence[str] = ("cluster_id", "statuses", *VertexRayBaseOperator.connection_fields)

    def __init__(self, *, statuses: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(statuses, (str, set, frozenset)):
            check_lists(statuses=statuses)
        check_statuses(statuses)
        self.statuses = statuses

    def execute(self, context: Context) -> list[JobSummary]:
        """List the jobs."""
        wanted = check_statuses(self.statuses, rendered=True)
        name = self._name(self.cluster_id)
        jobs = self._ask(context, name, lambda api: api.list_all())
        return [cast(JobSummary, job.summary()) for job in jobs if wanted is None or job.status.value in wanted]


class VertexRayDeleteJobOperator(JobCallOperator):
    """Delete the record of an ended job from its cluster, which frees its submission ID; returns a ``DeletedJob``.

    A job that the cluster does not know is not an error. A job that has not ended is not deleted.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param submission_id: submission ID of the job. (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises NotARayClusterError: the resource is not a Ray cluster.
    :raises JobRunningError: the job has not ended.
    """

    def execute(self, context: Context) -> DeletedJob:
        """Check that the job has ended, then delete it."""
        from airflow_provider_vertex_ray.hooks.calls.job import delete_ended

        check_submission_id(self.submission_id)
        name = self._name(self.cluster_id)
        existed = self._ask(context, name, lambda api: delete_ended(api, self.submission_id), self.submission_id)
        self.log.info(
            "Deleted Ray job %s" if existed else "Ray job %s does not exist; nothing to delete", self.submission_id
        )
        return {"submission_id": self.submission_id, "cluster_id": name.cluster_id, "existed": existed}
