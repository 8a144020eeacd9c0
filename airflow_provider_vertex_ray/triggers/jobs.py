"""Waiting for many jobs of one task, and submitting those of them that are not submitted yet."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.job.batch import BatchPlan
from airflow_provider_vertex_ray.errors import JobNotStoppedError, VertexRayError
from airflow_provider_vertex_ray.triggers.job_batch import BatchWait
from airflow_provider_vertex_ray.triggers.job_batch_output import BatchRules
from airflow_provider_vertex_ray.triggers.job_cluster import KILL_SECONDS, JobWaitTrigger
from airflow_provider_vertex_ray.triggers.job_pace import take_turn

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.client import JobsApi


class VertexRayJobsTrigger(JobWaitTrigger):
    """Wait for the end of many jobs, and submit those that are not submitted yet as others end.

    The result has ``outcomes``, packed, and ``reason``, the message of the first job that failed; or ``again``, if only
    a worker can submit the rest.

    :param cluster_name: full resource name of the cluster.
    :param plan: the jobs, as ``BatchPlan.packed`` returns them.
    :param dashboard_uri: the cluster's ``RAY_DASHBOARD_URI``, if it is known.
    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param poll_interval: seconds between two status requests at most; see ``job_pace.Pace`` for shorter pauses.
    :param max_active: number of jobs that may be on the cluster and not ended at a time; None for no limit.
    :param on_failure: ``continue`` to run all jobs in any case, ``stop`` to stop the others when one fails.
    :param pending_timeout: seconds within which the driver of each job must have started; otherwise it is stopped.
    :param job_timeout: seconds within which each job must have ended; otherwise it is stopped.
    :param lost_timeout: seconds after which jobs that cannot be read count as lost, and after which no further jobs are
        submitted if the cluster accepts none.
    :param logs: which jobs' last lines to copy to the task's log: ``failed``, ``all`` or ``none``.
    :param log_lines: number of these lines a job.
    :param read_results: whether to read the output of each job for its result.
    :param stop_on_kill: whether to stop the jobs when the waiting task is marked failed or successful, or is cleared.
    :param lease: the lease to renew meanwhile: ``uri``, ``cluster``, ``owner``, ``scope`` and ``ttl``; None for none.
    :param passthrough: JSON that is returned in the event unchanged.
    :raises JobLostError: the cluster was deleted or failed, or could not be read for ``lost_timeout`` seconds.
    :raises NotStorableError: all jobs succeeded, but their results are too large together.
    """

    def __init__(
        self,
        *,
        cluster_name: str,
        plan: str,
        dashboard_uri: str | None = None,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        poll_interval: float = 15.0,
        max_active: int | None = None,
        on_failure: str = "continue",
        pending_timeout: float | None = None,
        job_timeout: float | None = None,
        lost_timeout: float = 600.0,
        logs: str = "failed",
        log_lines: int = 20,
        read_results: bool = True,
        stop_on_kill: bool = False,
        lease: dict[str, Any] | None = None,
        passthrough: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            cluster_name=cluster_name,
            plan=plan,
            dashboard_uri=dashboard_uri,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            poll_interval=poll_interval,
            max_active=max_active,
            on_failure=on_failure,
            pending_timeout=pending_timeout,
            job_timeout=job_timeout,
            lost_timeout=lost_timeout,
            logs=logs,
            log_lines=log_lines,
            read_results=read_results,
            stop_on_kill=stop_on_kill,
            lease=lease,
            passthrough=passthrough,
        )
        self._closing = False

    @property
    def _rules(self) -> BatchRules:
        given = self.arguments
        return BatchRules(
            poll_interval=given["poll_interval"],
            max_active=given["max_active"],
            stop_at_failure=given["on_failure"] == "stop",
            pending_timeout=given["pending_timeout"],
            job_timeout=given["job_timeout"],
            lost_timeout=given["lost_timeout"],
            logs=given["logs"],
            log_lines=given["log_lines"],
            read_results=given["read_results"],
            stop_on_kill=given["stop_on_kill"],
        )

    async def wait(self) -> dict[str, Any]:
        """Wait for all jobs."""
        plan = BatchPlan.of(self.arguments["plan"])
        async with self._hook.session():
            started = await take_turn()
            try:
                async with self._jobs() as api, self._renewed_lease():
                    lost = functools.partial(self._check_lost, api)
                    work = BatchWait(api, plan, self._rules, self.log, lost, lambda: self._closing)
                    return await work.run()
            finally:
                started()

    def close(self) -> None:
        """Submit nothing more, because the task was killed while it waits in the worker."""
        self._closing = True

    async def killed(self) -> None:
        """Stop the jobs of this try, and no others.

        :raises JobNotStoppedError: some are still active.
        :raises VertexRayError: some may still be active, but the list of jobs cannot be read.
        """
        if not self.arguments["stop_on_kill"]:
            return
        from airflow_provider_vertex_ray.core.job.batch_client import stop_all

        self.close()
        ids = BatchPlan.of(self.arguments["plan"]).job_ids
        self.log.info("The task was killed; stopping its Ray jobs")
        async with self._jobs() as api:
            left = await stop_all(api, ids, KILL_SECONDS)
        if left:
            raise JobNotStoppedError(
                f"{len(left)} Ray jobs are still active {KILL_SECONDS:.0f} s after the stop request: "
                f"{', '.join(left[:10])}.",
                {"submission_ids": left},
            )

    async def _check_lost(self, api: JobsApi, since: float, error: VertexRayError) -> bool:
        self.log.warning("Could not read the statuses of the Ray jobs; retrying: %s", error.message)
        return await self._check_cluster(api, since, error, "The Ray jobs of this task", {}, plural=True)
