"""Layout of the timeline of jobs by node. Pure; the template draws it.

Every job of the period is represented: by a bar of its own, or, where a node has more short jobs than there is room
for, by the column of its start, which counts the jobs that started in that part of the period.

Horizontal positions are percentages of the width, so that text keeps its size on any screen; vertical ones are pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.deadlines import span
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.plugins.page.text import moment
from airflow_provider_vertex_ray.plugins.page.visible import HIDDEN_JOB

MOST_BARS = 100
"""Maximum number of bars of a node."""

MOST_LANES = 12
"""Maximum number of lanes of a node."""

MOST_GROUPS = 16
"""Maximum number of nodes with a group of their own: those with the most jobs. The others share one."""

COLUMNS = 60
"""Maximum number of columns of a node with more jobs than bars."""

DAY = 86_400.0
LEAST_SPAN = 60.0
"""Minimum length of the timeline in seconds, unless a shorter period was chosen."""

LANE = 14.0
HEAD = 20.0
FOOT = 18.0
BAR_HEIGHT = 10.0
COLUMN_HEIGHT = 40.0
LEAST_PART = 2.0
"""Minimum height in pixels of the part of a column."""

LEAST_WIDTH = 0.5
"""Minimum width of a bar in percent, because a narrower one would be invisible."""

LONG = 1.5
"""Width in percent from which a job of a node with columns has a bar all the same, as active jobs have."""

GAP = 0.1
STEPS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800, 2592000)
ORDER = (
    JobStatus.FAILED,
    JobStatus.RUNNING,
    JobStatus.PENDING,
    JobStatus.STOPPED,
    JobStatus.UNKNOWN,
    JobStatus.SUCCEEDED,
)
"""Order of the statuses in a column, from the bottom: failures are always at the same place."""


@dataclass(frozen=True)
class Bar:
    """The bar of a job.

    :param open: whether the job has not ended.
    :param cut: whether the job started before the timeline, or ended after it.
    """

    job: Job
    x: float
    width: float
    y: float
    open: bool
    cut: bool

    @property
    def linked(self) -> bool:
        """Whether the job has a log that the user may ask for."""
        return not self.job.is_driver and self.job.submission_id != HIDDEN_JOB


@dataclass(frozen=True)
class Column:
    """The jobs of a node that started in a part of the period and have no bar.

    :param count: their number.
    :param parts: status, vertical position and height of each part.
    :param period: the part of the period in whole seconds, as the page's parameter ``within``.
    :param summary: the figures as text.
    """

    x: float
    width: float
    count: int
    parts: tuple[tuple[str, float, float], ...]
    period: str
    summary: str


@dataclass(frozen=True)
class Group:
    """The jobs of one node.

    :param count: number of its jobs in the period.
    """

    label: str
    y: float
    height: float
    count: int
    bars: tuple[Bar, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Timeline:
    """The whole timeline.

    :param ticks: positions in percent, and their labels.
    :param end_label: label of its end.
    :param earlier: number of jobs that ended before it.
    :param later: number of jobs that started after it.
    :param waiting: number of jobs that have not started.
    """

    start: float
    end: float
    height: float
    groups: tuple[Group, ...]
    ticks: tuple[tuple[float, str], ...]
    end_label: str
    earlier: int
    later: int
    waiting: int

    @property
    def start_label(self) -> str:
        """Label of its start."""
        return clock(self.start)

    @property
    def shown(self) -> int:
        """Number of jobs with a bar or in a column."""
        return sum(group.count for group in self.groups)


def timeline(
    jobs: Sequence[Job], nodes: Mapping[str, str], now: float, period: tuple[float, float] | None = None
) -> Timeline | None:
    """Return the timeline of a cluster's jobs; None if no job has ever started.

    :param jobs: the jobs; those that have not started are only counted.
    :param nodes: names of the nodes by Ray node id, in the order of the groups.
    :param now: Unix time.
    :param period: Unix times of its start and end; None for the last day with jobs, until now.
    """
    begun = [job for job in jobs if job.start_time]
    if not begun:
        return None
    start, end = period or _last_day(begun, now)
    inside = [job for job in begun if overlaps(job, start, end, now)]
    groups: list[Group] = []
    y = 0.0
    for label, of_node in _by_node(inside, nodes):
        group = _Layout(start, end, now).group(label, of_node, y)
        groups.append(group)
        y += group.height
    return Timeline(
        start=start,
        end=end,
        height=y + FOOT,
        groups=tuple(groups),
        ticks=_ticks(start, end, now),
        end_label="now" if abs(end - now) < 1 else clock(end),
        earlier=sum(1 for job in begun if _end(job, now) < start),
        later=sum(1 for job in begun if _begin(job, now) > end and _end(job, now) >= start),
        waiting=len(jobs) - len(begun),
    )


def overlaps(job: Job, start: float, end: float, now: float) -> bool:
    """Check whether a job has run at some time of a period."""
    return bool(job.start_time) and _begin(job, now) <= end and _end(job, now) >= start


def clock(at: float) -> str:
    """Format a time without its zone, which is UTC."""
    return moment(at).removesuffix(" UTC")


def _last_day(begun: Sequence[Job], now: float) -> tuple[float, float]:
    recent = [job for job in begun if _end(job, now) >= now - DAY] or list(begun)
    start = max(min(_begin(job, now) for job in recent), max(_end(job, now) for job in recent) - DAY)
    return min(start, now - LEAST_SPAN), now


def _by_node(jobs: Sequence[Job], nodes: Mapping[str, str]) -> list[tuple[str, list[Job]]]:
    by_node: dict[str, list[Job]] = {name: [] for name in nodes.values()}
    for job in jobs:
        elsewhere = "a removed node" if job.node_id else "no node yet"
        by_node.setdefault(nodes.get(job.node_id or "", elsewhere), []).append(job)
    found = [(label, of_node) for label, of_node in by_node.items() if of_node]
    if len(found) <= MOST_GROUPS:
        return found
    own = {label for label, _ in sorted(found, key=lambda each: -len(each[1]))[: MOST_GROUPS - 1]}
    rest = [job for label, of_node in found if label not in own for job in of_node]
    others = (f"{len(found) - len(own)} other nodes", rest)
    return [*((label, of_node) for label, of_node in found if label in own), others]


@dataclass(frozen=True)
class _Layout:
    start: float
    end: float
    now: float

    @property
    def places(self) -> int:
        """Number of places of columns, none of which is shorter than a second."""
        return max(1, min(COLUMNS, int(self.end - self.start)))

    def group(self, label: str, jobs: Sequence[Job], y: float) -> Group:
        bars, rest, lanes = self._bars(sorted(jobs, key=self._newest), y, MOST_LANES)
        if rest:
            # The longest ones, because a short one says as much in a column.
            long = sorted((job for job in jobs if self._is_long(job)), key=self._longest)
            bars, without, lanes = self._bars(long, y, MOST_LANES // 2)
            rest = [*without, *(job for job in jobs if not self._is_long(job))]
        top = y + HEAD + lanes * LANE
        columns = self._columns(rest, top)
        height = HEAD + lanes * LANE + (COLUMN_HEIGHT + 2 if columns else 0.0) + 4
        return Group(label, y, height, len(jobs), bars, columns)

    def _bars(self, jobs: Sequence[Job], y: float, most: int) -> tuple[tuple[Bar, ...], list[Job], int]:
        """Return the bars, the jobs without one, and the number of lanes."""
        lanes: list[list[tuple[float, float]]] = []
        bars: list[Bar] = []
        rest: list[Job] = []
        for job in jobs:
            x, width = self._across(job)
            lane = next((place for place, taken in enumerate(lanes) if _free(taken, x, width)), len(lanes))
            if lane >= most or len(bars) >= MOST_BARS:
                rest.append(job)
                continue
            if lane == len(lanes):
                lanes.append([])
            lanes[lane].append((x, width))
            cut = _begin(job, self.now) < self.start or _end(job, self.now) > self.end
            bars.append(Bar(job, x, width, y + HEAD + lane * LANE, not job.status.is_terminal, cut))
        return tuple(bars), rest, len(lanes)

    def _columns(self, jobs: Sequence[Job], top: float) -> tuple[Column, ...]:
        by_place: dict[int, Counter[JobStatus]] = {}
        length = (self.end - self.start) / self.places
        for job in jobs:
            place = int((_begin(job, self.now) - self.start) / length)
            by_place.setdefault(min(self.places - 1, max(0, place)), Counter())[job.status] += 1
        most = max((counts.total() for counts in by_place.values()), default=0)
        return tuple(self._column(place, by_place[place], length, most, top) for place in sorted(by_place))

    def _column(self, place: int, counts: Counter[JobStatus], length: float, most: int, top: float) -> Column:
        parts = []
        there = [status for status in ORDER if counts[status]]
        # Each part is visible, however small its share; a full column with all parts still fits.
        scale = (COLUMN_HEIGHT - LEAST_PART * len(there)) / most
        bottom = top + COLUMN_HEIGHT
        for status in there:
            height = LEAST_PART + counts[status] * scale
            bottom -= height
            parts.append((status.value.lower(), round(bottom, 2), round(height, 2)))
        start, end = self.start + place * length, self.start + (place + 1) * length
        said = ", ".join(f"{counts[status]} {status.value.lower()}" for status in there)
        count = counts.total()
        jobs = "1 job" if count == 1 else f"{count} jobs"
        width = 100 / self.places
        return Column(
            x=round(place * width, 3),
            width=round(width - GAP, 3),
            count=count,
            parts=tuple(parts),
            period=f"{math.floor(max(0.0, start))}-{max(math.ceil(end), math.floor(max(0.0, start)) + 1)}",
            summary=f"{jobs} from {clock(start)} to {clock(end)} UTC: {said}",
        )

    def _is_long(self, job: Job) -> bool:
        return not job.status.is_terminal or self._across(job)[1] >= LONG

    def _newest(self, job: Job) -> tuple[float, float, str]:
        return -_end(job, self.now), -_begin(job, self.now), job.submission_id

    def _longest(self, job: Job) -> tuple[bool, float, str]:
        return job.status.is_terminal, -self._across(job)[1], job.submission_id

    def _across(self, job: Job) -> tuple[float, float]:
        scale = 100.0 / (self.end - self.start)
        left = min(100.0, max(0.0, (_begin(job, self.now) - self.start) * scale))
        right = min(100.0, max(left, (_end(job, self.now) - self.start) * scale))
        width = max(LEAST_WIDTH, right - left)
        return round(min(left, 100.0 - width), 3), round(width, 3)


def _free(taken: Sequence[tuple[float, float]], x: float, width: float) -> bool:
    return all(x + width + GAP <= other or other + size + GAP <= x for other, size in taken)


def _begin(job: Job, now: float) -> float:
    """Return the start of a job: no later than now, because the cluster's clock may be ahead of ours."""
    return min((job.start_time or 0) / 1000, now)


def _end(job: Job, now: float) -> float:
    end = job.end_time / 1000 if job.status.is_terminal and job.end_time else now
    return max(min(end, now), _begin(job, now))


def _ticks(start: float, end: float, now: float) -> tuple[tuple[float, str], ...]:
    length = end - start
    step = next((each for each in STEPS if length / each <= 5), STEPS[-1])
    count = min(6, int(length // step))

    def label(back: float) -> str:
        return f"-{span(back)}" if abs(end - now) < 1 else clock(end - back)[11:]

    return tuple((round(100 - 100 * step * each / length, 3), label(step * each)) for each in range(1, count + 1))
