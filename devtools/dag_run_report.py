"""What a DAG run came to, and what was going on while it ran.

States are read from the metadata database and not from the REST API: the SQLite file serves a reader
without hindering the writers, several times a second, for Airflow 3 and 2.11 alike, while each question to the
API would cost the processors that the tasks need. Nothing is ever written there.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# A task in this state holds a slot of the executor; one in that state waits without holding any.
RUNNING = "running"
DEFERRED = "deferred"


@dataclass(frozen=True)
class TaskReport:
    """One task instance as it is in the database (times are UTC)."""

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
        """Seconds from its (first) start to its end, waiting included; None while it has not ended."""
        if self.start is None or self.end is None:
            return None
        return (self.end - self.start).total_seconds()


@dataclass(frozen=True)
class Sample:
    """How many task instances were in each state at one moment.

    :param time: seconds since the run was triggered.
    :param counts: number of task instances by (task id, state).
    """

    time: float
    counts: Mapping[tuple[str, str], int]

    def count(self, state: str, task_ids: Iterable[str] | None = None) -> int:
        """Task instances in ``state``, of all tasks or of these only."""
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
        """The instances of one task, in the order of their map index."""
        return sorted((t for t in self.tasks if t.task_id == task_id), key=lambda t: t.map_index)

    def xcom(self, task_id: str, map_index: int = -1) -> Any:
        """What a task instance returned.

        :raises KeyError: when it returned nothing.
        """
        return self.xcoms[task_id, map_index]

    def seconds_in(self, state: str, task_ids: Iterable[str] | None = None) -> float:
        """Sum over the task instances of the time spent in ``state``, from the samples."""
        wanted = None if task_ids is None else list(task_ids)
        return sum(
            (later.time - sample.time) * sample.count(state, wanted)
            for sample, later in zip(self.samples, self.samples[1:], strict=False)
        )

    def peak(self, state: str, task_ids: Iterable[str] | None = None) -> int:
        """The most task instances that were seen in ``state`` at one moment."""
        wanted = None if task_ids is None else list(task_ids)
        return max((sample.count(state, wanted) for sample in self.samples), default=0)

    def log_text(self, task_id: str, map_index: int = -1) -> str:
        """Everything that a task instance logged in all of its tries, its trigger's lines included."""
        folder = self.log_folder / f"dag_id={self.dag_id}" / f"run_id={self.run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        stamped: list[tuple[str, str]] = []
        for path in sorted(folder.glob("attempt=*.log*")):
            stamp = ""
            for line in map(_readable, path.read_text(errors="replace").splitlines()):
                # A line without a time of its own, as in a traceback, belongs to the one before.
                match = _STAMP.match(line)
                stamp = match.group(1) if match else stamp
                stamped.append((stamp, line))
        return "\n".join(line for _, line in sorted(stamped, key=lambda pair: pair[0]))


# "[2026-11-23T21:42:30.959+0000] " of Airflow 2.11, "2026-11-23T21:41:54.975257Z " of Airflow 3.
_STAMP = re.compile(r"\[?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})")


def _readable(line: str) -> str:
    """A line of Airflow 3's structured log as text; other lines as they are."""
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


