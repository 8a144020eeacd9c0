"""Single calls about a cluster's jobs as tasks: get, list, stop, delete."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from airflow_provider_vertex_ray.core.checks import check_duration
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.job.inputs import check_statuses, check_submission_id
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import JOB_LINKS
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, deferrable_by_default
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.job.client import JobsApi

T = TypeVar("T")


class JobSummary(TypedDict):
    """One job in a task's result. Times are milliseconds since 1970, or None while they are unknown."""

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
    """What ``VertexRayGetJobOperator`` returns."""

    cluster_id: str


class StoppedJob(JobSummary):
    """What ``VertexRayStopJobOperator`` returns; ``was_running`` says whether there was something to stop."""

    cluster_id: str
    was_running: bool
    logs_tail: list[str]
    result: Any


class DeletedJob(TypedDict):
    """What ``VertexRayDeleteJobOperator`` returns; ``existed`` says whether there was something to delete."""

    submission_id: str
    cluster_id: str
    existed: bool


class JobCallsOperator(VertexRayBaseOperator):
    """Base of the operators that ask a cluster about its jobs.

    :param cluster_id: Id or full resource name. (templated)
    """

    template_fields: Sequence[str] = ("cluster_id", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = JOB_LINKS

    def __init__(self, *, cluster_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        self.cluster_id = cluster_id

    def _ask(
        self,
        context: Context,
        name: ClusterName,
        call: Callable[[JobsApi], Coroutine[Any, Any, T]],
        submission_id: str | None = None,
    ) -> T:
        """Make a call on the cluster's Jobs API, and keep the facts for the links."""
        from airflow_provider_vertex_ray.hooks.base import run_sync
        from airflow_provider_vertex_ray.hooks.job import usable_dashboard

        async def ask() -> T:
            hook = self.job_hook
            async with hook.session():
                dashboard = usable_dashboard(await self.cluster_hook.get_cluster(name.full))
                persist_link_facts(
                    context,
                    project_id=name.project,
                    location=name.location,
                    cluster_id=name.cluster_id,
                    dashboard_uri=dashboard,
                    submission_id=submission_id,
                )
                async with hook.jobs(name.full, dashboard) as api:
                    return await call(api)

        return run_sync(ask)


class JobCallOperator(JobCallsOperator):
    """Base of the operators on one job of a cluster.

    :param submission_id: The job. (templated)
    """

    template_fields: Sequence[str] = ("cluster_id", "submission_id", *VertexRayBaseOperator.connection_fields)

    def __init__(self, *, submission_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_submission_id(submission_id)
        self.submission_id = submission_id


class VertexRayGetJobOperator(JobCallOperator):
    """Reads one job and returns it as a ``ReadJob``.

    :param cluster_id: Id or full resource name. (templated)
    :param submission_id: The job. (templated)

    Raises JobNotFoundError.
    """

    def execute(self, context: Context) -> ReadJob:
        """Ask the cluster."""
        check_submission_id(self.submission_id)
        name = self._name(self.cluster_id)
        job = self._ask(context, name, lambda api: api.get(self.submission_id), self.submission_id)
        return cast(ReadJob, {**job.summary(), "cluster_id": name.cluster_id})


class VertexRayStopJobOperator(JobCallOperator):
    """Stops one job and waits until it has ended; a job that ended before is no error. Returns a ``StoppedJob``.

    :param cluster_id: Id or full resource name. (templated)
    :param submission_id: The job. (templated)
    :param stop_timeout: Seconds until it must have ended; Ray kills a driver that ignores the stop after 3.
    :param deferrable: Wait in the triggerer; default: ``[operators] default_deferrable``.

    Raises JobNotFoundError, JobTimeoutError.
    """

    def __init__(self, *, stop_timeout: float = 300.0, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_duration("stop_timeout", stop_timeout, none_allowed=False)
        self.stop_timeout = stop_timeout
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable

    def execute(self, context: Context) -> StoppedJob:
        """Ask for the stop, then wait."""
        check_submission_id(self.submission_id)
        name = self._name(self.cluster_id)
        was_running = self._ask(context, name, lambda api: api.stop(self.submission_id), self.submission_id)
        self.log.info("Ray job %s %s", self.submission_id, "is being stopped" if was_running else "had ended before")
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
        """Return the job as it ended."""
        result = result_of(event)
        return cast(StoppedJob, {**result, **((event or {}).get("passthrough") or {})})


class VertexRayListJobsOperator(JobCallsOperator):
    """Lists the jobs of a cluster, whoever submitted them; returns a list of ``JobSummary``.

    :param cluster_id: Id or full resource name. (templated)
    :param statuses: Only jobs in these states, such as ``["RUNNING", "PENDING"]``. (templated)
    """

    template_fields: Sequence[str] = ("cluster_id", "statuses", *VertexRayBaseOperator.connection_fields)

    def __init__(self, *, statuses: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_statuses(statuses)
        self.statuses = statuses

    def execute(self, context: Context) -> list[JobSummary]:
        """Ask the cluster, once."""
        wanted = check_statuses(self.statuses, rendered=True)
        name = self._name(self.cluster_id)
        jobs = self._ask(context, name, lambda api: api.list_all())
        return [cast(JobSummary, job.summary()) for job in jobs if wanted is None or job.status.value in wanted]


class VertexRayDeleteJobOperator(JobCallOperator):
    """Makes a cluster forget a job that has ended, with its submission id; returns a ``DeletedJob``.

    A job that the cluster does not know is deleted already: that is no error. One that has not ended is left as it is.

    :param cluster_id: Id or full resource name. (templated)
    :param submission_id: The job. (templated)

    Raises JobRunningError.
    """

    def execute(self, context: Context) -> DeletedJob:
        """Look, then delete."""
        from airflow_provider_vertex_ray.hooks.job import delete_ended

        check_submission_id(self.submission_id)
        name = self._name(self.cluster_id)
        existed = self._ask(context, name, lambda api: delete_ended(api, self.submission_id), self.submission_id)
        self.log.info("Ray job %s %s", self.submission_id, "was deleted" if existed else "was not there")
        return {"submission_id": self.submission_id, "cluster_id": name.cluster_id, "existed": existed}
