"""Attempts of a task's job: the job that a try waits for, and the search for the one that an earlier try left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.job.state import Record, submission_prefix
from airflow_provider_vertex_ray.errors import JobNotStoppedError, VertexRayError
from airflow_provider_vertex_ray.operators.base import task_owner, task_try

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.job.client import JobsApi
    from airflow_provider_vertex_ray.core.job.submission import Found, Submission
    from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator

    Base = VertexRayBaseOperator
else:
    Base = object


@dataclass(frozen=True)
class StartedJob:
    """The job that a task waits for."""

    name: ClusterName
    dashboard_uri: str
    found: Found
    adopted: bool
    lease: dict[str, Any] | None = None

    @property
    def since(self) -> float:
        """Start of the deadlines in unix seconds: now or, for an adopted job, when Ray accepted it."""
        started = self.found.job.start_time if self.adopted and self.found.job else None
        return min(time.time(), started / 1000) if started else time.time()


class JobAttemptsMixin(Base):
    """Finds the job of an earlier try, on this cluster or on the one that that try was given."""

    submission_id: str | None
    entrypoint: Any

    async def _find_on_other_cluster(self, record: Record, context: Context) -> StartedJob | None:
        """Return the job that an earlier try left on another cluster than this try is given, or None.

        A job that still runs there is waited for there. If its task was cleared, the job is stopped.

        :raises JobNotStoppedError: a job whose task was cleared did not stop.
        """
        from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
        from airflow_provider_vertex_ray.hooks.job import usable_dashboard

        name = parse_cluster_name(record.cluster, None, None)
        hook = self.job_hook
        try:
            async with hook.session():
                dashboard = usable_dashboard(await self.cluster_hook.get_cluster(name))
                async with hook.jobs(name, dashboard) as api:
                    found = await self._submission(api, context).find(record.attempt)
        except JobNotStoppedError:
            raise
        except VertexRayError as error:
            self.log.warning(
                "Could not reach cluster %s, which an earlier try used; a job left there is not adopted: %s",
                record.cluster,
                error,
            )
            return None
        if found.job is None:
            return None
        started = StartedJob(name, dashboard, found, adopted=True)
        self._log_started(started, self.entrypoint)
        return started

    def _submission(self, api: JobsApi, context: Context) -> Submission:
        from airflow_provider_vertex_ray.core.job.submission import Submission

        this = task_try(context)
        _, parts = task_owner(context)
        prefix = self.submission_id or submission_prefix(
            parts["dag_id"], parts["task_id"], int(parts["map_index"]), this.owner
        )
        return Submission(api, prefix, this, notify=self.log.info)

    def _log_started(self, started: StartedJob, entrypoint: Any) -> None:
        job = started.found.job
        if job is None:
            message = "Submitted Ray job %s to %s: %s"
        elif job.status.is_terminal:
            message = "Ray job %s of an earlier try has already succeeded on %s; taking its result"
        else:
            message = "Ray job %s of this task was already submitted to %s by an earlier try; waiting for it"
        more = (entrypoint,) if job is None else ()
        self.log.info(message, started.found.submission_id, started.name.full, *more)
