"""One cluster's page. Pure: facts in, texts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.cost.price_table import NodeKind
from airflow_provider_vertex_ray.core.deadlines import span
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.core.monitoring.metrics import Series
from airflow_provider_vertex_ray.plugins.page.cache import Cached
from airflow_provider_vertex_ray.plugins.page.log import LogTail
from airflow_provider_vertex_ray.plugins.page.owners import Owner
from airflow_provider_vertex_ray.plugins.page.plot import Curve, curve
from airflow_provider_vertex_ray.plugins.page.reader import HOUR, METRIC_STEP, ClusterFacts
from airflow_provider_vertex_ray.plugins.page.row import ClusterRow, is_reading, outside_links, stale_note
from airflow_provider_vertex_ray.plugins.page.text import ago, shortened
from airflow_provider_vertex_ray.plugins.page.timeline import Timeline, timeline
from airflow_provider_vertex_ray.plugins.page.view import Problem
from airflow_provider_vertex_ray.plugins.page.visible import VisibleJob

JOBS_SHOWN = 25
"""Number of jobs in the table at first, and added by each "show more"."""

SHOWN_HOLDERS = 20
"""Number of lease holders that are named; the others are counted."""

LONGEST_ENTRYPOINT = 110
TONES = {
    JobStatus.RUNNING: "busy",
    JobStatus.PENDING: "warn",
    JobStatus.SUCCEEDED: "good",
    JobStatus.FAILED: "bad",
    JobStatus.STOPPED: "quiet",
    JobStatus.UNKNOWN: "quiet",
}
FILTERS: Mapping[str, tuple[JobStatus, ...]] = {
    "all": tuple(JobStatus),
    "active": (JobStatus.RUNNING, JobStatus.PENDING, JobStatus.UNKNOWN),
    "failed": (JobStatus.FAILED,),
}
PLOTS = {"cpu": "CPU", "memory": "Memory", "gpu": "GPU"}


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
class PlotView:
    """A metric over the last hour.

    :param name: name of the metric.
    :param curve: its curve.
    :param summary: its last value and its range, as text.
    """

    name: str
    curve: Curve
    summary: str


@dataclass(frozen=True)
class LogView:
    """The end of a job's output, for the template."""

    job: JobRow
    lines: tuple[str, ...]
    about: str
    problem: Problem | None
    reading: bool
    links: tuple[tuple[str, str], ...]
    refused: bool = False


@dataclass(frozen=True)
class ClusterView:
    """The page of one cluster, for the template."""

    row: ClusterRow
    facts: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...]
    timeline: Timeline | None
    timeline_summary: str
    plots: tuple[PlotView, ...]
    plots_note: str
    jobs: tuple[JobRow, ...]
    filters: tuple[tuple[str, int, bool], ...]
    chosen: str
    more: int
    counted: bool
    log: LogView | None
    reading: bool


