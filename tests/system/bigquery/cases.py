"""Who is killed in which phase of a step. The DAG file and the tests read the same list."""

from __future__ import annotations

from dataclasses import dataclass

FOLDER_VARIABLE = "BIGQUERY_KILLS_FOLDER"
TASK = "step"
PARTS = ("driver", "worker", "task", "triggerer")
PHASES = ("read", "transform", "write", "publish")
DISPOSITIONS = ("WRITE_APPEND", "WRITE_TRUNCATE")


@dataclass(frozen=True)
class Case:
    """One kill.

    :param part: ``driver`` (the Ray job's process), ``worker`` (a node with all that runs on it), ``task`` (the process
        that executes Airflow's task, which waits in it) or ``triggerer``.
    :param phase: What the job is doing at that moment.
    """

    part: str
    phase: str
    write_disposition: str

    @property
    def name(self) -> str:
        return f"{self.part}-{self.phase}"

    @property
    def dag_id(self) -> str:
        return dag_id(self.write_disposition, deferrable=self.part != "task")


def dag_id(write_disposition: str, *, deferrable: bool) -> str:
    return f"step_{write_disposition.lower()}_{'deferred' if deferrable else 'worker'}"


CASES = [
    Case(part, phase, DISPOSITIONS[(place + turn) % 2])
    for place, part in enumerate(PARTS)
    for turn, phase in enumerate(PHASES)
]
