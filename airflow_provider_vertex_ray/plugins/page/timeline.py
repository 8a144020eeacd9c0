"""Layout of the timeline of jobs by node. Pure; the template draws it.

Horizontal positions are percentages of the width, so that text keeps its size on any screen; vertical ones are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.deadlines import span
from airflow_provider_vertex_ray.core.job.state import Job

MOST_BARS = 200
"""Maximum number of jobs in the timeline."""

MOST_LANES = 12
"""Maximum number of lanes of a node; jobs without a lane are only counted."""

DAY = 86_400.0
LEAST_SPAN = 60.0
"""Minimum length of the timeline in seconds."""

LANE = 14.0
HEAD = 20.0
FOOT = 18.0
LEAST_WIDTH = 0.5
"""Minimum width of a bar in percent, because a narrower one would be invisible."""

GAP = 0.1
STEPS = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800)


@dataclass(frozen=True)
class Bar:
    """The bar of a job.

    :param open: whether the job has not ended.
    :param cut: whether the job started before the timeline.
    """

    job: Job
    x: float
    width: float
    y: float
    open: bool
    cut: bool


@dataclass(frozen=True)
class Group:
    """The jobs of one node.

    :param left_out: number of jobs without a lane.
    """

    label: str
    y: float
    height: float
    bars: tuple[Bar, ...]
    left_out: int


@dataclass(frozen=True)
class Timeline:
    """The whole timeline.

    :param ticks: positions in percent, and their labels.
    :param left_out: number of jobs that are not shown, because they are older or too many.
    """

    start: float
    end: float
    height: float
    groups: tuple[Group, ...]
    ticks: tuple[tuple[float, str], ...]
    left_out: int

    @property
    def shown(self) -> int:
        """The number of jobs with a bar."""
        return sum(len(group.bars) for group in self.groups)


def timeline(jobs: Sequence[Job], nodes: Mapping[str, str], now: float) -> Timeline | None:
    """Lay out the jobs.

    :param jobs: the jobs.
    :param nodes: names of the nodes by Ray node id, in their order in the timeline.
    :param now: Unix time at which the bars of running jobs end.
    :return: the timeline; None if no job has started.
    """
    begun = sorted((job for job in jobs if job.start_time), key=lambda job: -(job.start_time or 0))[:MOST_BARS]
    recent = [job for job in begun if _end(job, now) >= now - DAY] or begun
    if not recent:
        return None
    start = max(min(_begin(job) for job in recent), max(_end(job, now) for job in recent) - DAY)
    start = min(start, now - LEAST_SPAN)
    by_node: dict[str, list[Job]] = {name: [] for name in nodes.values()}
    for job in recent:
        elsewhere = "a removed node" if job.node_id else "no node yet"
        by_node.setdefault(nodes.get(job.node_id or "", elsewhere), []).append(job)
    groups: list[Group] = []
    y = 0.0
    for label, of_node in by_node.items():
        if of_node:
            group = _group(label, of_node, y, start, now)
            groups.append(group)
            y += group.height
    left_out = sum(1 for job in jobs if job.start_time) - len(recent) + sum(group.left_out for group in groups)
    return Timeline(start, now, y + FOOT, tuple(groups), _ticks(start, now), left_out)


def _group(label: str, jobs: Sequence[Job], y: float, start: float, now: float) -> Group:
    # The newest jobs get a lane first.
    ends: list[list[tuple[float, float]]] = []
    bars: list[Bar] = []
    left_out = 0
    for job in sorted(jobs, key=lambda job: (-_end(job, now), -_begin(job), job.submission_id)):
        x, width = _across(job, start, now)
        lane = next((place for place, taken in enumerate(ends) if _free(taken, x, width)), len(ends))
        if lane >= MOST_LANES:
            left_out += 1
            continue
        if lane == len(ends):
            ends.append([])
        ends[lane].append((x, width))
        top = y + HEAD + lane * LANE
        bars.append(Bar(job, x, width, top, not job.status.is_terminal, _begin(job) < start))
    return Group(label, y, HEAD + len(ends) * LANE + 4, tuple(bars), left_out)


def _free(taken: Sequence[tuple[float, float]], x: float, width: float) -> bool:
    return all(x + width + GAP <= other or other + size + GAP <= x for other, size in taken)


def _across(job: Job, start: float, now: float) -> tuple[float, float]:
    scale = 100.0 / (now - start)
    left = min(100.0, max(0.0, (_begin(job) - start) * scale))
    right = min(100.0, max(left, (_end(job, now) - start) * scale))
    width = max(LEAST_WIDTH, right - left)
    return round(min(left, 100.0 - width), 3), round(width, 3)


def _begin(job: Job) -> float:
    return (job.start_time or 0) / 1000


def _end(job: Job, now: float) -> float:
    end = job.end_time / 1000 if job.status.is_terminal and job.end_time else now
    return max(min(end, now), min(_begin(job), now))


def _ticks(start: float, now: float) -> tuple[tuple[float, str], ...]:
    length = now - start
    step = next((each for each in STEPS if length / each <= 5), STEPS[-1])
    count = min(6, int(length // step))
    return tuple((round(100 - 100 * step * each / length, 3), f"-{span(step * each)}") for each in range(1, count + 1))
