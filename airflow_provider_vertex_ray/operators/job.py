"""Jobs as tasks: submit, stop, get, list."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from airflow_provider_vertex_ray.deadlines import deadline_after
from airflow_provider_vertex_ray.job_input import check_submission_id, command_line, runtime_environment
from airflow_provider_vertex_ray.job_state import OWNER_KEY, Action, attempt_id, decide, submission_prefix
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.cluster import VertexRayClusterLink, VertexRayDashboardLink, VertexRayLogsLink
from airflow_provider_vertex_ray.operators.base import (
    VertexRayBaseOperator,
    deferrable_by_default,
    positive,
    task_owner,
)
from airflow_provider_vertex_ray.spec_error import SpecError
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.api.jobs import JobRequest, JobsApi
    from airflow_provider_vertex_ray.cluster_name import ClusterName

T = TypeVar("T")

MAX_ATTEMPTS = 1000
"""Jobs of one task instance on one cluster; a bound for the search, far above what retries and clears come to."""


class _Started(NamedTuple):
    """The job that a task waits for."""

    submission_id: str
    dashboard_uri: str
    adopted: bool


class VertexRaySubmitJobOperator(VertexRayBaseOperator):
    """Runs a Ray job on a cluster that exists, and fails when the job fails.

    The submission id is derived from the task instance before anything is sent. A try that finds the job of an earlier
    try still running goes on waiting for it; one that finds it ended (a retry, a Clear) runs the next attempt.

    Returns ``Job.summary()`` with ``cluster_id``, ``dashboard_url``, ``logs_tail`` (the last lines of output) and
    ``result``: what the job printed as JSON on a line that starts with ``VERTEX_RAY_RESULT``.

    :param cluster_id: Id or full resource name. (templated)
    :param entrypoint: The shell command, or a list of arguments, which are quoted. (templated)
    :param runtime_env: Ray's runtime environment. (templated)
    :param working_dir: Local folder, sent to the cluster once for each content, or a ``gs://`` or ``https://`` zip.
        (templated)
    :param env_vars: Environment variables of the job; their values are masked in Airflow's logs. (templated)
    :param metadata: Strings kept with the job. (templated)
    :param submission_id: An id of your own instead of the derived one; later attempts get a suffix. (templated)
    :param entrypoint_num_cpus: CPUs reserved for the driver. None runs it on the head node, which has 0 logical CPUs.
    :param entrypoint_num_gpus: GPUs reserved for the driver.
    :param entrypoint_memory: Bytes reserved for the driver.
    :param entrypoint_resources: Other resources reserved for the driver.
    :param wait_for_completion: Whether to wait; otherwise the task succeeds once the cluster has the job.
    :param stream_logs: Whether the job's output appears in the task's log while it runs.
    :param stop_on_kill: Whether killing the task while it waits in a worker stops its job. The job of a deferred task
        goes on; the task's next try finds it.
    :param pending_timeout: Seconds until the driver must have started; then the job is stopped. None: no limit.
    :param job_timeout: Seconds until the job must have ended; then it is stopped. None: no limit.
    :param poll_interval: Seconds between two status requests at most.
    :param deferrable: Wait in the triggerer, without a worker slot; default: ``[operators] default_deferrable``.

    Raises SpecError before any call for wrong input; SubmissionIdTakenError, JobFailedError (with exit code, message
    and last lines), JobStoppedError, JobLostError, JobPendingTimeoutError, JobTimeoutError, NotARayClusterError,
    ClusterNotFoundError.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "entrypoint",
        "runtime_env",
        "working_dir",
        "env_vars",
        "metadata",
        "submission_id",
        *VertexRayBaseOperator.connection_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "entrypoint": "bash",
        "runtime_env": "json",
        "metadata": "json",
    }
    operator_extra_links = (VertexRayDashboardLink(), VertexRayLogsLink(), VertexRayClusterLink())

    def __init__(
        self,
        *,
        cluster_id: str,
        entrypoint: str | Sequence[str],
        runtime_env: dict[str, Any] | None = None,
        working_dir: str | None = None,
        env_vars: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
        submission_id: str | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: dict[str, float] | None = None,
        wait_for_completion: bool = True,
        stream_logs: bool = True,
        stop_on_kill: bool = True,
        pending_timeout: float | None = None,
        job_timeout: float | None = None,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_cluster_id(cluster_id)
        if isinstance(entrypoint, (str, list, tuple)):
            command_line(entrypoint)
        positive("poll_interval", poll_interval, none_allowed=False)
        positive("pending_timeout", pending_timeout)
        positive("job_timeout", job_timeout)
        self.cluster_id = cluster_id
        self.entrypoint = entrypoint
        self.runtime_env = runtime_env
        self.working_dir = working_dir
        self.env_vars = env_vars
        self.metadata = metadata
        self.submission_id = submission_id
        self.entrypoint_num_cpus = entrypoint_num_cpus
        self.entrypoint_num_gpus = entrypoint_num_gpus
        self.entrypoint_memory = entrypoint_memory
        self.entrypoint_resources = entrypoint_resources
        self.wait_for_completion = wait_for_completion
        self.stream_logs = stream_logs
        self.stop_on_kill = stop_on_kill
        self.pending_timeout = pending_timeout
        self.job_timeout = job_timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable
        self._waiting_for: tuple[str, str] | None = None

    def execute(self, context: Context) -> Any:
        """Adopt or submit, then wait."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        entrypoint = command_line(self.entrypoint)
        environment = runtime_environment(self.runtime_env, self.working_dir, self.env_vars)
        mask(environment.get("env_vars"))
        name = self._name(self.cluster_id)
        started = run_sync(lambda: self._start(name, entrypoint, environment, context))
        self._waiting_for = (name.full, started.submission_id)
        persist_link_facts(
            context,
            project_id=name.project,
            location=name.location,
            cluster_id=name.cluster_id,
            dashboard_uri=started.dashboard_uri,
            submission_id=started.submission_id,
        )
        if not self.wait_for_completion:
            return {
                "submission_id": started.submission_id,
                "cluster_id": name.cluster_id,
                "adopted": started.adopted,
                "dashboard_url": f"https://{started.dashboard_uri}",
            }
        trigger = VertexRayJobTrigger(
            cluster_name=name.full,
            submission_id=started.submission_id,
            dashboard_uri=started.dashboard_uri,
            poll_interval=self.poll_interval,
            pending_deadline=deadline_after(self.pending_timeout),
            deadline=deadline_after(self.job_timeout),
            stream_logs=self.stream_logs,
            carry={"cluster_id": name.cluster_id, "dashboard_url": f"https://{started.dashboard_uri}"},
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def _do_render_template_fields(self, parent: Any, *arguments: Any, **more: Any) -> None:
        """Mask the values at once: right after the rendering, Airflow stores the rendered fields for its UI."""
        super()._do_render_template_fields(parent, *arguments, **more)
        if parent is self:
            inner = (self.runtime_env or {}).get("env_vars") if isinstance(self.runtime_env, dict) else None
            for variables in (inner, self.env_vars):
                mask(variables)

    async def _start(
        self, name: ClusterName, entrypoint: str, environment: dict[str, Any], context: Context
    ) -> _Started:
        from airflow_provider_vertex_ray.api.jobs import JobRequest
        from airflow_provider_vertex_ray.hooks.job import usable_dashboard

        owner, parts = task_owner(context)
        prefix = self.submission_id or submission_prefix(
            parts["dag_id"], parts["task_id"], int(parts["map_index"]), owner
        )
        hook = self.job_hook
        async with hook.session():
            dashboard = usable_dashboard(await self.cluster_hook.get_cluster(name.full))
            async with hook.jobs(name.full, dashboard) as api:
                request = JobRequest(
                    entrypoint=entrypoint,
                    submission_id=prefix,
                    runtime_env=environment,
                    metadata={
                        **{str(key): str(value) for key, value in (self.metadata or {}).items()},
                        **{f"airflow_{key}": value for key, value in parts.items()},
                        OWNER_KEY: owner,
                    },
                    num_cpus=self.entrypoint_num_cpus,
                    num_gpus=self.entrypoint_num_gpus,
                    memory=self.entrypoint_memory,
                    resources=self.entrypoint_resources,
                )
                for attempt in range(1, MAX_ATTEMPTS):
                    job_id = attempt_id(prefix, attempt)
                    action = decide(await api.find(job_id), owner)
                    if action is Action.NEXT:
                        continue
                    adopted = action is Action.ADOPT or not await self._submit(api, name, request, job_id)
                    if adopted:
                        # Two workers may have raced to here: the job must still be this task's.
                        decide(await api.get(job_id), owner)
                        self.log.info("Ray job %s of this task is on the cluster already; waiting for it", job_id)
                    return _Started(job_id, dashboard, adopted)
        raise SpecError("submission_id", prefix, f"all of its {MAX_ATTEMPTS} attempts are used up on this cluster")

    async def _submit(self, api: JobsApi, name: ClusterName, request: JobRequest, job_id: str) -> bool:
        from dataclasses import replace

        runtime_env = dict(request.runtime_env)
        folder = runtime_env.get("working_dir")
        if folder and "://" not in folder:
            excludes = runtime_env.pop("excludes", None) or ()
            runtime_env["working_dir"] = await self.job_hook.upload_working_dir(name.full, folder, excludes)
        submitted = await api.submit(replace(request, submission_id=job_id, runtime_env=runtime_env))
        if submitted:
            self.log.info("Submitted Ray job %s to %s: %s", job_id, name.full, request.entrypoint)
        return submitted

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the job, or raise why it did not succeed."""
        result = result_of(event)
        return {**result, **((event or {}).get("carry") or {})}

    def on_kill(self) -> None:
        """The task is killed while it waits in the worker: stop its job, and only that."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        if self._waiting_for is not None and self.stop_on_kill:
            cluster, job = self._waiting_for
            self.log.info("The task was killed; stopping Ray job %s", job)
            run_sync(lambda: self.job_hook.stop_job(cluster, job))


def mask(variables: Any) -> None:
    """Hide the values of a job's environment variables in Airflow's logs; short ones would blank out common words."""
    from airflow.providers.common.compat.sdk import mask_secret

    for value in variables.values() if isinstance(variables, dict) else ():
        if isinstance(value, str) and len(value) >= 5:
            mask_secret(value)


class _JobsOperator(VertexRayBaseOperator):
    """Base of the operators that ask a cluster about its jobs."""

    template_fields: Sequence[str] = ("cluster_id", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = (VertexRayDashboardLink(), VertexRayLogsLink(), VertexRayClusterLink())

    def __init__(self, *, cluster_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_cluster_id(cluster_id)
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


class _JobOperator(_JobsOperator):
    """Base of the operators on one job of a cluster."""

    template_fields: Sequence[str] = ("cluster_id", "submission_id", *VertexRayBaseOperator.connection_fields)

    def __init__(self, *, submission_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_submission_id(submission_id)
        self.submission_id = submission_id


class VertexRayGetJobOperator(_JobOperator):
    """Reads one job and returns ``Job.summary()``.

    :param cluster_id: Id or full resource name. (templated)
    :param submission_id: The job. (templated)

    Raises JobNotFoundError.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask the cluster."""
        check_submission_id(self.submission_id)
        name = self._name(self.cluster_id)
        job = self._ask(context, name, lambda api: api.get(self.submission_id), self.submission_id)
        return {**job.summary(), "cluster_id": name.cluster_id}


class VertexRayStopJobOperator(_JobOperator):
    """Stops one job and waits until it has ended; a job that ended before is no error.

    Returns ``Job.summary()`` with ``was_running``.

    :param cluster_id: Id or full resource name. (templated)
    :param submission_id: The job. (templated)
    :param stop_timeout: Seconds until it must have ended; Ray kills a driver that ignores the stop after 3.
    :param deferrable: Wait in the triggerer; default: ``[operators] default_deferrable``.

    Raises JobNotFoundError, JobTimeoutError.
    """

    def __init__(self, *, stop_timeout: float = 300.0, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        positive("stop_timeout", stop_timeout, none_allowed=False)
        self.stop_timeout = stop_timeout
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable

    def execute(self, context: Context) -> Any:
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
            carry={"was_running": was_running},
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the job as it ended."""
        result = result_of(event)
        return {**result, **((event or {}).get("carry") or {})}


class VertexRayListJobsOperator(_JobsOperator):
    """Lists the jobs of a cluster; returns a list of ``Job.summary()``.

    :param cluster_id: Id or full resource name. (templated)
    :param statuses: Only jobs in these states, such as ``["RUNNING", "PENDING"]``. (templated)
    """

    template_fields: Sequence[str] = ("cluster_id", "statuses", *VertexRayBaseOperator.connection_fields)

    def __init__(self, *, statuses: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.statuses = statuses

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Ask the cluster, once."""
        name = self._name(self.cluster_id)
        jobs = self._ask(context, name, lambda api: api.list_all())
        wanted = set(self.statuses) if self.statuses else None
        return [job.summary() for job in jobs if wanted is None or job.status.value in wanted]
