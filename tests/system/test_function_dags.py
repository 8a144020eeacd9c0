"""The examples of functions and of training: real scheduler, real triggerer, real Ray."""

from __future__ import annotations

import pytest

from devtools.dag_run_report import DEFERRED

from .conftest import System

pytestmark = [pytest.mark.system, pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.mark.soak
def test_functions_mapped_over_many_inputs(system: System) -> None:
    inputs = 20
    conf = {"limit": 10_000, "inputs": inputs}
    report = system.airflow.run_dag("example_vertex_ray_functions", conf=conf, timeout=800)

    assert report.state == "success"
    chains = report.instances("longest_chain")
    assert [(task.map_index, task.state, task.try_number) for task in chains] == [
        (place, "success", 1) for place in range(inputs)
    ]
    # Airflow 2.11 notes the class of a mapped task.
    assert {task.operator for task in chains} <= {"@task.vertex_ray", "_VertexRayDecoratedOperator"}
    # https://oeis.org/A006877 and https://oeis.org/A006878
    answer = report.xcom("summarize")
    assert (answer["number"], answer["steps"], answer["limit"]) == (6_171, 261, 10_000)
    assert answer["run_id"] == report.run_id
    assert max(report.xcom("longest_chain", place)["steps"] for place in range(inputs)) == 261
    assert "6171 takes 261 steps to 1" in "".join(report.log_text("longest_chain", n) for n in range(inputs))
    assert report.seconds_in(DEFERRED, ["longest_chain"]) > 0
    assert system.emulator.clusters() == []


@pytest.mark.parametrize(
    ("least", "chosen", "other"),
    [
        (0.9, "accept_model", "reject_model"),
        pytest.param(1.0, "reject_model", "accept_model", marks=pytest.mark.soak),
    ],
)
def test_training_and_a_branch_on_its_metric(system: System, least: float, chosen: str, other: str) -> None:
    conf = {"least_accuracy": least, "epochs": 5}
    report = system.airflow.run_dag("example_vertex_ray_train_branch", conf=conf, timeout=800)

    assert report.state == "success"
    states = {task.task_id: task.state for task in report.tasks}
    assert (states["train"], states[chosen], states[other]) == ("success", "success", "skipped")
    metrics = report.xcom("train")["result"]
    assert metrics["flowers"] == 150
    assert (metrics["accuracy"] >= least) is (chosen == "accept_model")
    assert report.xcom(chosen) == {"accepted": chosen == "accept_model", **metrics}
    assert system.emulator.clusters() == []
