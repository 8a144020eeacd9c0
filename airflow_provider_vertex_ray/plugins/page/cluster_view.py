"""One cluster's page. Pure: facts in, texts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.cost.price_table import NodeKind
from airflow_provider_vertex_ray.core.deadlines import span
from airflow_provider_vertex_ray.core.monitoring.metrics import Series
from airflow_provider_vertex_ray.plugins.page.cache import Cached
from airflow_provider_vertex_ray.plugins.page.job_table import JobRow, JobTable, job_row, job_table
from airflow_provider_vertex_ray.plugins.page.log import LogTail
from airflow_provider_vertex_ray.plugins.page.plot import Curve, curve
from airflow_provider_vertex_ray.plugins.page.query import ClusterQuery
from airflow_provider_vertex_ray.plugins.page.reader import HOUR, METRIC_STEP, ClusterFacts
from airflow_provider_vertex_ray.plugins.page.row import ClusterRow, is_reading, outside_links, stale_note
from airflow_provider_vertex_ray.plugins.page.spending import Spending, spending
from airflow_provider_vertex_ray.plugins.page.text import moment
from airflow_provider_vertex_ray.plugins.page.timeline import Timeline, timeline
from airflow_provider_vertex_ray.plugins.page.view import Problem
from airflow_provider_vertex_ray.plugins.page.visible import VisibleJob

SHOWN_HOLDERS = 20
"""Number of lease holders that are named; the others are counted."""

PLOTS = {"cpu": "CPU", "memory": "Memory", "gpu": "GPU"}


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
    """The end of a job's output, for the template.

    :param find: text that the lines contain; empty for all lines.
    """

    job: JobRow
    lines: tuple[str, ...]
    about: str
    problem: Problem | None
    reading: bool
    links: tuple[tuple[str, str], ...]
    refused: bool = False
    find: str = ""


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
    spending: Spending | None
    table: JobTable
    counted: bool
    log: LogView | None
    reading: bool


def cluster_view(
    row: ClusterRow,
    metrics: Mapping[str, Cached[tuple[Series, ...]]],
    log: LogView | None,
    *,
    now: float,
    query: ClusterQuery | None = None,
) -> ClusterView:
    """Return the page of one cluster for a user.

    :param row: the cluster.
    :param metrics: utilisation by metric.
    :param log: output of the chosen job, if any.
    :param now: Unix time.
    :param query: which jobs to show, and in which period; None for all.
    """
    facts = row.facts
    wanted = query or ClusterQuery()
    jobs = [each.job for each in row.jobs]
    lane = timeline(jobs, node_names(facts), now, wanted.period(now))
    plots = tuple(_plot(name, seen.value or (), now) for name, seen in metrics.items())
    reading = is_reading(facts) or any(seen.reading for seen in metrics.values())
    return ClusterView(
        row=row,
        facts=_facts(row, now),
        problems=_problems(facts),
        timeline=lane,
        timeline_summary=_timeline_summary(lane),
        plots=plots,
        plots_note=_plots_note(plots, metrics, now),
        spending=spending(facts, jobs, now),
        table=job_table(row.jobs, wanted, now),
        counted=facts.jobs.at is not None,
        log=log,
        reading=reading or (log is not None and log.reading),
    )


def log_view(
    visible: VisibleJob, seen: Cached[LogTail], cluster: Cluster, now: float, *, refused: bool = False, find: str = ""
) -> LogView:
    """Return the end of a job's output for the template.

    :param find: text that the lines contain; empty for all lines.
    :param refused: whether the user lacks the permission to read it.
    """
    tail = seen.value
    stale = f", {stale_note(seen, now)}" if stale_note(seen, now) else ""
    about = ""
    if tail is not None:
        lines = "1 line" if len(tail.lines) == 1 else f"{len(tail.lines)} lines"
        which = f"{lines} with “{find}”" if find else f"last {lines}"
        about = f"{which}, from {_source_of(tail)}{stale}. {tail.note}".strip()
    return LogView(
        job=job_row(visible, now),
        lines=tail.lines if tail else (),
        about=about,
        problem=Problem.of("The log", seen.error) if seen.error and tail is None else None,
        reading=seen.reading and not seen.known,
        links=outside_links(cluster, visible.job.submission_id),
        refused=refused,
        find=find,
    )


def _source_of(tail: LogTail) -> str:
    return "the dashboard" if tail.where == "dashboard" else tail.where


def node_names(facts: ClusterFacts) -> dict[str, str]:
    """Return the names of the nodes by Ray node id, the head first."""
    ids = facts.nodes.value.ids if facts.nodes.value else ()
    return {ray_id: "head" if place == 0 else f"worker {place}" for place, ray_id in enumerate(ids)}


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


def _timeline_summary(lane: Timeline | None) -> str:
    if lane is None:
        return ""
    nodes = ", ".join(f"{group.count} on {group.label}" for group in lane.groups)
    where = f", by the node of their driver: {nodes}" if nodes else ""
    until = "" if lane.end_label == "now" else f" until {lane.end_label} UTC"
    others = (
        (lane.earlier, "ended earlier"),
        (lane.later, "started later"),
        (lane.waiting, "not started yet"),
    )
    left = ", ".join(f"{count} {what}" for count, what in others if count)
    counted = sum(column.count for group in lane.groups for column in group.columns)
    shown = f"{_jobs(lane.shown)} in {span(lane.end - lane.start)}{until}{where}."
    if counted:
        shown += f" {counted} short ones are counted in columns; choose a column to see its jobs."
    return f"{shown} Other jobs: {left}." if left else shown


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


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
