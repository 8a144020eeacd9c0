"""The submission of many jobs by one task: find what earlier tries left, upload the code, submit the first ones."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_vertex_ray.core.deadlines import finishing, within
from airflow_provider_vertex_ray.core.job.batch import WINDOW, Batch, BatchPlan, JobRow, Search, search
from airflow_provider_vertex_ray.core.job.driver_size import check_driver_fits
from airflow_provider_vertex_ray.core.job.state import Record
from airflow_provider_vertex_ray.errors import (
    InvalidArgumentError,
    JobNotStoppedError,
    JobStoppedError,
    VertexRayError,
)
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, is_last_try, task_owner, task_try
from airflow_provider_vertex_ray.operators.job_attempts import of_earlier_cluster
from airflow_provider_vertex_ray.operators.job_kill import ANSWER_SECONDS, Line
from airflow_provider_vertex_ray.operators.job_task_state import remember, remembered
from airflow_provider_vertex_ray.triggers.job_cluster import KILL_SECONDS

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.cluster.state import Cluster
    from airflow_provider_vertex_ray.core.job.client import JobsApi

    Base = VertexRayBaseOperator
else:
    Base = object

KILLED = "The task was killed while it was submitting its Ray jobs."

CANCELLED_SECONDS = 5.0
"""Seconds to stop the jobs of a submission that was cancelled: Airflow waits for it in the end of a killed task."""


class SecretRow(NamedTuple):
    """A job to submit, and which of its variables are secrets.

    :param row: the job
    :param secrets: names of these variables
    :param metadata: metadata by which the triggerer and the page know them
    """

    row: JobRow
    secrets: frozenset[str]
    metadata: dict[str, str]

    @property
    def values(self) -> dict[str, str]:
        """Return the secrets by name."""
        variables = self.row.runtime_env.get("env_vars") or {}
        return {name: variables[name] for name in self.secrets}


class StartedJobs(NamedTuple):
    """The jobs that a task waits for.

    :param name: their cluster
    :param dashboard_uri: address of its dashboard
    :param plan: the jobs, packed for the trigger
    :param lease: the lease for the trigger to renew; None for none
    """

    name: ClusterName
    dashboard_uri: str
    plan: str
    lease: dict[str, Any] | None


class Ours(NamedTuple):
    """The jobs of the task that a kill stops.

    :param line: the way to their cluster
    :param owner: the task, as their metadata names it
    :param prefix: what their submission IDs begin with
    :param ids: those that may be active; None as long as the cluster was not asked
    """

    line: Line
    owner: str
    prefix: str
    ids: tuple[str, ...] | None = None

    async def active(self, api: JobsApi) -> frozenset[str]:
        """Return the IDs of those that may be active, also of earlier tries."""
        if self.ids is not None:
            return frozenset(self.ids)
        jobs = await api.list_task(self.owner, self.prefix)
        return frozenset(job.submission_id for job in jobs if not job.status.is_terminal)


class JobsStartMixin(Base):
    """Finds the jobs of earlier tries, and submits the first ones of the others."""

    max_active: int | None
    metadata: dict[str, str] | None
    stop_on_kill: bool
    poll_interval: float
    lost_timeout: float
    _killed = False
    _ours: Ours | None = None
    """The jobs to stop when the task is killed in the worker; None as long as there is no way to a cluster."""

    if TYPE_CHECKING:

        async def _held(self, cluster: Cluster, context: Context) -> tuple[Cluster, dict[str, Any] | None]: ...

    async def _start(
        self,
        name: ClusterName,
        batch: Batch,
        rows: Sequence[SecretRow],
        context: Context,
        may_move: bool,
        continued: Mapping[str, Any] | None,
    ) -> StartedJobs:
        """Submit the first jobs, and plan the others.

        :param name: the cluster.
        :param batch: the jobs of the task.
        :param rows: what is to be submitted for each.
        :param context: Airflow's context.
        :param may_move: whether to continue on another cluster if an earlier try has left jobs there.
        :param continued: what the trigger has found, if jobs of this try are already submitted.
        """
        from airflow_provider_vertex_ray.core.job.packages import check_local_code
        from airflow_provider_vertex_ray.hooks.calls.job import usable_dashboard

        this = task_try(context)
        if this.number == 1 and continued is None:
            # Later, there may be nothing left to submit, and the code may be gone.
            for environment in {id(each.row.runtime_env): each.row.runtime_env for each in rows}.values():
                check_local_code(environment)
        if may_move:
            name = await self._cluster_of_earlier_try(name, batch, context)
        hook = self.job_hook
        async with hook.session() as (transport, _):
            cluster, lease = await self._held(await self.cluster_hook.get_cluster(name), context)
            dashboard = usable_dashboard(cluster)
            async with hook.jobs(name, dashboard) as api:
                ours = Ours(Line(transport, dashboard), this.owner, f"{batch.prefix}-")
                # Before the search and the upload of the code, which may take minutes: a kill may come meanwhile.
                self._ours = ours
                first: frozenset[str] = frozenset()
                active: frozenset[str] | None = None
                try:
                    found = await self._search(api, batch, context, continued)
                    active = frozenset(batch.job_id(place, found.attempts[place]) for place in found.active)
                    self._ours = ours = ours._replace(ids=tuple(active))
                    self._check_not_killed()
                    await self._stop(api, found.stop)
                    _check_drivers_fit(cluster, {n: row for n, row in enumerate(rows) if n not in found.kept})
                    remember(context, Record(name.full, 1))
                    adopted = found.active if continued is None else frozenset(continued["adopted"])
                    plan, packed = await self._plan(name, dashboard, batch, rows, found, adopted, context)
                    first = frozenset(map(plan.job_id, plan.todo[: plan.sent]))
                    # First those that may exist already.
                    self._ours = ours._replace(ids=tuple(dict.fromkeys((*active, *first, *plan.job_ids))))
                    await self._submit_first(api, plan)
                except asyncio.CancelledError:
                    # By execution_timeout, or the exception with which Airflow 2 ends a killed task.
                    await self._stop_after_error(api, first, active, context, CANCELLED_SECONDS)
                    raise
                except Exception:
                    await self._stop_after_error(api, first, active, context)
                    raise
                later = len(plan.todo) - plan.sent
                rest = f"; {later} more will be submitted as others end" if later else ""
                self.log.info("Submitted %d Ray jobs to %s%s", plan.sent, name.full, rest)
                if found.kept and continued is None:
                    self.log.info(
                        "%d Ray jobs of this task are not run again: %d have succeeded in an earlier try, %d are still "
                        "active",
                        len(found.kept),
                        len(found.kept) - len(found.active),
                        len(found.active),
                    )
                return StartedJobs(name, dashboard, packed, lease)

    async def _search(
        self, api: JobsApi, batch: Batch, context: Context, continued: Mapping[str, Any] | None
    ) -> Search:
        """Find what is on the cluster already."""
        this = task_try(context)
        jobs = await api.list_task(this.owner, f"{batch.prefix}-")
        if continued is not None:
            submitted = frozenset(continued["submitted"])
            attempts = tuple(continued["attempts"])
            active = {job.submission_id for job in jobs if not job.status.is_terminal}
            ids = {place: batch.job_id(place, attempts[place]) for place in submitted}
            return Search(
                attempts, submitted, frozenset(place for place, job_id in ids.items() if job_id in active), ()
            )
        return search(batch, jobs, this)

    async def _stop(self, api: JobsApi, submission_ids: Collection[str]) -> None:
        """Stop jobs of this task that nobody waits for.

        :raises JobNotStoppedError: some are still active.
        """
        from airflow_provider_vertex_ray.core.job.batch_client import stop_all
        from airflow_provider_vertex_ray.core.job.submission import STOP_SECONDS

        if not submission_ids:
            return
        self.log.info("Stopping %d Ray jobs of a cleared try, or of entries that are gone", len(submission_ids))
        left = await stop_all(api, submission_ids, STOP_SECONDS, submitting=False)
        if left:
            raise JobNotStoppedError(
                f"{len(left)} Ray jobs of a cleared try are still active {STOP_SECONDS:.0f} s after the stop request: "
                f"{', '.join(left[:10])}.",
                {"submission_ids": left},
            )

    async def _cluster_of_earlier_try(self, name: ClusterName, batch: Batch, context: Context) -> ClusterName:
        """Return the cluster on which an earlier try left jobs to wait for, if it can be reached, else ``name``."""
        from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
        from airflow_provider_vertex_ray.hooks.calls.job import usable_dashboard

        record = remembered(context)
        if record is None or record.cluster == name.full:
            return name
        other = parse_cluster_name(record.cluster, None, None)
        this = task_try(context)

        async def look() -> bool:
            async with self.job_hook.session():
                dashboard = usable_dashboard(await self.cluster_hook.get_cluster(other))
                async with self.job_hook.jobs(other, dashboard) as api:
                    found = search(batch, await api.list_task(this.owner, f"{batch.prefix}-"), this)
                    if not found.kept:
                        await self._stop(api, found.stop)
                    return bool(found.kept)

        if not await of_earlier_cluster(self, look, record.cluster):
            return name
        self.log.info("Continuing on cluster %s, on which an earlier try has left jobs", record.cluster)
        return other

    async def _plan(
        self,
        name: ClusterName,
        dashboard: str,
        batch: Batch,
        rows: Sequence[SecretRow],
        found: Search,
        adopted: frozenset[int],
        context: Context,
    ) -> tuple[BatchPlan, str]:
        """Upload the code of the jobs that are still to be submitted.

        :return: the plan, and the same packed for the trigger, without secrets
        :raises InvalidArgumentError: the plan is too large
        """
        todo = tuple(place for place in range(len(rows)) if place not in found.kept)
        sent = len(todo) if self.max_active is None else min(len(todo), max(0, self.max_active - len(found.active)))
        if todo and not sent and any(rows[place].secrets for place in todo):
            # The others take their secrets from it. For a moment, it is one too many.
            sent = 1
        this = task_try(context)
        ready: dict[str, dict[str, Any]] = {}
        planned: dict[int, JobRow] = {}
        for place in todo:
            row = rows[place].row
            text = json.dumps(row.runtime_env, sort_keys=True)
            if text not in ready:
                job_key = f"{batch.prefix}/{this.number}/{hashlib.sha256(text.encode()).hexdigest()}"
                ready[text] = await self.job_hook.prepare_environment(name, row.runtime_env, job_key, dashboard)
            planned[place] = replace(row, runtime_env=ready[text], metadata={**row.metadata, **rows[place].metadata})
        _, parts = task_owner(context)
        plan = BatchPlan(
            batch=batch,
            this=this,
            attempts=found.attempts,
            adopted=adopted,
            todo=todo,
            sent=sent,
            rows=planned,
            metadata={
                **(self.metadata or {}),
                **{f"airflow_{key}": each for key, each in parts.items()},
            },
        )
        hidden = {place: self._without_secrets(place, rows, planned, plan) for place in todo[sent:]}
        # Before anything is submitted: it may be too large.
        packed = replace(plan, rows=hidden).packed()
        return replace(plan, rows={**planned, **hidden}), packed

    @staticmethod
    def _without_secrets(
        place: int, rows: Sequence[SecretRow], planned: Mapping[int, JobRow], plan: BatchPlan
    ) -> JobRow:
        """Return a job for the plan: without its secrets, but with the job that has them.

        :raises InvalidArgumentError: none of the jobs that are submitted now has them.
        """
        row, values = planned[place], rows[place].values
        if not values:
            return row
        for other in plan.todo[: plan.sent]:
            if values.items() <= rows[other].values.items():
                variables = {name: each for name, each in row.runtime_env["env_vars"].items() if name not in values}
                return replace(
                    row,
                    runtime_env={**row.runtime_env, "env_vars": variables},
                    hidden=tuple(sorted(values)),
                    hidden_in=plan.job_id(other),
                )
        raise InvalidArgumentError(
            f"jobs[{place}].runtime_env['env_vars'][{min(values)!r}]",
            "***",
            "A job that is submitted later takes its secrets from an earlier one, and none of these has this one. Use "
            "max_active=None, or put the secret into the env_vars of the operator.",
        )

    def _check_not_killed(self) -> None:
        """Check that the task may still submit jobs.

        :raises JobStoppedError: it was killed.
        """
        if self._killed:
            raise JobStoppedError(KILLED)

    async def _submit_first(self, api: JobsApi, plan: BatchPlan) -> None:
        """Submit the first jobs.

        :raises VertexRayError: a job could not be submitted; names it by its place.
        """
        from airflow_provider_vertex_ray.core.job.batch_client import Submitter, each

        submitter = Submitter(api, plan)

        async def one(place: int) -> None:
            try:
                await submitter.submit(place, (plan.rows or {})[place])
            except VertexRayError as error:
                raise type(error)(f"jobs[{place}] could not be submitted: {error.message}", error.details) from error

        first = plan.todo[: plan.sent]
        for begin in range(0, len(first), WINDOW):
            self._check_not_killed()
            # Ray goes on with a submission that is cancelled here, so there is a job to stop.
            await finishing(each(first[begin : begin + WINDOW], one), lambda: ANSWER_SECONDS)
        self._check_not_killed()

    async def _stop_after_error(
        self,
        api: JobsApi,
        first: frozenset[str],
        active: frozenset[str] | None,
        context: Context,
        limit: float | None = None,
    ) -> None:
        """Stop what this try has submitted and, unless a retry adopts them, the jobs that were active before.

        :param api: Jobs API of the cluster.
        :param first: IDs of the jobs that this try has submitted, or was about to.
        :param active: IDs of the jobs that were active before; None if they are not known yet.
        :param context: Airflow's context.
        :param limit: seconds after which to give up in any case; None for no limit.
        """
        from airflow_provider_vertex_ray.core.job.batch_client import stop_all

        if self._killed and not self.stop_on_kill:
            return
        # After a kill again, because some of them may have been on their way while the others were stopped.
        every = self._killed or is_last_try(context)
        left: list[str] = []
        try:
            if every and active is None and self._ours is not None:
                active = await within(limit or CANCELLED_SECONDS, self._ours.active(api))
            if ids := first | (active or frozenset()) if every else first:
                left = await within(limit, stop_all(api, ids, KILL_SECONDS, at_once=limit is not None))
        except (VertexRayError, asyncio.TimeoutError) as error:
            why = str(error) or f"they did not end within {limit} s"
            self.log.warning("Could not stop the Ray jobs of this task, which may still be active: %s", why)
            return
        self._warn_of_active(left)

    def _stop_after_kill(self) -> None:
        """Stop the jobs of this task, because it was killed in the worker."""
        from airflow_provider_vertex_ray.core.job.batch_client import stop_all
        from airflow_provider_vertex_ray.core.threads import run_sync

        if self._ours is None or not self.stop_on_kill:
            return
        ours = self._ours
        if ours.ids == ():
            return

        async def stop() -> list[str]:
            async with ours.line.open() as api:
                ids = await ours.active(api)
                # Airflow 3 ends the process 5 s after the SIGTERM, which a long list of jobs alone may take.
                return await stop_all(api, ids, KILL_SECONDS, at_once=True) if ids else []

        left = run_sync(stop)
        # Last, because the thread that the kill interrupted may be writing to the log, and keep its lock.
        self.log.info("The task was killed; its Ray jobs were stopped")
        self._warn_of_active(left)

    def _warn_of_active(self, left: Sequence[str]) -> None:
        if left:
            self.log.warning("%d Ray jobs are still active after the stop request: %s", len(left), ", ".join(left[:10]))


def _check_drivers_fit(cluster: Cluster, rows: Mapping[int, SecretRow]) -> None:
    """Validate that some node of the cluster is large enough for the driver of each job.

    :raises InvalidArgumentError: none is; names the first job, before any is submitted.
    """
    fit: set[tuple[Any, ...]] = set()
    for place, row in rows.items():
        reserved = row.row.reservation[:3]
        if reserved in fit:
            continue
        try:
            check_driver_fits(cluster, *reserved)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"jobs[{place}].{error.field}", error.value, error.rule) from None
        fit.add(reserved)
