"""The jobs of a cluster as a table: search, filters, order. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_vertex_ray.core.deadlines import span
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.plugins.page.owners import Owner
from airflow_provider_vertex_ray.plugins.page.query import JOB_FILTERS, NO_DAG, ClusterQuery
from airflow_provider_vertex_ray.plugins.page.text import ago, has_words, moment, shortened
from airflow_provider_vertex_ray.plugins.page.timeline import overlaps
from airflow_provider_vertex_ray.plugins.page.visible import VisibleJob

LONGEST_ENTRYPOINT = 110
TONES = {
    JobStatus.RUNNING: "busy",
    JobStatus.PENDING: "warn",
    JobStatus.SUCCEEDED: "good",
    JobStatus.FAILED: "bad",
    JobStatus.STOPPED: "quiet",
    JobStatus.UNKNOWN: "quiet",
}
_SHOWN: Mapping[str, tuple[JobStatus, ...]] = {
    "all": tuple(JobStatus),
    "active": (JobStatus.RUNNING, JobStatus.PENDING, JobStatus.UNKNOWN),
    "failed": (JobStatus.FAILED,),
}


@dataclass(frozen=True)
class JobRow:
    """A job's row in the table."""

    submission_id: str
    status: str
    tone: str
    began: str
    began_at: str
    duration: str
    entrypoint: str
    whole_entrypoint: str
    message: str
    owner: Owner | None
    hidden: bool
    driver: bool
    active: bool


@dataclass(frozen=True)
class JobTable:
    """The table.

    :param rows: its rows.
    :param filters: name, number of jobs, and whether it is the chosen one, of each filter by status.
    :param dags: DAGs to filter by, and their numbers of jobs.
    :param fitting: number of jobs that fit the query.
    :param more: number of those that are not in the table.
    """

    rows: tuple[JobRow, ...]
    filters: tuple[tuple[str, int, bool], ...]
    dags: tuple[tuple[str, int], ...]
    fitting: int
    more: int


def job_table(jobs: Sequence[VisibleJob], query: ClusterQuery, now: float) -> JobTable:
    """Return the table of a cluster's jobs for a query."""
    words = query.q.casefold().split()
    period = query.period(now)
    found = [
        each
        for each in jobs
        if (not query.dag or _dag(each) == query.dag)
        and has_words(_searched(each), words)
        and (period is None or overlaps(each.job, *period, now))
    ]
    chosen = sorted((each for each in found if each.job.status in _SHOWN[query.show]), key=_KEYS[query.sort](now))
    dags = Counter(_dag(each) for each in jobs if not each.hidden)
    return JobTable(
        rows=tuple(job_row(each, now) for each in chosen[: query.jobs]),
        filters=tuple(
            (name, sum(1 for each in found if each.job.status in _SHOWN[name]), name == query.show)
            for name in JOB_FILTERS
        ),
        dags=tuple(sorted(dags.items())),
        fitting=len(chosen),
        more=max(0, len(chosen) - query.jobs),
    )


def job_row(visible: VisibleJob, now: float) -> JobRow:
    """Return a job's row in the table."""
    job = visible.job
    begun = None if job.start_time is None else job.start_time / 1000
    return JobRow(
        submission_id=job.submission_id,
        status=job.status.value,
        tone=TONES[job.status],
        began="-" if begun is None else ago(begun, now),
        began_at="" if begun is None else moment(begun),
        duration=span(_seconds(job, now)),
        entrypoint=shortened(job.entrypoint, LONGEST_ENTRYPOINT),
        whole_entrypoint=job.entrypoint[:2000],
        message=shortened(job.message.split(", last available logs")[0], 300)
        if job.status in (JobStatus.FAILED, JobStatus.PENDING)
        else "",
        owner=visible.owner,
        hidden=visible.hidden,
        driver=job.is_driver,
        active=not job.status.is_terminal,
    )


def _dag(each: VisibleJob) -> str:
    """Return the DAG to filter by; an empty text for a hidden one."""
    return "" if each.hidden else each.owner.dag_id if each.owner else NO_DAG


def _searched(each: VisibleJob) -> str:
    """Return what is searched of a job: only what its row shows."""
    if each.hidden:
        return ""
    owner = f"{each.owner.dag_id} {each.owner.run_id} {each.owner.task_id}" if each.owner else ""
    return f"{each.job.submission_id} {each.job.status.value} {each.job.entrypoint} {owner}".casefold()


def _seconds(job: Job, now: float) -> float | None:
    if job.start_time is None:
        return None
    if job.status.is_terminal:
        return job.duration_seconds
    return max(0.0, now - job.start_time / 1000)


def _started(sign: int) -> Callable[[float], Callable[[VisibleJob], Any]]:
    return lambda _: lambda each: (each.job.start_time is None, sign * (each.job.start_time or 0))


def _lasted(sign: int) -> Callable[[float], Callable[[VisibleJob], Any]]:
    def key(now: float) -> Callable[[VisibleJob], Any]:
        def of(each: VisibleJob) -> Any:
            seconds = _seconds(each.job, now)
            # One whose duration is unknown comes last, whatever the direction.
            return seconds is None, sign * (seconds or 0.0), each.job.submission_id

        return of

    return key


_KEYS: Mapping[str, Callable[[float], Callable[[VisibleJob], Any]]] = {
    "newest": _started(-1),
    "oldest": _started(1),
    "longest": _lasted(-1),
    "shortest": _lasted(1),
    "name": lambda _: lambda each: (each.hidden, each.job.submission_id),
}
