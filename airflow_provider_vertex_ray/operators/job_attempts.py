"""Attempts of a task's job: the job that a try waits for, and the search for the one that an earlier try left."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.job.state import Record, attempt_id, submission_prefix
from airflow_provider_vertex_ray.core.polling import TRANSIENT_ERRORS, Backoff, poll_until
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    DashboardNotReadyError,
    JobNotStoppedError,
    NotAuthorisedError,
    ServiceUnavailableError,
    VertexRayError,
)
from airflow_provider_vertex_ray.operators.base import task_owner, task_try
from airflow_provider_vertex_ray.operators.job_kill import KnownJob, Line

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.job.client import JobsApi
    from airflow_provider_vertex_ray.core.job.submission import Found, Submission
    from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator

    Base = VertexRayBaseOperator
else:
    Base = object


T = TypeVar("T")

_SAYS_NOTHING = (*TRANSIENT_ERRORS, NotAuthorisedError, DashboardNotReadyError)
"""Errors after which a cluster may still run a job; a dashboard answers 403 for a moment, too."""


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


class _Asks(Protocol):
    """What the search needs of a task."""

    poll_interval: float
    lost_timeout: float

    @property
    def log(self) -> Any:
        """The task's logger."""


def prefix_of_task(context: Context) -> str:
    """Return the prefix of the submission IDs of a task instance, the same for all its tries."""
    owner, parts = task_owner(context)
    return submission_prefix(parts["dag_id"], parts["task_id"], int(parts["map_index"]), owner)


async def of_earlier_cluster(task: _Asks, look: Callable[[], Awaitable[T]], cluster: str) -> T | None:
    """Return what ``look`` returns from a cluster that an earlier try used.

    A cluster that does not answer for a moment may run this task's job, which must not run twice: it is asked for as
    long as a wait asks before its job counts as lost.

    :return: None if the cluster is gone, or did not answer for ``lost_timeout``.
    :raises JobNotStoppedError: a job whose task was cleared did not stop.
    """

    def tell(error: VertexRayError, seconds: float) -> None:
        task.log.warning(
            "Could not read cluster %s, which an earlier try used; retrying in %.1f s: %s", cluster, seconds, error
        )

    async def once() -> tuple[T]:
        return (await look(),)

    try:
        (found,) = await poll_until(
            once,
            backoff=Backoff(task.poll_interval),
            deadline=deadline_after(task.lost_timeout),
            timed_out=lambda: ServiceUnavailableError(f"no answer for {task.lost_timeout:.0f} s"),
            on_unreadable=tell,
            transient=_SAYS_NOTHING,
            cut_off=False,
        )
    except JobNotStoppedError:
        raise
    except ClusterNotFoundError:
        # As after a Clear of a task that had succeeded: only a worker can delete the record.
        task.log.info("Cluster %s, which an earlier try used, no longer exists", cluster)
    except VertexRayError as error:
        task.log.warning(
            "Could not reach cluster %s, which an earlier try used; what was left there is not adopted: %s",
            cluster,
            error,
        )
    else:
        return found
    return None


class JobAttemptsMixin(Base):
    """Finds the job of an earlier try, on this cluster or on the one that that try was given."""

    submission_id: str | None
    entrypoint: Any
    _job: KnownJob | None
    poll_interval: float
    lost_timeout: float

    async def _find_on_other_cluster(self, record: Record, context: Context) -> StartedJob | None:
        """Return the job that an earlier try left on another cluster than this try is given, or None.

        A job that still runs there is waited for there. If its task was cleared, the job is stopped.

        :raises JobNotStoppedError: a job whose task was cleared did not stop.
        """
        from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
        from airflow_provider_vertex_ray.hooks.calls.job import usable_dashboard

        name = parse_cluster_name(record.cluster, None, None)
        hook = self.job_hook

        async def look() -> tuple[Line, Found]:
            async with hook.session() as (transport, _):
                dashboard = usable_dashboard(await self.cluster_hook.get_cluster(name))
                async with hook.jobs(name, dashboard) as api:
                    return Line(transport, dashboard), await self._submission(api, context).find(record.attempt)

        there = await of_earlier_cluster(self, look, record.cluster)
        if there is None or there[1].job is None:
            return None
        line, found = there
        self._job = KnownJob(record.cluster, found.submission_id, line=line)
        started = StartedJob(name, line.dashboard, found, adopted=True)
        self._log_started(started, self.entrypoint)
        return started

    def _submission(self, api: JobsApi, context: Context) -> Submission:
        from airflow_provider_vertex_ray.core.job.submission import Submission

        return Submission(api, self._prefix_of_ids(context), task_try(context), notify=self.log.info)

    def _prefix_of_ids(self, context: Context) -> str:
        return self.submission_id or prefix_of_task(context)

    def _job_of(self, record: Record, context: Context) -> KnownJob:
        """Return the job that an earlier try may have submitted."""
        job_id = attempt_id(self._prefix_of_ids(context), record.attempt)
        return KnownJob(record.cluster, job_id, owner=task_owner(context)[0])

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
