"""The demo's output: progress lines while the DAG runs, and the parts of the summary."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from devtools.dag_run_report import DEFERRED, RUNNING, DagRunReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LINE_EVERY_SECONDS = 5.0


def write_line(text: str = "") -> None:
    """Print a line without buffering, even into a pipe."""
    print(text, flush=True)


class Progress:
    """Print a line whenever a task changes its state, and the state of mapped tasks at intervals."""

    def __init__(self, print_line: Callable[[str], None] = write_line) -> None:
        self._print = print_line
        self._states: dict[str, Counter[str]] = {}
        self._last_line = 0.0

    def __call__(self, report: DagRunReport) -> None:
        """Print what has changed in the report; called several times a second."""
        by_task: dict[str, Counter[str]] = defaultdict(Counter)
        for task in report.tasks:
            by_task[task.task_id][task.state or "waiting"] += 1
        for task_id, states in by_task.items():
            before = self._states.get(task_id)
            if before == states or self._has_not_started(states):
                continue
            # With many mapped instances each step would be a line, so they are reported at intervals only.
            is_over = set(states) <= {"success", "failed", "skipped", "upstream_failed", "removed"}
            if sum(states.values()) == 1 or is_over or before is None:
                self._line(report, task_id, states)
        if report.seconds - self._last_line >= _LINE_EVERY_SECONDS:
            for task_id, states in by_task.items():
                if sum(states.values()) > 1 and states != self._states.get(task_id):
                    self._line(report, task_id, states)

    def _line(self, report: DagRunReport, task_id: str, states: Counter[str]) -> None:
        self._states[task_id] = states
        self._last_line = report.seconds
        total = sum(states.values())
        text = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        slots = report.samples[-1].count(RUNNING)
        waiting = report.samples[-1].count(DEFERRED)
        self._print(
            f"{report.seconds:6.1f} s  {task_id:<16} {text if total > 1 else next(iter(states)):<44}"
            f" [slots in use: {slots}, deferred: {waiting}]"
        )

    @staticmethod
    def _has_not_started(states: Counter[str]) -> bool:
        return set(states) <= {"waiting", "scheduled", "queued"}


@dataclass(frozen=True)
class ClusterLife:
    """The billed lifetime of a cluster: from RUNNING to the call that deleted it.

    :param nodes: number of nodes, including the head.
    :param seconds: seconds from ``startTime`` to the delete; None if it was not deleted or never ran.
    """

    cluster_id: str
    nodes: int
    seconds: float | None

    @property
    def node_hours(self) -> float | None:
        """Nodes times hours."""
        return None if self.seconds is None else self.nodes * self.seconds / 3600


def cluster_life(created: dict[str, Any], delete_calls: Iterable[dict[str, Any]]) -> ClusterLife:
    """Compute a cluster's lifetime from the create task's result and the emulator's log of delete calls."""
    start = created.get("start_time")
    deleted = [
        call["time"]
        for call in delete_calls
        if call["status"] == 200 and call["resource"].endswith("/" + created["cluster_id"])
    ]
    seconds = None
    if start is not None and deleted:
        seconds = max(deleted) - datetime.fromisoformat(start.replace("Z", "+00:00")).timestamp()
    return ClusterLife(created["cluster_id"], created["node_count"], seconds)


def task_table(report: DagRunReport) -> list[str]:
    """Return a table of the task instances with their states, tries, durations and job durations."""
    lines = [f"{'task':<18} {'state':<16} {'tries':>5} {'seconds':>8}   job seconds"]
    for task in report.tasks:
        seconds = "-" if task.duration is None else f"{task.duration:.1f}"
        result = report.xcoms.get((task.task_id, task.map_index))
        job = result.get("duration_seconds") if isinstance(result, dict) else None
        lines.append(
            f"{task.name:<18} {task.state or 'none':<16} {task.try_number:>5} {seconds:>8}"
            f"   {'' if job is None else f'{job:.1f}'}".rstrip()
        )
    return lines
