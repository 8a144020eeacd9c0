"""What is tried: one DAG for each case. The DAG file and the tests read the same list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airflow import __version__

AIRFLOW_3 = not __version__.startswith("2.")
ENDS_IN_TRIGGERER = [int(part) for part in __version__.split(".")[:3]] >= [3, 3, 1]
"""Whether tasks end in the triggerer by default on this version of Airflow."""
FOLDER_VARIABLE = "JOB_MATRIX_FOLDER"
CLUSTER = "matrix"
TASK = "job"
# All CPUs that the cluster's worker has: while the sibling with them runs, no other job that asks for one can.
ALL_CPUS = 4
# Beside ten others that start, a job may be PENDING for half a minute.
JOB_TIMEOUT = 60.0
PENDING_TIMEOUT = 8.0
RUN_TIMEOUT = 90.0


@dataclass(frozen=True)
class Case:
    """One DAG with one job.

    :param scenario: The function in ``scenarios`` that acts it out.
    :param deferrable: Whether the task waits in the triggerer or in a worker.
    :param block_at: Where the task process of the first try stops and waits to be killed: ``wait`` (the job is
        submitted, nothing is deferred yet) or ``complete`` (in ``execute_complete``).
    :param by_worker: Whether a worker ends the task although its trigger could: then the same holds for both ways.
    :param options: More arguments of the operator.
    """

    scenario: str
    deferrable: bool
    block_at: str = ""
    retries: int = 0
    run_timeout: float | None = None
    by_worker: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.scenario}-{'deferred' if self.deferrable else 'worker'}"

    @property
    def ends_in_triggerer(self) -> bool:
        """Whether its trigger ends the task that succeeds; code of an operator's own for the end needs a worker."""
        return ENDS_IN_TRIGGERER and self.deferrable and not self.by_worker and self.block_at != "complete"

    @property
    def dag_id(self) -> str:
        return "matrix_" + self.name.replace("-", "_")


def _both(scenario: str, **more: Any) -> list[Case]:
    return [Case(scenario, deferrable, **more) for deferrable in (True, False)]


# More retries than tries are asserted: Airflow now and then takes one that had no job.
CRASHES = [
    *_both("before-submit", retries=5),
    *_both("before-the-answer", retries=5),
    *_both("answer-lost", retries=5, by_worker=True),
    *_both("before-defer", block_at="wait", retries=5),
    *_both("in-complete", block_at="complete", retries=5),
]
KILLS = [
    *_both("mark-failed"),
    # Airflow 2.11 tells a task in a worker late what was done to it: the job is stopped after more than ten seconds,
    # and with the short threshold for zombies here, a task that was cleared is taken for one before it is told.
    *(_both("mark-success") if AIRFLOW_3 else [Case("mark-success", True)]),
    # And there the new try's process dies at times on a foreign key: it writes the id of the trigger that the Clear has
    # just ended. No job is in such a try; the next one has it.
    *(_both("clear") if AIRFLOW_3 else [Case("clear", True, retries=2)]),
    *_both("run-timeout", run_timeout=RUN_TIMEOUT),
    *_both("job-timeout", options={"job_timeout": JOB_TIMEOUT}),
    *_both("pending-timeout", by_worker=True, options={"pending_timeout": PENDING_TIMEOUT, "entrypoint_num_cpus": 1}),
]
# What nobody touches while all of the above happens; the first has all CPUs.
SIBLINGS = [Case("sibling", True, options={"entrypoint_num_cpus": ALL_CPUS}), Case("sibling", False)]
# What lives through the death of Airflow's components, one after the other.
ENDURING = _both("endure", retries=5)
CASES = [*CRASHES, *KILLS, *SIBLINGS, *ENDURING]

# What the ordinary tests try: what has gone wrong more often. The soak tries all.
_SAMPLED = {
    *("before-the-answer-deferred", "answer-lost-worker", "in-complete-deferred"),
    *("mark-failed-deferred", "clear-deferred", "job-timeout-deferred", "pending-timeout-deferred"),
}
SAMPLED_CRASHES = [case for case in CRASHES if case.name in _SAMPLED]
SAMPLED_KILLS = [case for case in KILLS if case.name in _SAMPLED]
