"""What a cluster has cost over time, and how much of that while no job ran. Pure; the template draws it.

Vertex AI does not report past sizes of a cluster: the figures assume its current size since its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.state import BILLED_STATES
from airflow_provider_vertex_ray.core.cost.pricing import HOUR, nodes_of
from airflow_provider_vertex_ray.core.deadlines import span
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.plugins.page.reader import MOST_JOBS, ClusterFacts
from airflow_provider_vertex_ray.plugins.page.row import hourly_cost
from airflow_provider_vertex_ray.plugins.page.text import money, number
from airflow_provider_vertex_ray.plugins.page.timeline import clock

STEPS = (60.0, 300.0, 900.0, HOUR, 6 * HOUR, 24 * HOUR)
"""Seconds of a column."""

COLUMNS = 30
"""Maximum number of columns."""

HEIGHT = 64.0
LONGEST = 30 * 24 * HOUR
"""Seconds back from now that are shown at most: the age at which clusters should be recreated."""


@dataclass(frozen=True)
class Spent:
    """The cost of a part of the time.

    :param parts: kind (``used``, ``idle`` or ``unread``), vertical position and height of each part.
    :param summary: the figures as text.
    """

    x: float
    width: float
    parts: tuple[tuple[str, float, float], ...]
    summary: str


@dataclass(frozen=True)
class Spending:
    """The cost over time.

    :param begins: label of the start.
    :param step: length of a column, as text.
    :param summary: the figures as text.
    :param most: the highest amount of a column, as text.
    """

    columns: tuple[Spent, ...]
    begins: str
    step: str
    summary: str
    most: str


def spending(facts: ClusterFacts, jobs: Sequence[Job], now: float) -> Spending | None:
    """Return the cost of a cluster over time; None if it is not billed or its jobs are not known.

    :param facts: the cluster.
    :param jobs: its jobs, of which only the times count.
    :param now: Unix time.
    """
    cluster, since = facts.cluster, facts.cluster.started
    if cluster.state not in BILLED_STATES or since is None or facts.jobs.at is None or now - since < STEPS[0]:
        return None
    start = max(since, now - LONGEST)
    step = next((each for each in STEPS if (now - start) / each <= COLUMNS - 1), STEPS[-1])
    first = start // step * step
    busy = _united((job.start_time / 1000, _end(job, now)) for job in jobs if job.start_time)
    # Of more jobs, only the newest ones are kept.
    known = min((begin for begin, _ in busy), default=start) if len(jobs) >= MOST_JOBS else start
    hourly, prices = hourly_cost(facts), facts.prices.value
    nodes = float(sum(nodes_of(cluster).values()))

    def said(seconds: float) -> str:
        if hourly is None or prices is None:
            return f"{number(nodes * seconds / HOUR)} node-hours"
        return money(hourly * seconds / HOUR, prices.currency)

    columns = []
    totals = {"used": 0.0, "idle": 0.0, "unread": 0.0}
    count = int((now - first) // step) + 1
    for place in range(count):
        begin, end = max(start, first + place * step), min(now, first + (place + 1) * step)
        if end <= begin:
            continue
        used = sum(max(0.0, min(end, until) - max(begin, at)) for at, until in busy)
        unread = min(max(0.0, min(end, known) - begin), end - begin - used) if known > begin else 0.0
        shares = {"used": used, "idle": max(0.0, end - begin - used - unread), "unread": max(0.0, unread)}
        parts, bottom = [], HEIGHT
        for kind, seconds in shares.items():
            totals[kind] += seconds
            height = round(HEIGHT * seconds / step, 2)
            if height > 0:
                bottom -= height
                parts.append((kind, round(max(0.0, bottom), 2), height))
        text = f"{clock(begin)} to {clock(end)} UTC: {said(end - begin)}, of which {said(shares['idle'])} without a job"
        columns.append(Spent(round(100 * place / count, 3), round(100 / count - 0.3, 3), tuple(parts), text))
    whole = sum(totals.values())
    summary = (
        f"{said(whole)} in the last {span(whole)} at its current size, of which {said(totals['idle'])} "
        f"({100 * totals['idle'] / whole:.0f} %) while no job ran."
    )
    if totals["unread"]:
        summary += f" For {said(totals['unread'])} of it that is not known, because its jobs are no longer listed."
    return Spending(tuple(columns), clock(start), span(step), summary, said(step))


def _end(job: Job, now: float) -> float:
    return min(job.end_time / 1000, now) if job.status.is_terminal and job.end_time else now


def _united(periods: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the union of periods, in order."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(periods):
        if end < begin:
            continue
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found