class MetadataReader:
    """Reads Airflow's SQLite database while Airflow uses it.

    :param database: the file; it must be in write-ahead mode, where readers and writers do not wait for
        each other.
    """

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30, isolation_level=None)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def working_components(self, since: datetime) -> set[tuple[str, str]]:
        """Job type and name of the components that were started, and have sent a heartbeat, since that time."""
        sql = "SELECT job_type, hostname, latest_heartbeat FROM job WHERE state = 'running' AND start_date >= ?"
        rows = self._connection.execute(sql, (since.strftime("%Y-%m-%d %H:%M:%S.%f"),))
        return {(kind, host) for kind, host, heartbeat in rows if heartbeat and _time(heartbeat) >= since}

    def trigger_holders(self) -> dict[str, str]:
        """Name of the triggerer that has the trigger of a deferred task, by run id."""
        sql = (
            "SELECT i.run_id, j.hostname FROM task_instance i JOIN trigger t ON t.id = i.trigger_id"
            " JOIN job j ON j.id = t.triggerer_id WHERE i.state = 'deferred'"
        )
        return dict(self._connection.execute(sql).fetchall())

    def runs(self) -> dict[str, tuple[str, datetime | None]]:
        """State and end of every DAG run, by run id."""
        rows = self._connection.execute("SELECT run_id, state, end_date FROM dag_run")
        return {run_id: (state, _time_or_none(end)) for run_id, state, end in rows}

    def instances(self) -> dict[tuple[str, str], tuple[TaskReport, int | None]]:
        """Every task instance, with the pid of the process that executes it or was the last to, by run and task id."""
        sql = (
            "SELECT run_id, task_id, map_index, state, try_number, operator, start_date, end_date, pid"
            " FROM task_instance"
        )
        return {
            (run, task): (TaskReport(task, index, state, tries, kind, _time_or_none(start), _time_or_none(end)), pid)
            for run, task, index, state, tries, kind, start, end, pid in self._connection.execute(sql)
        }

    def is_writable(self, seconds: float = 2.0) -> bool:
        """Whether nobody holds the lock for writing; nothing is written."""
        (_, _, file) = self._connection.execute("PRAGMA database_list").fetchone()
        probe = sqlite3.connect(file, timeout=seconds, isolation_level=None)
        try:
            probe.execute("BEGIN IMMEDIATE")
            probe.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            probe.close()
        return True

    def dag_ids(self) -> set[str]:
        """The DAGs that the scheduler can run."""
        return {row[0] for row in self._connection.execute("SELECT DISTINCT dag_id FROM serialized_dag")}

    def import_errors(self) -> list[str]:
        """File and traceback of each DAG file that can not be loaded."""
        rows = self._connection.execute("SELECT filename, stacktrace FROM import_error")
        return [f"{filename}:\n{trace}" for filename, trace in rows]

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """State of a DAG run; None when there is no such run."""
        sql = "SELECT state FROM dag_run WHERE dag_id = ? AND run_id = ?"
        row = self._connection.execute(sql, (dag_id, run_id)).fetchone()
        return None if row is None else row[0]

    def tasks(self, dag_id: str, run_id: str) -> list[TaskReport]:
        """The task instances of a run."""
        sql = (
            "SELECT task_id, map_index, state, try_number, operator, start_date, end_date FROM task_instance"
            " WHERE dag_id = ? AND run_id = ? ORDER BY start_date IS NULL, start_date, task_id, map_index"
        )
        rows = self._connection.execute(sql, (dag_id, run_id))
        return [
            TaskReport(task_id, map_index, state, tries, operator, _time_or_none(start), _time_or_none(end))
            for task_id, map_index, state, tries, operator, start, end in rows
        ]

    def xcoms(self, dag_id: str, run_id: str) -> dict[tuple[str, int], Any]:
        """What the task instances of a run returned, by (task id, map index)."""
        sql = "SELECT task_id, map_index, value FROM xcom WHERE dag_id = ? AND run_id = ? AND key = 'return_value'"
        rows = self._connection.execute(sql, (dag_id, run_id))
        return {(task, index): _plain(json.loads(value)) for task, index, value in rows if value is not None}


def count_states(time: float, tasks: Iterable[TaskReport]) -> Sample:
    """A sample of these task instances, ``time`` seconds after the run was triggered."""
    return Sample(time, Counter((task.task_id, task.state or "none") for task in tasks))


def seconds_by_state(report: DagRunReport) -> dict[str, dict[str, float]]:
    """For each task id, the seconds that its instances have spent in each state together."""
    result: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for sample, later in zip(report.samples, report.samples[1:], strict=False):
        for (task, state), count in sample.counts.items():
            result[task][state] += (later.time - sample.time) * count
    return {task: dict(states) for task, states in result.items()}


def _time(text: str) -> datetime:
    """A time as Airflow writes it into SQLite: UTC, without saying so."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def _time_or_none(text: str | None) -> datetime | None:
    return None if text is None else _time(text)


def _plain(value: Any) -> Any:
    """Undo the wrapping that Airflow's serialisation puts around tuples and the like."""
    if isinstance(value, dict):
        if "__classname__" in value and "__data__" in value:
            return _plain(value["__data__"])
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
