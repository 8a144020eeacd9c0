"""A job as a task: exactly one job for each attempt, whatever dies on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_vertex_ray.core.checks import check_duration
from airflow_provider_vertex_ray.core.cost.pricing import check_budget
from airflow_provider_vertex_ray.core.job.inputs import command_line, runtime_environment
from airflow_provider_vertex_ray.core.job.state import Record, submission_prefix
from airflow_provider_vertex_ray.errors import (
    InvalidArgumentError,
    JobFailedError,
    JobNotStoppedError,
    JobStoppedError,
    VertexRayError,
)
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import JOB_LINKS
from airflow_provider_vertex_ray.operators.base import (
    VertexRayBaseOperator,
    deferrable_by_default,
    task_owner,
    task_try,
)
from airflow_provider_vertex_ray.operators.cost import check_budget_input, load_price_table
from airflow_provider_vertex_ray.operators.job_admin import (
    VertexRayDeleteJobOperator,
    VertexRayGetJobOperator,
    VertexRayListJobsOperator,
    VertexRayStopJobOperator,
)
from airflow_provider_vertex_ray.operators.job_cluster import CLUSTER_GONE, SharedClusterMixin
from airflow_provider_vertex_ray.operators.job_task_state import forget, remember, remembered
from airflow_provider_vertex_ray.operators.leases import LEASE_TTL, check_lease
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
    from airflow_provider_vertex_ray.core.job.client import JobRequest, JobsApi
    from airflow_provider_vertex_ray.core.job.submission import Found, Submission
    from airflow_provider_vertex_ray.triggers.base import WaitTrigger

__all__ = [
    "VertexRayDeleteJobOperator",
    "VertexRayGetJobOperator",
    "VertexRayListJobsOperator",
    "VertexRayStopJobOperator",
    "VertexRaySubmitJobOperator",
]


@dataclass(frozen=True)
class _Started:
    """The job that a task waits for."""

    name: ClusterName
    dashboard_uri: str
    found: Found
    adopted: bool
    lease: dict[str, Any] | None = None

    @property
    def since(self) -> float:
        """From when the deadlines count (unix seconds): now, or since Ray took an adopted job."""
        started = self.found.job.start_time if self.adopted and self.found.job else None
        return min(time.time(), started / 1000) if started else time.time()


class VertexRaySubmitJobOperator(SharedClusterMixin, VertexRayBaseOperator):
    """Runs a Ray job on a cluster that exists, and fails when the job fails.

    The submission id is derived from the task instance before anything is sent. A try that finds the job of a try that
    was lost (a worker that died) goes on waiting for it, or takes its result. A retry after a failure runs the next
    attempt. A Clear always runs the job again, and stops the old one first where that still runs.

    Returns ``Job.summary()`` with ``cluster_id``, ``dashboard_url``, ``logs_tail`` (the last lines of output) and
    ``result``: what the job printed as JSON on a line that starts with ``VERTEX_RAY_RESULT``.

    :param cluster_id: Id or full resource name. (templated)
    :param entrypoint: The shell command, or a list of arguments, which are quoted. (templated)
    :param runtime_env: Ray's runtime environment. (templated)
    :param working_dir: Local folder, sent to the cluster, or a ``gs://`` or ``https://`` zip. (templated)
    :param py_modules: Local folders, ``.py`` files and wheels, or URIs of zips and wheels. (templated)
    :param excludes: Patterns, as in a ``.gitignore``, of what in local folders is not sent. (templated)
    :param env_vars: Environment variables of the job; their values are masked in Airflow's logs. (templated)
    :param metadata: Strings kept with the job. (templated)
    :param submission_id: An id of your own instead of the derived one; later attempts get a suffix. (templated)
    :param lease_uri: Folder in Cloud Storage, such as ``gs://bucket/leases``, in which this run says that it uses the
        cluster: before it submits, and as long as it waits. None: the job itself is the only sign of use. (templated)
    :param lease_ttl: Seconds for which the run holds the cluster without saying so again.
    :param lease_owner: Who holds it; default: ``<dag_id>/<run_id>``. (templated)
    :param max_cost: What the cluster may have cost so far, in the currency of ``price_table``, to get this job.
    :param price_table: Prices for ``max_cost``; see ``VertexRayClusterCostOperator``. (templated)
    :param entrypoint_num_cpus: CPUs reserved for the driver. None runs it on the head node, which has 0 logical CPUs.
    :param entrypoint_num_gpus: GPUs reserved for the driver.
    :param entrypoint_memory: Bytes reserved for the driver.
    :param entrypoint_resources: Other resources reserved for the driver.
    :param wait_for_completion: Whether to wait; otherwise the task succeeds once the cluster has the job.
    :param stream_logs: Whether the job's output appears in the task's log while it runs.
    :param stop_on_kill: Whether the job is stopped when the task is marked failed or successful, cleared, or killed by
        its own timeout. A restart of the triggerer never stops it.
    :param pending_timeout: Seconds until the driver must have started; then the job is stopped. None: no limit.
    :param job_timeout: Seconds until the job must have ended; then it is stopped. None: no limit.
    :param lost_timeout: Seconds for which a job that the cluster does not know any more, or a cluster that does not
        answer, is waited for.
    :param poll_interval: Seconds between two status requests at most.
    :param retry_failed_job: How often a job that fails is run again within one try of the task.
    :param deferrable: Wait in the triggerer, without a worker slot; default: ``[operators] default_deferrable``.

    Raises InvalidArgumentError before any call for wrong input; SubmissionIdTakenError, JobFailedError (with exit code, message
    and last lines), JobStoppedError, JobLostError, JobPendingTimeoutError, JobTimeoutError, JobNotStoppedError,
    PackageTooLargeError, ClusterClosingError, LeaseStoreError, BudgetExceededError, NotARayClusterError,
    ClusterNotFoundError.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "entrypoint",
        "runtime_env",
        "working_dir",
        "py_modules",
        "excludes",
        "env_vars",
        "metadata",
        "submission_id",
        "lease_uri",
        "lease_owner",
        "price_table",
        *VertexRayBaseOperator.connection_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "entrypoint": "bash",
        "runtime_env": "json",
        "metadata": "json",
    }
    operator_extra_links = JOB_LINKS

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        entrypoint: str | Sequence[str],
        runtime_env: dict[str, Any] | None = None,
        working_dir: str | None = None,
        py_modules: Sequence[str] | None = None,
        excludes: Sequence[str] | None = None,
        env_vars: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
        submission_id: str | None = None,
        lease_uri: str | None = None,
        lease_ttl: float = LEASE_TTL,
        lease_owner: str | None = None,
        max_cost: float | None = None,
        price_table: Any = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: dict[str, float] | None = None,
        wait_for_completion: bool = True,
        stream_logs: bool = True,
        stop_on_kill: bool = True,
        pending_timeout: float | None = None,
        job_timeout: float | None = None,
        lost_timeout: float = 600.0,
        poll_interval: float = 15.0,
        retry_failed_job: int = 0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        if isinstance(entrypoint, (str, list, tuple)):
            command_line(entrypoint)
        runtime_environment(runtime_env, working_dir, env_vars, py_modules, excludes, rendered=False)
        check_lease(lease_uri, lease_ttl)
        check_budget_input(max_cost, price_table)
        check_duration("poll_interval", poll_interval, none_allowed=False)
        check_duration("lost_timeout", lost_timeout, none_allowed=False)
        check_duration("pending_timeout", pending_timeout)
        check_duration("job_timeout", job_timeout)
        if isinstance(retry_failed_job, bool) or not isinstance(retry_failed_job, int) or retry_failed_job < 0:
            raise InvalidArgumentError("retry_failed_job", retry_failed_job, "give a number of retries, 0 or more")
        self.cluster_id = cluster_id
        self.entrypoint = entrypoint
        self.runtime_env = runtime_env
        self.working_dir = working_dir
        self.py_modules = py_modules
        self.excludes = excludes
        self.env_vars = env_vars
        self.metadata = metadata
        self.submission_id = submission_id
        self.lease_uri = lease_uri
        self.lease_ttl = lease_ttl
        self.lease_owner = lease_owner
        self.max_cost = max_cost
        self.price_table = price_table
        self.entrypoint_num_cpus = entrypoint_num_cpus
        self.entrypoint_num_gpus = entrypoint_num_gpus
        self.entrypoint_memory = entrypoint_memory
        self.entrypoint_resources = entrypoint_resources
        self.wait_for_completion = wait_for_completion
        self.stream_logs = stream_logs
        self.stop_on_kill = stop_on_kill
        self.pending_timeout = pending_timeout
        self.job_timeout = job_timeout
        self.lost_timeout = lost_timeout
        self.poll_interval = poll_interval
        self.retry_failed_job = retry_failed_job
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable
        self._waiting_for: tuple[str, str] | None = None
        self._prices: PriceTable | None = None

    def execute(self, context: Context) -> Any:
        """Adopt or submit, then wait."""
        return self._run(context, failures=0)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the job, or raise why it did not succeed; or run it again, where that is asked for."""
        passed: dict[str, Any] = (event or {}).get("passthrough") or {}
        try:
            result = result_of(event)
        except JobFailedError as error:
            failures = passed.get("failures", 0) + 1
            if failures > self.retry_failed_job:
                raise
            self.log.warning("%s\nRunning it again (%s of %s)", error.message, failures, self.retry_failed_job)
            rerun: dict[str, Any] = self._run(context, failures)
            return rerun
        except JobStoppedError as error:
            if not passed.get("adopted"):
                raise
            # The kill of the try that had started it was still at work when this one adopted it.
            self.log.warning("%s It was of an earlier try; running the next attempt", error.message)
            rerun = self._run(context, passed.get("failures", 0))
            return rerun
        forget(context)
        return {**result, **{key: passed.get(key) for key in ("cluster_id", "dashboard_url")}}

    def on_kill(self) -> None:
        """The task is killed while it waits in the worker: stop its job, and only that."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        if self._waiting_for is not None and self.stop_on_kill:
            cluster, job = self._waiting_for
            self.log.info("The task was killed; stopping Ray job %s", job)
            run_sync(lambda: self.job_hook.stop_job(cluster, job))

    def _do_render_template_fields(self, parent: Any, *arguments: Any, **more: Any) -> None:
        """Mask the values at once: right after the rendering, Airflow stores the rendered fields for its UI."""
        super()._do_render_template_fields(parent, *arguments, **more)
        if parent is self:
            inner = (self.runtime_env or {}).get("env_vars") if isinstance(self.runtime_env, dict) else None
            for variables in (inner, self.env_vars):
                mask(variables)

    def _run(self, context: Context, failures: int, cluster: str | None = None) -> Any:
        """Adopt or submit a job, then wait for it.

        :param failures: How many jobs have failed within this try.
        :param cluster: The cluster, where it is not ``cluster_id`` any more.
        """
        from airflow_provider_vertex_ray.hooks.base import run_sync

        request = self._request(context)
        mask(request.runtime_env.get("env_vars"))
        name = self._name(cluster or self.cluster_id)
        self._prices = load_price_table(self, self.price_table, name.location)
        try:
            started = run_sync(lambda: self._start(name, request, context))
        except CLUSTER_GONE as error:
            return self._go_to_successor(context, name, failures, error)
        job_id = started.found.submission_id
        self._waiting_for = (started.name.full, job_id)
        facts = {"cluster_id": started.name.cluster_id, "dashboard_url": f"https://{started.dashboard_uri}"}
        persist_link_facts(
            context,
            project_id=started.name.project,
            location=started.name.location,
            cluster_id=started.name.cluster_id,
            dashboard_uri=started.dashboard_uri,
            submission_id=job_id,
        )
        if not self.wait_for_completion:
            return {"submission_id": job_id, "adopted": started.adopted, **facts}
        trigger = self._trigger(
            cluster_name=started.name.full,
            submission_id=job_id,
            dashboard_uri=started.dashboard_uri,
            poll_interval=self.poll_interval,
            pending_deadline=None if self.pending_timeout is None else started.since + self.pending_timeout,
            deadline=None if self.job_timeout is None else started.since + self.job_timeout,
            lost_timeout=self.lost_timeout,
            stream_logs=self.stream_logs,
            stop_on_kill=self.stop_on_kill,
            begun=time.time(),
            lease=started.lease,
            passthrough={**facts, "adopted": started.adopted, "failures": failures},
            **self._connection_arguments(),
        )
        ended = started.found.job is not None and started.found.job.status.is_terminal
        return self._wait(context, trigger, self.deferrable and not ended)

    def _trigger(self, **arguments: Any) -> WaitTrigger:
        """What waits for the job."""
        return VertexRayJobTrigger(**arguments)

    def _request(self, context: Context) -> JobRequest:
        """What is submitted, but for the id.

        :raises InvalidArgumentError: Something in it is wrong.
        """
        from airflow_provider_vertex_ray.core.job.client import JobRequest

        _, parts = task_owner(context)
        return JobRequest(
            entrypoint=command_line(self.entrypoint),
            submission_id="",
            runtime_env=runtime_environment(
                self.runtime_env, self.working_dir, self.env_vars, self.py_modules, self.excludes
            ),
            metadata={
                **{str(key): str(value) for key, value in (self.metadata or {}).items()},
                **{f"airflow_{key}": value for key, value in parts.items()},
            },
            num_cpus=self.entrypoint_num_cpus,
            num_gpus=self.entrypoint_num_gpus,
            memory=self.entrypoint_memory,
            resources=self.entrypoint_resources,
        )

    async def _start(self, name: ClusterName, request: JobRequest, context: Context) -> _Started:
        record = remembered(context)
        if record is not None and record.cluster != name.full:
            earlier = await self._left_elsewhere(record, context)
            if earlier is not None:
                return earlier
            record = None
        from airflow_provider_vertex_ray.hooks.job import usable_dashboard

        hook = self.job_hook
        async with hook.session():
            cluster, lease = await self._held(await self.cluster_hook.get_cluster(name.full), context)
            dashboard = usable_dashboard(cluster)
            async with hook.jobs(name.full, dashboard) as api:
                submission = self._submission(api, context)
                found = await submission.find(record.attempt if record else 1)
                adopted = found.job is not None
                if not adopted:
                    check_budget(cluster, self.max_cost, self._prices, time.time())

                    async def prepare(ready: JobRequest) -> JobRequest:
                        remember(context, Record(name.full, found.attempt))
                        environment = await hook.prepare_environment(
                            name.full, ready.runtime_env, ready.submission_id, dashboard
                        )
                        return replace(ready, runtime_env=environment)

                    found, adopted = await submission.submit(found, request, prepare)
                started = _Started(name, dashboard, found, adopted, lease)
                self._say_what_started(started, request.entrypoint)
                return started

    async def _left_elsewhere(self, record: Record, context: Context) -> _Started | None:
        """What an earlier try left on another cluster than this one is given: its job, or None.

        A job that runs there and was not cleared is waited for there; one that was cleared is stopped.
        """
        from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
        from airflow_provider_vertex_ray.hooks.job import usable_dashboard

        name = parse_cluster_name(record.cluster, None, None)
        hook = self.job_hook
        try:
            async with hook.session():
                dashboard = usable_dashboard(await self.cluster_hook.get_cluster(name.full))
                async with hook.jobs(name.full, dashboard) as api:
                    found = await self._submission(api, context).find(record.attempt)
        except JobNotStoppedError:
            raise
        except VertexRayError as error:
            self.log.warning("An earlier try used %s, which can not be asked any more: %s", record.cluster, error)
            return None
        if found.job is None:
            return None
        started = _Started(name, dashboard, found, adopted=True)
        self._say_what_started(started, self.entrypoint)
        return started

    def _submission(self, api: JobsApi, context: Context) -> Submission:
        from airflow_provider_vertex_ray.core.job.submission import Submission

        this = task_try(context)
        _, parts = task_owner(context)
        prefix = self.submission_id or submission_prefix(
            parts["dag_id"], parts["task_id"], int(parts["map_index"]), this.owner
        )
        return Submission(api, prefix, this, notify=self.log.info)

    def _say_what_started(self, started: _Started, entrypoint: Any) -> None:
        job = started.found.job
        if job is None:
            said = "Submitted Ray job %s to %s: %s"
        elif job.status.is_terminal:
            said = "Ray job %s of an earlier try has succeeded on %s already; taking its result"
        else:
            said = "Ray job %s of this task is on %s already; waiting for it"
        more = (entrypoint,) if job is None else ()
        self.log.info(said, started.found.submission_id, started.name.full, *more)


def mask(variables: Any) -> None:
    """Hide the values of a job's environment variables in Airflow's logs; short ones would blank out common words."""
    from airflow.providers.common.compat.sdk import mask_secret

    for value in variables.values() if isinstance(variables, dict) else ():
        if isinstance(value, str) and len(value) >= 5:
            mask_secret(value)
