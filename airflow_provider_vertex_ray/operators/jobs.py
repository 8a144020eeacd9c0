"""Operator that runs many Ray jobs as one task: each of them exactly once for each attempt, even after crashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_vertex_ray.core.checks import check_choice, check_duration, check_whole
from airflow_provider_vertex_ray.core.job.batch import Batch, unpack
from airflow_provider_vertex_ray.core.job.batch_entries import Defaults, check_entries
from airflow_provider_vertex_ray.core.job.batch_results import entries_of, failure_of, unpack_outcomes
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import JOB_LINKS
from airflow_provider_vertex_ray.operators.arguments import check_counts, check_flags, check_strings, resolve_deferrable
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.job_attempts import prefix_of_task
from airflow_provider_vertex_ray.operators.job_cluster import CLUSTER_GONE, SharedClusterMixin
from airflow_provider_vertex_ray.operators.job_task_state import forget
from airflow_provider_vertex_ray.operators.jobs_start import JobsStartMixin, SecretRow
from airflow_provider_vertex_ray.operators.leases import LEASE_TTL, check_lease
from airflow_provider_vertex_ray.operators.masking import env_vars_in, marked_names, mask_secrets, secret_metadata
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.jobs import VertexRayJobsTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

MOST_LINES = 50
"""Maximum number of last lines of a job that are shown."""

JOBS_KEY = "jobs"
"""XCom key of what is known of each job when some of them failed."""


class VertexRaySubmitJobsOperator(JobsStartMixin, SharedClusterMixin, VertexRayBaseOperator):
    """Run many Ray jobs on an existing cluster as one task, which fails if any of them fails.

    For hundreds of short jobs that need no tasks of their own in Airflow's grid: the jobs are submitted together, and
    one trigger waits for all of them with one request at a time. Each job has its own submission ID, so that a lost
    worker or triggerer neither loses a job nor runs it twice. A retry runs the jobs again that did not succeed, and
    takes the results of the others. A clear runs all of them again.

    Returns a list with a dict for each job, in order: ``key``, ``submission_id``, ``status``, ``exit_code``,
    ``start_time``, ``end_time``, ``duration_seconds``, ``error`` and ``result``: the JSON that the job printed on a
    line that starts with ``VERTEX_RAY_RESULT``. If jobs fail, this list is in the XCom ``jobs``, without the details
    for which Airflow has no room.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param jobs: the jobs, up to 4,000: dicts with ``entrypoint``, ``runtime_env``, ``env_vars``, ``metadata``,
        ``entrypoint_num_cpus``, ``entrypoint_num_gpus``, ``entrypoint_memory``, ``entrypoint_resources`` and ``key``, a
        name of the job that is unique in the list; default: its place in it. Or the output of a task that returns such
        a list, which may be empty. (templated)
    :param entrypoint: shell command, or a list of arguments, of the jobs without one of their own. (templated)
    :param runtime_env: Ray runtime environment of the jobs without one of their own. (templated)
    :param working_dir: local folder, which is uploaded to the cluster, or the ``gs://`` or ``https://`` URI of a zip
        file, for all jobs. (templated)
    :param py_modules: local folders, ``.py`` files and wheels, or URIs of zip files and wheels, for all jobs.
        (templated)
    :param excludes: patterns in ``.gitignore`` syntax; matching files in local folders are not uploaded. (templated)
    :param env_vars: environment variables of all jobs; a job adds its own to them. Secrets are masked as by
        ``VertexRaySubmitJobOperator``. (templated)
    :param metadata: strings that Ray stores with all jobs; a job adds its own to them. (templated)
    :param entrypoint_num_cpus: CPUs to reserve for the driver of each job without a number of its own: a number, or
        the output of a task that returns one. None runs it on the head node, which has 0 logical CPUs. (templated)
    :param entrypoint_num_gpus: GPUs to reserve for the driver of each job. (templated)
    :param entrypoint_memory: memory to reserve for the driver of each job, in bytes. (templated)
    :param entrypoint_resources: custom resources to reserve for the driver of each job, by name. (templated)
    :param max_active: maximum number of jobs of the task that are on the cluster and have not ended; the others are
        submitted as these end. None submits all at once.
    :param on_failure: ``continue`` to run all jobs in any case, ``stop`` to stop the others when one fails. The task
        fails in both cases, and names the jobs that failed.
    :param logs: jobs whose last lines of output are copied to the task log when they have ended: ``failed``, ``all`` or
        ``none``. Each line begins with the key of its job.
    :param log_lines: maximum number of these lines for each job, up to 50.
    :param read_results: whether to read the output of each job for its result. If False, no result is returned, and the
        output of jobs that succeed is read only for ``logs="all"``.
    :param lease_uri: Cloud Storage folder for leases, such as ``gs://bucket/leases``. The run holds a lease on the
        cluster from before the submission until all jobs have ended. None: only the jobs themselves mark the cluster as
        in use. (templated)
    :param lease_ttl: seconds after which the lease expires unless it is renewed.
    :param lease_owner: owner of the lease; default: ``<dag_id>/<run_id>``. (templated)
    :param stop_on_kill: whether to stop all jobs when the task is marked failed or success, cleared, or killed by its
        own timeout. A restart of the triggerer never stops a job.
    :param pending_timeout: seconds within which the driver of each job must start, from its submission, else the job is
        stopped. None: no limit.
    :param job_timeout: seconds within which each job must end, from its submission, else it is stopped. None: no limit.
    :param lost_timeout: seconds to wait for a job that the cluster no longer knows, or for a cluster that does not
        answer.
    :param poll_interval: maximum number of seconds between two status requests.
    :param deferrable: whether to wait in the triggerer, without a worker slot; default:
        ``[operators] default_deferrable``.
    :raises InvalidArgumentError: an argument is invalid; raised before any job is submitted.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises NotARayClusterError: the resource is not a Ray cluster.
    :raises ClusterClosingError: the cluster is about to be deleted.
    :raises LeaseStoreError: the lease cannot be read or written.
    :raises PackageTooLargeError: a local folder exceeds Ray's upload limit.
    :raises SubmissionIdTakenError: a submission ID belongs to a job of another task.
    :raises JobsFailedError: jobs failed; names them, with the last lines of output of the first one.
    :raises JobLostError: the cluster is gone, or did not answer for ``lost_timeout``.
    :raises JobNotStoppedError: jobs of a cleared try did not stop.
    :raises NotStorableError: all jobs succeeded, but their results are too large together.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "jobs",
        "entrypoint",
        "runtime_env",
        "working_dir",
        "py_modules",
        "excludes",
        "env_vars",
        "metadata",
        "entrypoint_num_cpus",
        "entrypoint_num_gpus",
        "entrypoint_memory",
        "entrypoint_resources",
        "lease_uri",
        "lease_owner",
        *VertexRayBaseOperator.connection_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "jobs": "json",
        "entrypoint": "bash",
        "runtime_env": "json",
        "metadata": "json",
    }
    operator_extra_links = JOB_LINKS

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        jobs: Any,
        entrypoint: str | Sequence[str] | None = None,
        runtime_env: dict[str, Any] | None = None,
        working_dir: str | None = None,
        py_modules: Sequence[str] | None = None,
        excludes: Sequence[str] | None = None,
        env_vars: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: dict[str, float] | None = None,
        max_active: int | None = 50,
        on_failure: str = "continue",
        logs: str = "failed",
        log_lines: int = 20,
        read_results: bool = True,
        lease_uri: str | None = None,
        lease_ttl: float = LEASE_TTL,
        lease_owner: str | None = None,
        stop_on_kill: bool = True,
        pending_timeout: float | None = None,
        job_timeout: float | None = None,
        lost_timeout: float = 600.0,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        check_counts(max_active=max_active)
        check_choice("on_failure", on_failure, ("continue", "stop"))
        check_choice("logs", logs, ("failed", "all", "none"))
        check_whole("log_lines", log_lines, 1, MOST_LINES, f"Use a whole number from 1 to {MOST_LINES}.")
        check_flags(read_results=read_results, stop_on_kill=stop_on_kill)
        check_strings(lease_owner=lease_owner)
        check_lease(lease_uri, lease_ttl)
        check_duration("poll_interval", poll_interval, none_allowed=False)
        check_duration("lost_timeout", lost_timeout, none_allowed=False)
        check_duration("pending_timeout", pending_timeout)
        check_duration("job_timeout", job_timeout)
        self.cluster_id = cluster_id
        self.jobs = jobs
        self.entrypoint = entrypoint
        self.runtime_env = runtime_env
        self.working_dir = working_dir
        self.py_modules = py_modules
        self.excludes = excludes
        self.env_vars = env_vars
        self.metadata = metadata
        self.entrypoint_num_cpus = entrypoint_num_cpus
        self.entrypoint_num_gpus = entrypoint_num_gpus
        self.entrypoint_memory = entrypoint_memory
        self.entrypoint_resources = entrypoint_resources
        self.max_active = max_active
        self.on_failure = on_failure
        self.logs = logs
        self.log_lines = log_lines
        self.read_results = read_results
        self.lease_uri = lease_uri
        self.lease_ttl = lease_ttl
        self.lease_owner = lease_owner
        self.stop_on_kill = stop_on_kill
        self.pending_timeout = pending_timeout
        self.job_timeout = job_timeout
        self.lost_timeout = lost_timeout
        self.poll_interval = poll_interval
        self.deferrable = resolve_deferrable(deferrable)
        check_entries(jobs, self._defaults, rendered=False)
        self._marked_secrets = marked_names(*self._variables(None))
        self._trigger: VertexRayJobsTrigger | None = None

    def execute(self, context: Context) -> Any:
        """Adopt or submit the jobs, then wait for them."""
        return self._run(context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Return the jobs, or raise the reasons for their failures."""
        result = result_of(event)
        cluster = str(((event or {}).get("passthrough") or {}).get("cluster_name"))
        if result.get("again"):
            self.log.info("Submitting the rest of the Ray jobs in a worker, because %s", result["again"])
            return self._run(context, cluster, unpack(result["found"]))
        batch, outcomes = unpack_outcomes(result["outcomes"])
        entries = entries_of(batch, outcomes)
        failure = failure_of(batch, outcomes, result["reason"], cluster)
        if failure is not None:
            context["ti"].xcom_push(key=JOBS_KEY, value=entries)
            raise failure
        forget(context)
        return entries

    def on_kill(self) -> None:
        """Stop the jobs of this task, and no others, when the task is killed in the worker."""
        self._killed = True
        if self._trigger is not None:
            self._trigger.close()
        self._stop_after_kill()

    def _do_render_template_fields(self, parent: Any, *arguments: Any, **more: Any) -> None:
        """Mask secret environment variables at once: Airflow stores the rendered fields for its UI next."""
        super()._do_render_template_fields(parent, *arguments, **more)
        if parent is self:
            mask_secrets(self._marked_secrets, *self._variables(None))

    @property
    def _defaults(self) -> Defaults:
        return Defaults(
            entrypoint=self.entrypoint,
            runtime_env=self.runtime_env,
            working_dir=self.working_dir,
            py_modules=self.py_modules,
            excludes=self.excludes,
            env_vars=self.env_vars,
            metadata=self.metadata,
            entrypoint_num_cpus=self.entrypoint_num_cpus,
            entrypoint_num_gpus=self.entrypoint_num_gpus,
            entrypoint_memory=self.entrypoint_memory,
            entrypoint_resources=self.entrypoint_resources,
        )

    def _variables(self, entry: Any) -> list[Any]:
        """Return the dicts of environment variables of a job; of all jobs and the operator for None."""
        if isinstance(entry, Mapping):
            return [entry.get("env_vars"), env_vars_in(entry.get("runtime_env"))]
        entries = self.jobs if isinstance(self.jobs, (list, tuple)) else ()
        own = [each for entry in entries if isinstance(entry, Mapping) for each in self._variables(entry) if each]
        return [self.env_vars, env_vars_in(self.runtime_env), *own]

    def _checked(self, context: Context) -> tuple[tuple[str, ...], list[SecretRow]]:
        """Return the keys of all jobs, and what is to be submitted.

        :raises InvalidArgumentError: a rendered argument is invalid.
        """
        check_strings(lease_owner=self.lease_owner)
        check_lease(self.lease_uri or None, self.lease_ttl)
        self._holder(context)
        jobs = list(self.jobs) if isinstance(self.jobs, Sequence) and not isinstance(self.jobs, str) else self.jobs
        keys, rows = check_entries(jobs, self._defaults)
        found: list[SecretRow] = []
        # Jobs without variables of their own share one environment.
        known: dict[int, frozenset[str]] = {}
        for place, row in enumerate(rows):
            environment = id(row.runtime_env)
            if environment not in known:
                known[environment] = frozenset(mask_secrets(self._marked_secrets, row.runtime_env.get("env_vars")))
            own = mask_secrets(self._marked_secrets, *self._variables(jobs[place])) if known[environment] else set()
            if own and self.max_active is not None and self.max_active < len(rows):
                rule = (
                    "A job that is submitted later takes its secrets from an earlier one. Use max_active=None, or put "
                    "the secret into the env_vars of the operator."
                )
                raise InvalidArgumentError(f"jobs[{place}].env_vars[{min(own)!r}]", "***", rule)
            found.append(SecretRow(row, known[environment], secret_metadata(known[environment])))
        return keys, found

    def _run(self, context: Context, cluster: str | None = None, continued: dict[str, Any] | None = None) -> Any:
        """Adopt or submit the jobs, then wait for them.

        :param cluster: cluster that replaces ``cluster_id``: the next generation of a shared cluster, or the one on
            which the jobs are.
        :param continued: what the trigger has found, if jobs of this try are already submitted.
        """
        from airflow_provider_vertex_ray.core.threads import run_sync

        keys, rows = self._checked(context)
        if not rows:
            self.log.info("There are no Ray jobs to run: the list is empty")
            return []
        name = self._name(cluster or self.cluster_id)
        batch = Batch(prefix_of_task(context), keys)
        try:
            started = run_sync(lambda: self._start(name, batch, rows, context, cluster is None, continued))
        except CLUSTER_GONE as error:
            if continued is not None:
                raise
            return self._go_to_successor(context, name, error)
        persist_link_facts(
            context,
            project_id=started.name.project,
            location=started.name.location,
            cluster_id=started.name.cluster_id,
            dashboard_uri=started.dashboard_uri,
        )
        trigger = VertexRayJobsTrigger(
            cluster_name=started.name.full,
            plan=started.plan,
            dashboard_uri=started.dashboard_uri,
            poll_interval=self.poll_interval,
            max_active=self.max_active,
            on_failure=self.on_failure,
            pending_timeout=self.pending_timeout,
            job_timeout=self.job_timeout,
            lost_timeout=self.lost_timeout,
            logs=self.logs,
            log_lines=self.log_lines,
            read_results=self.read_results,
            stop_on_kill=self.stop_on_kill,
            lease=started.lease,
            passthrough={"cluster_name": started.name.full},
            **self._connection_arguments(),
        )
        self._trigger = trigger
        self._check_not_killed()
        return self._wait(context, trigger, self.deferrable)
