"""The DAGs that the demo can run: what they need, and what must have come of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devtools.dag_run_report import DEFERRED, RUNNING, DagRunReport, seconds_by_state

if TYPE_CHECKING:
    from collections.abc import Sequence


PREFLIGHT = "preflight"
"""The task that looks before anything is created."""


@dataclass(frozen=True)
class Demo:
    """One DAG.

    :param job_tasks: Tasks whose instances wait for Ray jobs.
    :param emulator_arguments: What the emulator is started with.
    :param not_taken: Tasks on a branch that is not taken.
    :param can_keep: Whether the DAG can leave its cluster.
    """

    dag_id: str
    job_tasks: tuple[str, ...]
    emulator_arguments: tuple[str, ...] = ()
    not_taken: tuple[str, ...] = ()
    can_keep: bool = False

    def preflight(self, report: DagRunReport) -> list[str]:
        """The findings of the preflight, for people; empty for a DAG without one."""
        return preflight_lines(report.xcoms.get((PREFLIGHT, -1)))

    def slots(self, report: DagRunReport, slots: int) -> list[str]:
        """Worker slots used against the time that was waited without one."""
        return slot_lines(report, slots, self.job_tasks)

    def wrong(self, report: DagRunReport) -> list[str]:
        """What is wrong with the answer."""
        raise NotImplementedError

    def answer(self, report: DagRunReport) -> list[str]:
        """The answer, for people."""
        raise NotImplementedError


class SharedClusterDemo(Demo):
    """The primes."""

    def wrong(self, report: DagRunReport) -> list[str]:
        """The numbers are published; and all was well before the cluster was created."""
        return [*preflight_problems(report.xcoms.get((PREFLIGHT, -1))), *self._wrong_answer(report)]

    def _wrong_answer(self, report: DagRunReport) -> list[str]:
        answer = report.xcoms.get(("combine", -1))
        if answer is None:
            return ["there is no answer"]
        right = [answer["primes"], answer["twin_pairs"]] == answer["published"]
        return [] if right else [f"the answer is wrong: {answer}"]

    def answer(self, report: DagRunReport) -> list[str]:
        """How many there are, and what the warm cache was good for."""
        answer = report.xcoms.get(("combine", -1))
        return answer_lines(answer) if answer else []


def preflight_lines(found: dict[str, Any] | None) -> list[str]:
    """A line for each finding of a preflight's result."""
    if not found:
        return []
    findings = found["findings"]
    widths = [max(len(each[name]) for each in findings) for name in ("status", "check", "subject")]
    lines = [f"Preflight of {found['project_id']} in {found['location']}: {found['worst']}"]
    for each in findings:
        cells = [each[name].ljust(width) for name, width in zip(("status", "check", "subject"), widths, strict=True)]
        lines.append(f"  {'  '.join(cells)}  {each['found']}")
    return lines


def preflight_problems(found: dict[str, Any] | None) -> list[str]:
    """What of a preflight's result is neither a pass nor a warning."""
    if not found or not found["findings"]:
        return ["the preflight has found nothing"]
    return [
        f"preflight: {each['check']} of {each['subject']}: {each['status']}: {each['found']}"
        for each in found["findings"]
        if each["status"] not in ("pass", "warn")
    ]


class TrainDeployDemo(Demo):
    """The model: its own task compares it with the endpoint."""

    def wrong(self, report: DagRunReport) -> list[str]:
        """Whether it was compared at all."""
        found = report.xcoms.get(("check", -1))
        if found is None:
            return ["the predictions were not compared"]
        return [] if found["compared"] > 0 and found["rows"] > 0 else [f"nothing was compared: {found}"]

    def answer(self, report: DagRunReport) -> list[str]:
        """The metric, the comparison, the rows."""
        found = report.xcoms.get(("check", -1))
        if not found:
            return []
        return [
            f"The better model is {found['framework']}'s, with an accuracy of {found['accuracy']:.3f}.",
            f"The endpoint's {found['compared']} predictions are the model's own; the furthest is"
            f" {found['furthest']:g} off.",
            f"{found['rows']} rows went in, {found['rows']} were prepared, {found['rows']} were scored.",
        ]


def slot_lines(report: DagRunReport, slots: int, job_tasks: Sequence[str]) -> list[str]:
    """Worker slots used against the time that was waited without one."""
    spent = seconds_by_state(report)
    running = sum(spent.get(task, {}).get(RUNNING, 0.0) for task in job_tasks)
    deferred = sum(spent.get(task, {}).get(DEFERRED, 0.0) for task in job_tasks)
    results = [report.xcoms.get((task.task_id, task.map_index)) for task in report.tasks if task.task_id in job_tasks]
    # What a function has returned tells nothing of its job.
    jobs = sum(float(each.get("duration_seconds") or 0.0) for each in results if isinstance(each, dict))
    ran = f"Ray jobs ran for {jobs:.0f} job seconds. " if jobs else ""
    return [
        f"{ran}Their tasks waited {deferred:.0f} s without a worker slot and",
        f"  held one for {running:.0f} s, to submit and to collect. A task that waits in its slot would have",
        f"  held one for {running + deferred:.0f} s.",
        f"At the peak {report.peak(DEFERRED, job_tasks)} jobs were waited for at once, with {slots} worker slots.",
    ]


def answer_lines(answer: dict[str, Any]) -> list[str]:
    """The computation's answer, its check, and what the warm cache was good for."""
    primes, twins = answer["published"]
    first, second = answer["seconds_first_round"], answer["seconds_second_round"]
    return [
        f"Below {answer['limit']:,} there are {answer['primes']:,} primes (published: {primes:,}) and"
        f" {answer['twin_pairs']:,} twin pairs (published: {twins:,}).",
        f"Round 2 found {answer['pieces_from_cache']} of {answer['pieces']} pieces in the actors that round 1 left on"
        f" the cluster:",
        f"  {first:.2f} s in Ray for round 1, {second:.2f} s for round 2.",
    ]


class BatchInferenceDemo(Demo):
    """The flowers: their number is checked by the DAG itself."""

    def wrong(self, report: DagRunReport) -> list[str]:
        """Whether there were any."""
        found = report.xcoms.get(("check", -1))
        return [] if found and found["rows"] > 0 else [f"nothing was classified: {found}"]

    def answer(self, report: DagRunReport) -> list[str]:
        """How many there were."""
        found = report.xcoms.get(("check", -1))
        return [f"{found['rows']} rows went in, and {found['rows']} came out, in {found['table']}."] if found else []


DEMOS: dict[str, Demo] = {
    demo.dag_id: demo
    for demo in (
        SharedClusterDemo("example_vertex_ray_shared_cluster", ("count_primes", "pair_primes"), can_keep=True),
        TrainDeployDemo(
            "example_vertex_ray_train_deploy",
            ("prepare", "train", "score"),
            ("--with", "storage,bigquery"),
            not_taken=("reject",),
        ),
        BatchInferenceDemo("example_vertex_ray_batch_inference", ("load_flowers", "classify"), ("--with", "bigquery")),
    )
}
