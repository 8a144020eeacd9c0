"""Deferred tasks end in the triggerer, or in a worker, with the same states, results, logs and calls."""

from __future__ import annotations

import pytest
from airflow import __version__

from airflow_provider_vertex_ray.triggers.task_end import ENDS_HERE
from devtools.dag_run_report import DEFERRED, DagRunReport

from .conftest import System
from .dags.end_from_trigger import SENSOR_WAITS

DEFAULT = [int(part) for part in __version__.split(".")[:3]] >= [3, 3, 1]

pytestmark = [
    *(pytest.mark.system, pytest.mark.ray, pytest.mark.soak, pytest.mark.timeout(900)),
    pytest.mark.skipif(not DEFAULT, reason="There, workers end tasks unless the user wants it otherwise."),
]


@pytest.fixture(scope="module")
def report(system: System) -> DagRunReport:
    def open_gate(report: DagRunReport) -> None:
        if [task.state for task in report.instances("sensor")] == [DEFERRED]:
            (system.folder / SENSOR_WAITS).touch()

    found = system.airflow.run_dag("ends", timeout=780, on_progress=open_gate)
    assert found.state == "failed"
    return found


def ends_here(report: DagRunReport, task: str, map_index: int = -1) -> bool:
    return ENDS_HERE in report.log_text(task, map_index)


def test_states_and_tries_are_those_of_a_worker(report: DagRunReport) -> None:
    states = {task.name: (task.state, task.try_number) for task in report.tasks}
    failed, again = ["failing", "noted", "at_once"], ["retried"]
    for name, (state, tries) in states.items():
        expected = "failed" if name in failed else "skipped" if name == "skipped" else "success"
        assert (name, state, tries) == (name, expected, 2 if name in again else 1)
    assert all(task.duration is not None and task.duration >= 0 for task in report.tasks)


def test_most_tasks_end_in_the_triggerer(report: DagRunReport) -> None:
    for name in ("plain", "silent", "retried", "outputs", "typed", "nothing", "skipped", "failing", "sensor"):
        assert ends_here(report, name), name
    assert [ends_here(report, "mapped", number) for number in range(3)] == [True] * 3
    for name in ("noted", "pleased", "outlet", "by_worker", "at_once", "numbers"):
        assert not ends_here(report, name), name


def test_the_log_says_once_why_a_worker_ends_a_task(report: DagRunReport) -> None:
    for name, reason in (("pleased", "on_success_callback"), ("outlet", "outlets"), ("numbers", "expanded")):
        (line,) = (line for line in report.log_text(name).splitlines() if "A worker ends this task" in line)
        assert reason in line
    assert "A worker ends this task" not in report.log_text("by_worker")


def test_results_have_their_types(report: DagRunReport) -> None:
    assert report.xcom("plain")["result"] == {"n": 1}
    assert report.xcom("plain")["cluster_id"].startswith("ends-")
    assert report.xcom("retried")["result"] == 7
    assert report.xcom("sensor")["result"] == 1
    assert ("silent", -1) not in report.xcoms
    assert report.xcom("outputs") == {"a": 1, "b": 2}
    assert report.xcom("seen") == ["(1, datetime.date(2025, 1, 2), {'x': None})", "1", "None", "[0, 1, 2]"]
    assert sorted(report.xcom("each", number) for number in range(2)) == [11, 21]


def test_the_log_of_a_failed_task_has_the_error(report: DagRunReport) -> None:
    log = report.log_text("failing")
    assert "JobFailedError" in log
    assert "failed with exit code 4" in log
    assert "before the end" in log
    assert "never again" in report.log_text("at_once")
    assert "exit code 99; skipped" in report.log_text("skipped")


def test_callbacks_are_called_with_everything(report: DagRunReport, system: System) -> None:
    assert (system.folder / "told-of-failure").read_text() == "JobFailedError"
    assert (system.folder / "told-of-success").read_text() == "pleased"
