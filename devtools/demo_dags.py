"""The DAGs that the demo can run: what they need, and what their results must be."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from devtools.dag_run_report import DEFERRED, RUNNING, DagRunReport, seconds_by_state

if TYPE_CHECKING:
    from collections.abc import Sequence


PREFLIGHT = "preflight"
"""The task that runs before anything is created."""


@dataclass(frozen=True)
class Demo:
    """One DAG.

    :param job_tasks: tasks whose instances wait for Ray jobs.
    :param emulator_arguments: Command-line arguments of the emulator.
    :param not_taken: tasks on a branch that is not taken.
    :param can_keep: whether the DAG can keep its cluster.
    """

    dag_id: str
    job_tasks: tuple[str, ...]
    emulator_arguments: tuple[str, ...] = ()
    not_taken: tuple[str, ...] = ()
    can_keep: bool = False

    def preflight(self, report: DagRunReport) -> list[str]:
        """Return the findings of the preflight as text; empty for a DAG without a preflight."""
        return preflight_lines(report.xcoms.get((PREFLIGHT, -1)))

    def slots(self, report: DagRunReport, slots: int) -> list[str]:
        """Compare the time in worker slots with the time deferred."""
        return slot_lines(report, slots, self.job_tasks)

    def wrong(self, report: DagRunReport) -> list[str]:
        """Return what is wrong with the answer."""
        raise NotImplementedError

    def answer(self, report: DagRunReport) -> list[str]:
        """Return the answer as text."""
        raise NotImplementedError


class SharedClusterDemo(Demo):
    """Prime numbers, counted on a shared cluster."""

    def wrong(self, report: DagRunReport) -> list[str]:
        """Compare the answer with the published numbers, and check that the preflight passed."""
        return [*preflight_problems(report.xcoms.get((PREFLIGHT, -1))), *self._wrong_answer(report)]

    def _wrong_answer(self, report: DagRunReport) -> list[str]:
        answer = report.xcoms.get(("combine", -1))
        if answer is None:
            return ["the DAG returned no answer"]
        right = [answer["primes"], answer["twin_pairs"]] == answer["published"]
        return [] if right else [f"the answer is wrong: {answer}"]

    def answer(self, report: DagRunReport) -> list[str]:
        """Return the numbers of primes, and the effect of the warm cache."""
        answer = report.xcoms.get(("combine", -1))
        return answer_lines(answer) if answer else []


def preflight_lines(found: dict[str, Any] | None) -> list[str]:
    """Return a line for each finding of a preflight's result."""
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
    """Return the findings of a preflight that are neither a pass nor a warning."""
    if not found or not found["findings"]:
        return ["the preflight has no findings"]
    return [
        f"preflight: {each['check']} of {each['subject']}: {each['status']}: {each['found']}"
        for each in found["findings"]
        if each["status"] not in ("pass", "warn")
    ]


class TrainDeployDemo(Demo):
    """A trained model; the DAG itself compares its predictions with the endpoint's."""

    def wrong(self, report: DagRunReport) -> list[str]:
        """Check that predictions were compared at all."""
        found = report.xcoms.get(("check", -1))
        if found is None:
            return ["the predictions were not compared"]
        return [] if found["compared"] > 0 and found["rows"] > 0 else [f"nothing was compared: {found}"]

    def answer(self, report: DagRunReport) -> list[str]:
        """Return the metric, the comparison and the number of rows."""
        found = report.xcoms.get(("check", -1))
        if not found:
            return []
        return [
            f"The better model is {found['framework']}'s, with an accuracy of {found['accuracy']:.3f}.",
            f"The endpoint's {found['compared']} predictions match the model's own; the largest difference is"
            f" {found['furthest']:g}.",
            f"{found['rows']} rows were read, prepared and scored.",
        ]


def slot_lines(report: DagRunReport, slots: int, job_tasks: Sequence[str]) -> list[str]:
    """Compare the time in worker slots with the time deferred."""
    spent = seconds_by_state(report)
    running = sum(spent.get(task, {}).get(RUNNING, 0.0) for task in job_tasks)
    deferred = sum(spent.get(task, {}).get(DEFERRED, 0.0) for task in job_tasks)
    results = [report.xcoms.get((task.task_id, task.map_index)) for task in report.tasks if task.task_id in job_tasks]
    # The result of a function says nothing about its job.
    jobs = sum(float(each.get("duration_seconds") or 0.0) for each in results if isinstance(each, dict))
    ran = f"Ray jobs ran for {jobs:.0f} job seconds. " if jobs else ""
    count = sum(task.task_id in job_tasks for task in report.tasks)
    each = f", {running / count:.1f} s a job" if count else ""
    return [
        f"{ran}Their tasks waited {deferred:.0f} s without a worker slot and",
        f"  held one for {running:.0f} s{each}. Tasks that wait in their slot would have held one for"
        f" {running + deferred:.0f} s.",
        *_end_lines(report, job_tasks),
        f"At the peak, {report.peak(DEFERRED, job_tasks)} tasks waited for jobs at once, with {slots} worker slots.",
    ]


def _end_lines(report: DagRunReport, job_tasks: Sequence[str]) -> list[str]:
    """Return the time from the ends of the jobs to the ends of their tasks; empty if no result has one."""
    seconds = []
    for task in report.tasks:
        result = report.xcoms.get((task.task_id, task.map_index))
        ended = result.get("end_time") if isinstance(result, dict) and task.task_id in job_tasks else None
        if ended and task.end is not None:
            seconds.append(task.end.timestamp() - ended / 1000)
    if not seconds:
        return []
    return [
        f"From the end of a job to the end of its task: {median(seconds):.1f} s (median), {max(seconds):.1f} s at most."
    ]


def answer_lines(answer: dict[str, Any]) -> list[str]:
    """Return the computation's answer, the published numbers, and the effect of the warm cache."""
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
    """Classified flowers; the DAG itself checks their number."""

    def wrong(self, report: DagRunReport) -> list[str]:
        """Check that rows were classified at all."""
        found = report.xcoms.get(("check", -1))
        return [] if found and found["rows"] > 0 else [f"nothing was classified: {found}"]

    def answer(self, report: DagRunReport) -> list[str]:
        """Return the number of rows."""
        found = report.xcoms.get(("check", -1))
        return (
            [f"{found['rows']} rows were read, and {found['rows']} were written to {found['table']}."] if found else []
        )


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
