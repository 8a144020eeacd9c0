"""Operator that runs a Ray job: exactly one job for each attempt, even after crashes."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_vertex_ray.core.checks import check_duration, is_whole, unless_empty
from airflow_provider_vertex_ray.core.cost.pricing import check_budget
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.job.driver_size import check_driver_fits
from airflow_provider_vertex_ray.core.job.inputs import (
    check_metadata,
    check_reservation,
    check_submission_id,
    command_line,
    runtime_environment,
)
from airflow_provider_vertex_ray.core.job.secrets import Secret
from airflow_provider_vertex_ray.core.job.state import Record
from airflow_provider_vertex_ray.errors import InvalidArgumentError, JobFailedError, JobStoppedError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import JOB_LINKS
from airflow_provider_vertex_ray.operators.arguments import (
    check_flags,
    check_strings,
    resolve_deferrable,
)
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, task_owner, task_try
from airflow_provider_vertex_ray.operators.end_from_trigger import check_end_from_trigger, task_end
from airflow_provider_vertex_ray.operators.google_arguments import either
from airflow_provider_vertex_ray.operators.job_admin import (
    VertexRayDeleteJobOperator,
    VertexRayGetJobOperator,
    VertexRayListJobsOperator,
    VertexRayStopJobOperator,
)
from airflow_provider_vertex_ray.operators.job_attempts import JobAttemptsMixin, StartedJob
from airflow_provider_vertex_ray.operators.job_cluster import CLUSTER_GONE, SharedClusterMixin
from airflow_provider_vertex_ray.operators.job_kill import JobKillMixin, KnownJob, Line
from airflow_provider_vertex_ray.operators.job_task_state import forget, remember, remembered
from airflow_provider_vertex_ray.operators.leases import LEASE_TTL, check_lease
from airflow_provider_vertex_ray.operators.masking import env_vars_in, marked_names, mask_secrets, secret_metadata
from airflow_provider_vertex_ray.operators.price_tables import check_cost_limit, load_price_table
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from airflow_provider_vertex_ray.triggers.task_end import JOB, job_result, skip_reason

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
    from airflow_provider_vertex_ray.core.job.client import JobRequest
    from airflow_provider_vertex_ray.triggers.base import WaitTrigger

__all__ = [
    "Secret",
    "VertexRayDeleteJobOperator",
    "VertexRayGetJobOperator",
    "VertexRayListJobsOperator",
    "VertexRayStopJobOperator",
    "VertexRaySubmitJobOperator",
]


class VertexRaySubmitJobOperator(JobKillMixin, JobAttemptsMixin, SharedClusterMixin, VertexRayBaseOperator):
    """Run a Ray job on an existing cluster, and fail if the job fails.

    The submission ID is derived from the task instance before anything is sent. If an earlier try was lost, for example
    because its worker died, this try waits for that try's job or takes its result. A retry after a failure runs the
    next attempt. A clear always runs the job again, and first stops the old job if it is still running.

    Returns ``Job.summary()`` with ``cluster_id``, ``dashboard_url``, ``logs_tail`` (the last lines of output) and
    ``result``: the JSON that the job printed on a line that starts with ``VERTEX_RAY_RESULT``.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param entrypoint: shell command, or a list of arguments, which are quoted. (templated)
    :param runtime_env: Ray runtime environment. (templated)
    :param working_dir: local folder, which is uploaded to the cluster, or the ``gs://`` or ``https://`` URI of a zip
        file. (templated)
    :param py_modules: local folders, ``.py`` files and wheels, or URIs of zip files and wheels. (templated)
    :param excludes: patterns in ``.gitignore`` syntax; matching files in local folders are not uploaded. (templated)
    :param env_vars: environment variables of the job. A value is masked in logs and rendered fields if it is a
        ``Secret``, if Airflow masks it already, or if its name says so, as ``DB_PASSWORD`` does. (templated)
    :param metadata: strings that Ray stores with the job. (templated)
    :param submission_id: submission ID to use instead of the derived one; later attempts add a suffix. (templated)
    :param lease_uri: Cloud Storage folder for leases, such as ``gs://bucket/leases``. The run holds a lease on the
        cluster from before the submission until the job ends. None: only the job itself marks the cluster as in use.
        (templated)
    :param lease_ttl: seconds after which the lease expires unless it is renewed.
    :param lease_owner: owner of the lease; default: ``<dag_id>/<run_id>``. (templated)
    :param max_cost: do not submit the job if the cluster has already cost more than this amount, in the currency of
        ``price_table``. None: no limit.
    :param price_table: prices for ``max_cost``; see ``VertexRayClusterCostOperator``. (templated)
    :param entrypoint_num_cpus: CPUs to reserve for the driver: a number, or the output of a task that returns one. None
        runs it on the head node, which has 0 logical CPUs. (templated)
    :param entrypoint_num_gpus: GPUs to reserve for the driver. (templated)
    :param entrypoint_memory: memory to reserve for the driver, in bytes. (templated)
    :param entrypoint_resources: custom resources to reserve for the driver, by name. (templated)
    :param wait_for_completion: whether to wait for the end of the job. If False, the task succeeds once the job is
        submitted.
    :param stream_logs: whether to copy the output of the job to the task log while it runs.
    :param stop_on_kill: whether to stop the job when the task is marked failed or success, cleared, or killed by its
        own timeout. A restart of the triggerer never stops the job.
    :param skip_on_exit_code: exit code of the driver, or several, with which the task is skipped instead of failed.
    :param pending_timeout: seconds within which the driver must start, else the job is stopped. None: no limit.
    :param job_timeout: seconds within which the job must end, else it is stopped. None: no limit.
    :param lost_timeout: seconds to wait for a job that the cluster no longer knows, or for a cluster that does not
        answer or refuses the requests, before the task fails.
    :param poll_interval: maximum number of seconds between two status requests.
    :param deferrable: whether to wait in the triggerer, without a worker slot; default:
        ``[operators] default_deferrable``.
    :param end_from_trigger: whether a task that waits in the triggerer also ends there, without a worker. None: where
        Airflow (3.3.1 and later) does everything that it does in a worker. True: also where it does not call callbacks
        or listeners, or record the events of outlets. False: never.
    :param cluster_address: name of ``cluster_id`` in the Google provider; may be the address of the dashboard.
    :param get_job_logs: name of ``stream_logs`` in the Google provider.
    :param wait_for_job_done: name of ``wait_for_completion`` in the Google provider.
    :param submit_job_timeout: name of ``job_timeout`` in the Google provider.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises NotARayClusterError: the resource is not a Ray cluster.
    :raises ClusterClosingError: the cluster is about to be deleted.
    :raises BudgetExceededError: the cluster has already cost more than ``max_cost``.
    :raises LeaseStoreError: the lease cannot be read or written.
    :raises PackageTooLargeError: a local folder exceeds Ray's upload limit.
    :raises SubmissionIdTakenError: the submission ID belongs to a job of another task.
    :raises AirflowSkipException: the job ended with an exit code in ``skip_on_exit_code``.
    :raises JobFailedError: the job failed; carries its exit code, message and last lines of output.
    :raises JobStoppedError: the job was stopped.
    :raises JobLostError: the cluster no longer knows the job, or did not answer for ``lost_timeout``.
    :raises JobPendingTimeoutError: the driver did not start within ``pending_timeout``.
    :raises JobTimeoutError: the job did not end within ``job_timeout``.
    :raises JobNotStoppedError: the job of a cleared try did not stop.
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
        "entrypoint_num_cpus",
        "entrypoint_num_gpus",
        "entrypoint_memory",
        "entrypoint_resources",
        *VertexRayBaseOperator.connection_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "entrypoint": "bash",
        "runtime_env": "json",
        "metadata": "json",
    }
    operator_extra_links = JOB_LINKS
    deferred_result: ClassVar[str] = JOB

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
        skip_on_exit_code: int | Collection[int] | None = None,
        pending_timeout: float | None = None,
        job_timeout: float | None = None,
        lost_timeout: float = 600.0,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        end_from_trigger: bool | None = None,
        cluster_address: str | None = None,
        get_job_logs: bool | None = None,
        wait_for_job_done: bool | None = None,
        submit_job_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(either("cluster_id", cluster_id, "cluster_address", cluster_address))
        check_duration("submit_job_timeout", submit_job_timeout)
        job_timeout = either("job_timeout", job_timeout, "submit_job_timeout", submit_job_timeout)
        if get_job_logs is not None:
            check_flags(get_job_logs=get_job_logs)
            stream_logs = get_job_logs
        if wait_for_job_done is not None:
            check_flags(wait_for_job_done=wait_for_job_done)
            wait_for_completion = wait_for_job_done
        command_line(entrypoint, rendered=False)
        runtime_environment(runtime_env, working_dir, env_vars, py_modules, excludes, rendered=False)
        check_strings(submission_id=submission_id, lease_owner=lease_owner)
        if submission_id is not None:
            check_submission_id(submission_id)
        check_metadata(metadata, rendered=False)
        check_reservation(
            entrypoint_num_cpus, entrypoint_num_gpus, entrypoint_memory, entrypoint_resources, rendered=False
        )
        check_flags(wait_for_completion=wait_for_completion, stream_logs=stream_logs, stop_on_kill=stop_on_kill)
        self.skip_on_exit_code = _exit_codes(skip_on_exit_code)
        check_lease(lease_uri, lease_ttl)
        check_cost_limit(max_cost, price_table)
        check_duration("poll_interval", poll_interval, none_allowed=False)
        check_duration("lost_timeout", lost_timeout, none_allowed=False)
        check_duration("pending_timeout", pending_timeout)
        check_duration("job_timeout", job_timeout)
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
        self.deferrable = resolve_deferrable(deferrable)
        check_end_from_trigger(end_from_trigger)
        self.end_from_trigger = end_from_trigger
        self._marked_secrets = marked_names(env_vars_in(runtime_env), env_vars)
        self._prices: PriceTable | None = None

    def execute(self, context: Context) -> Any:
        """Adopt or submit the job, then wait for it."""
        return self._run(context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the job, or raise the reason for its failure."""
        passed: dict[str, Any] = (event or {}).get("passthrough") or {}
        try:
            result = result_of(event)
        except JobStoppedError as error:
            if not passed.get("adopted"):
                raise
            # The kill of the try that submitted the job was still in progress when this try adopted it.
            self.log.warning("%s An earlier try submitted it; running the next attempt", error.message)
            rerun: dict[str, Any] = self._run(context)
            return rerun
        except JobFailedError as error:
            reason = skip_reason(error, self.skip_on_exit_code)
            if reason is None:
                raise
            forget(context)
            raise AirflowSkipException(reason) from None
        forget(context)
        return job_result(result, passed)

    def _do_render_template_fields(self, parent: Any, *arguments: Any, **more: Any) -> None:
        """Mask secret environment variables at once: Airflow stores the rendered fields for its UI next."""
        super()._do_render_template_fields(parent, *arguments, **more)
        if parent is self:
            mask_secrets(self._marked_secrets, env_vars_in(self.runtime_env), self.env_vars)

    def _run(self, context: Context, cluster: str | None = None) -> Any:
        """Adopt or submit a job, then wait for it.

        :param cluster: cluster that replaces ``cluster_id``: the next generation of a shared cluster.
        """
        from airflow_provider_vertex_ray.core.threads import run_sync

        request = self._request(context)
        name = self._name(cluster or self.cluster_id)
        self._prices = load_price_table(self, self.price_table, name.location)
        try:
            started = run_sync(lambda: self._unless_killed(self._start(name, request, context)))
        except CLUSTER_GONE as error:
            return self._go_to_successor(context, name, error)
        job_id = started.found.submission_id
        page = Addresses.from_environment().dashboard_page(started.dashboard_uri)
        facts = {"cluster_id": started.name.cluster_id, "dashboard_url": page}
        persist_link_facts(
            context,
            project_id=started.name.project,
            location=started.name.location,
            cluster_id=started.name.cluster_id,
            dashboard_uri=started.dashboard_uri,
            submission_id=job_id,
        )
        for key in ("job_id", "submission_id"):
            # The former is the return value of the Google provider's operator.
            context["ti"].xcom_push(key=key, value=job_id)
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
            passthrough={**facts, "adopted": started.adopted},
            **self._connection_arguments(),
        )
        ended = started.found.job is not None and started.found.job.status.is_terminal
        return self._wait(context, trigger, self.deferrable and not ended)

    def _task_end(self, context: Context) -> dict[str, Any] | None:
        return task_end(self, context, self.end_from_trigger, skip_on_exit_code=self.skip_on_exit_code)

    def _trigger(self, **arguments: Any) -> WaitTrigger:
        """Return the trigger that waits for the job."""
        return VertexRayJobTrigger(**arguments)

    def _request(self, context: Context) -> JobRequest:
        """Return the submission request, without its submission ID.

        :raises InvalidArgumentError: a rendered argument is invalid.
        """
        from airflow_provider_vertex_ray.core.job.client import JobRequest
        from airflow_provider_vertex_ray.core.job.packages import check_local_code

        check_strings(submission_id=self.submission_id, lease_owner=self.lease_owner)
        if self.submission_id:
            check_submission_id(self.submission_id)
        check_metadata(unless_empty(self.metadata))
        check_reservation(
            self.entrypoint_num_cpus, self.entrypoint_num_gpus, self.entrypoint_memory, self.entrypoint_resources
        )
        check_lease(unless_empty(self.lease_uri), self.lease_ttl)
        self._holder(context)
        _, parts = task_owner(context)
        environment = runtime_environment(
            self.runtime_env, self.working_dir, self.env_vars, self.py_modules, self.excludes
        )
        if task_try(context).number == 1:
            # Later, an earlier try's job may be running, and can be waited for without its code.
            check_local_code(environment)
        secrets = mask_secrets(self._marked_secrets, environment.get("env_vars"))
        return JobRequest(
            entrypoint=command_line(self.entrypoint),
            submission_id="",
            runtime_env=environment,
            metadata={
                **(self.metadata or {}),
                **{f"airflow_{key}": value for key, value in parts.items()},
                **secret_metadata(secrets),
            },
            num_cpus=self.entrypoint_num_cpus,
            num_gpus=self.entrypoint_num_gpus,
            memory=self.entrypoint_memory,
            resources=self.entrypoint_resources,
        )

    async def _start(self, name: ClusterName, request: JobRequest, context: Context) -> StartedJob:
        record = remembered(context)
        self._job = self._job_of(record or Record(name.full, 1), context)
        if record is not None and record.cluster != name.full:
            earlier = await self._find_on_other_cluster(record, context)
            if earlier is not None:
                return earlier
            record = None
        from airflow_provider_vertex_ray.hooks.calls.job import usable_dashboard

        hook = self.job_hook
        async with hook.session() as (transport, _):
            cluster, lease = await self._held(await self.cluster_hook.get_cluster(name), context)
            dashboard = usable_dashboard(cluster)
            line = Line(transport, dashboard)
            async with hook.jobs(name, dashboard) as api:
                submission = self._submission(api, context)
                found = await submission.find(record.attempt if record else 1)
                self._job = KnownJob(name.full, found.submission_id, line=line)
                adopted = found.job is not None
                if not adopted:
                    check_budget(cluster, self.max_cost, self._prices, time.time())
                    check_driver_fits(cluster, request.num_cpus, request.num_gpus, request.memory)

                    async def prepare(ready: JobRequest) -> JobRequest:
                        remember(context, Record(name.full, found.attempt))
                        job = KnownJob(name.full, ready.submission_id, line=line)
                        self._about_to_submit(job, sent=False)
                        environment = await hook.prepare_environment(
                            name, ready.runtime_env, ready.submission_id, dashboard
                        )
                        # The upload may have taken minutes.
                        self._about_to_submit(job, sent=True)
                        return replace(ready, runtime_env=environment)

                    found, adopted = await submission.submit(found, request, prepare)
                started = StartedJob(name, dashboard, found, adopted, lease)
                self._log_started(started, request.entrypoint)
                return started


def _exit_codes(codes: Any) -> tuple[int, ...]:
    """Return the exit codes that skip the task.

    :raises InvalidArgumentError: it is neither a whole number nor a collection of them.
    """
    found = codes if isinstance(codes, (list, tuple, set, frozenset)) else () if codes is None else (codes,)
    if not all(is_whole(code) and 0 < code < 256 for code in found):
        raise InvalidArgumentError("skip_on_exit_code", codes, "Use a whole number from 1 to 255, or a list of them.")
    return tuple(found)