def cluster_view(
    row: ClusterRow,
    metrics: Mapping[str, Cached[tuple[Series, ...]]],
    log: LogView | None,
    *,
    now: float,
    chosen: str = "all",
    shown: int = JOBS_SHOWN,
) -> ClusterView:
    """Return the page of one cluster for a user.

    :param row: the cluster.
    :param metrics: utilisation by metric.
    :param log: output of the chosen job, if any.
    :param now: Unix time.
    :param chosen: filter of the jobs, one of ``FILTERS``.
    :param shown: number of jobs in the table.
    """
    facts = row.facts
    fitting = [each for each in row.jobs if each.job.status in FILTERS[chosen]]
    lane = timeline([each.job for each in row.jobs], node_names(facts), now)
    plots = tuple(_plot(name, seen.value or (), now) for name, seen in metrics.items())
    reading = is_reading(facts) or any(seen.reading for seen in metrics.values())
    return ClusterView(
        row=row,
        facts=_facts(row, now),
        problems=_problems(facts),
        timeline=lane,
        timeline_summary=_timeline_summary(lane, now),
        plots=plots,
        plots_note=_plots_note(plots, metrics, now),
        jobs=tuple(job_row(each, now) for each in fitting[:shown]),
        filters=tuple(
            (name, sum(1 for each in row.jobs if each.job.status in wanted), name == chosen)
            for name, wanted in FILTERS.items()
        ),
        chosen=chosen,
        more=max(0, len(fitting) - shown),
        counted=facts.jobs.at is not None,
        log=log,
        reading=reading or (log is not None and log.reading),
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


def log_view(
    visible: VisibleJob, seen: Cached[LogTail], cluster: Cluster, now: float, *, refused: bool = False
) -> LogView:
    """Return the end of a job's output for the template.

    :param refused: whether the user lacks the permission to read it.
    """
    tail = seen.value
    stale = f", {stale_note(seen, now)}" if stale_note(seen, now) else ""
    about = "" if tail is None else f"last {len(tail.lines)} lines, from {_source_of(tail)}{stale}. {tail.note}".strip()
    return LogView(
        job=job_row(visible, now),
        lines=tail.lines if tail else (),
        about=about,
        problem=Problem.of("The log", seen.error) if seen.error and tail is None else None,
        reading=seen.reading and not seen.known,
        links=outside_links(cluster, visible.job.submission_id),
        refused=refused,
    )


def _source_of(tail: LogTail) -> str:
    return "the dashboard" if tail.where == "dashboard" else tail.where


def node_names(facts: ClusterFacts) -> dict[str, str]:
    """Return the names of the nodes by Ray node id, the head first."""
    ids = facts.nodes.value.ids if facts.nodes.value else ()
    return {ray_id: "head" if place == 0 else f"worker {place}" for place, ray_id in enumerate(ids)}


def moment(at: float) -> str:
    """Format a time for tooltips and machines."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _seconds(job: Job, now: float) -> float | None:
    if job.start_time is None:
        return None
    if job.status.is_terminal:
        return job.duration_seconds
    return max(0.0, now - job.start_time / 1000)


def _facts(row: ClusterRow, now: float) -> tuple[tuple[str, str], ...]:
    cluster = row.facts.cluster
    nodes = row.facts.nodes.value
    alive = f", {nodes.alive} alive" if nodes is not None and nodes.alive is not None else ""
    pools = "; ".join(
        f"{pool.replicas} x {NodeKind(pool.machine_type, pool.accelerator_type or '', pool.accelerator_count)}"
        + (f" ({pool.autoscaling[0]} to {pool.autoscaling[1]})" if pool.autoscaling else "")
        for pool in cluster.pools
    )
    created = "" if cluster.created is None else f" (created {moment(cluster.created)})"
    cost = " · ".join(filter(None, (row.cost, row.hourly, row.node_hours)))
    known = (
        ("Nodes", f"{row.nodes}{alive}" + (f", {row.scaling}" if row.scaling else "")),
        ("Pools", pools),
        ("Age", f"{row.age}{created}"),
        ("Cost so far", f"{cost} (at the current size since its creation)" if cost else ""),
        ("Shared as", row.shared),
        ("Lease holders", _some(row.holders) or ("nobody" if row.facts.lease.at is not None else "")),
        ("Project", f"{cluster.project}, {cluster.location}"),
        ("Connection", row.facts.source.gcp_conn_id),
    )
    return tuple((name, text) for name, text in known if text)


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN_HOLDERS} more" if len(names) > SHOWN_HOLDERS else ""
    return ", ".join(names[:SHOWN_HOLDERS]) + more


def _problems(facts: ClusterFacts) -> tuple[Problem, ...]:
    found = []
    where = f"Connection {facts.source.gcp_conn_id}, cluster {facts.cluster.cluster_id}"
    if error := facts.jobs.error or facts.nodes.error:
        found.append(Problem.of(f"{where}: the dashboard does not answer", error))
    if facts.lease.error:
        found.append(Problem.of(f"{where}: the lease cannot be read", facts.lease.error))
    if facts.prices.error:
        found.append(Problem.of("The prices cannot be read", facts.prices.error))
    return tuple(found)


def _timeline_summary(lane: Timeline | None, now: float) -> str:
    if lane is None:
        return ""
    nodes = ", ".join(f"{len(group.bars)} on {group.label}" for group in lane.groups)
    left = f" {lane.left_out} more are not shown." if lane.left_out else ""
    return f"{lane.shown} jobs of the last {span(now - lane.start)}, by the node of their driver: {nodes}.{left}"


def _plot(name: str, series: Sequence[Series], now: float) -> PlotView:
    points = series[0].points if series else ()
    end = now // METRIC_STEP * METRIC_STEP
    shape = curve(points, end - HOUR, end, METRIC_STEP)
    if shape.last is None:
        return PlotView(PLOTS[name], shape, "no data")
    return PlotView(PLOTS[name], shape, f"{shape.last:.0f} % now, {shape.least:.0f} to {shape.most:.0f} % in the hour")


def _plots_note(plots: Sequence[PlotView], metrics: Mapping[str, Cached[tuple[Series, ...]]], now: float) -> str:
    failed = next((seen for seen in metrics.values() if seen.error is not None), None)
    if failed is not None and failed.error is not None:
        stale = stale_note(failed, now)
        return f"Cloud Monitoring does not answer: {failed.error} {stale}".strip()
    if any(seen.reading and not seen.known for seen in metrics.values()):
        return "reading…"
    if all(plot.curve.last is None for plot in plots):
        return "Cloud Monitoring has no metrics for the last hour; those of a new cluster appear after a few minutes."
    return ""
