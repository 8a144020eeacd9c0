"""The outcome of a DAG run, and samples of its task states while it ran."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

# A running task holds a slot of the executor; a deferred task waits without one.
RUNNING = "running"
DEFERRED = "deferred"


@dataclass(frozen=True)
class TaskReport:
    """One task instance, as in the database (times are UTC)."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    operator: str | None
    start: datetime | None
    end: datetime | None

    @property
    def name(self) -> str:
        """``task`` or, for a mapped one, ``task[3]``."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    @property
    def duration(self) -> float | None:
        """Seconds from its first start to its end, including deferred time; None while it has not ended."""
        if self.start is None or self.end is None:
            return None
        return (self.end - self.start).total_seconds()


@dataclass(frozen=True)
class Sample:
    """The number of task instances in each state at one moment.

    :param time: seconds since the run was triggered.
    :param counts: number of task instances by (task id, state).
    """

    time: float
    counts: Mapping[tuple[str, str], int]

    def count(self, state: str, task_ids: Iterable[str] | None = None) -> int:
        """Return the number of task instances in ``state``, of all tasks or of the given ones."""
        wanted = None if task_ids is None else set(task_ids)
        return sum(n for (task, s), n in self.counts.items() if s == state and (wanted is None or task in wanted))


@dataclass
class DagRunReport:
    """A DAG run: its outcome, its task instances, and samples taken while it ran.

    :param log_folder: root of the task logs.
    :param xcoms: the values of key ``return_value`` by (task id, map index).
    """

    dag_id: str
    run_id: str
    log_folder: Path
    state: str = "queued"
    seconds: float = 0.0
    tasks: list[TaskReport] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    xcoms: dict[tuple[str, int], Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the run is over."""
        return self.state in ("success", "failed")

    def instances(self, task_id: str) -> list[TaskReport]:
        """Return the instances of one task, ordered by map index."""
        return sorted((t for t in self.tasks if t.task_id == task_id), key=lambda t: t.map_index)

    def xcom(self, task_id: str, map_index: int = -1) -> Any:
        """Return the return value of a task instance.

        :raises KeyError: if it returned nothing.
        """
        return self.xcoms[task_id, map_index]

    def seconds_in(self, state: str, task_ids: Iterable[str] | None = None) -> float:
        """Return the seconds that the task instances spent in ``state`` in total, according to the samples."""
        wanted = None if task_ids is None else list(task_ids)
        return sum(
            (later.time - sample.time) * sample.count(state, wanted)
            for sample, later in zip(self.samples, self.samples[1:], strict=False)
        )

    def peak(self, state: str, task_ids: Iterable[str] | None = None) -> int:
        """Return the maximum number of task instances that were in ``state`` at one moment."""
        wanted = None if task_ids is None else list(task_ids)
        return max((sample.count(state, wanted) for sample in self.samples), default=0)

    def log_text(self, task_id: str, map_index: int = -1) -> str:
        """Return everything that a task instance logged in all of its tries, including its trigger's lines."""
        folder = self.log_folder / f"dag_id={self.dag_id}" / f"run_id={self.run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        stamped: list[tuple[str, str]] = []
        for path in sorted(folder.glob("attempt=*.log*")):
            stamp = ""
            for line in map(_readable, path.read_text(errors="replace").splitlines()):
                # A line without a time of its own, as in a traceback, belongs to the previous one.
                match = _STAMP.match(line)
                stamp = match.group(1) if match else stamp
                stamped.append((stamp, line))
        return "\n".join(line for _, line in sorted(stamped, key=lambda pair: pair[0]))


# "[2026-11-23T21:42:30.959+0000] " of Airflow 2.11, "2026-11-23T21:41:54.975257Z " of Airflow 3.
_STAMP = re.compile(r"\[?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})")


def _readable(line: str) -> str:
    """Return a line of Airflow 3's structured log as text, and other lines unchanged."""
    if not line.startswith("{"):
        return line
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "event" not in entry:
        return line
    text = f"{entry.get('timestamp', '')} {str(entry.get('level', '')).upper()} {entry['event']}"
    details = entry.get("error_detail")
    return f"{text} {json.dumps(details)}" if details else text


def count_states(time: float, tasks: Iterable[TaskReport]) -> Sample:
    """Return a sample of these task instances, taken ``time`` seconds after the run was triggered."""
    return Sample(time, Counter((task.task_id, task.state or "none") for task in tasks))


def seconds_by_state(report: DagRunReport) -> dict[str, dict[str, float]]:
    """Return, for each task id, the seconds that its instances spent in each state in total."""
    result: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for sample, later in zip(report.samples, report.samples[1:], strict=False):
        for (task, state), count in sample.counts.items():
            result[task][state] += (later.time - sample.time) * count
    return {task: dict(states) for task, states in result.items()}
