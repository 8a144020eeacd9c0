"""The example DAG of a report: its own tasks, run on the emulator."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from tests.support.clusters import start, submit
from tests.support.monitoring import OF_JOB, been, listed, measured
from tests.support.tasks import TaskInstance, context_of, run_task

EXAMPLE = Path(__file__).resolve().parents[2] / "example_dags" / "example_vertex_ray_monitoring.py"


class Variables:
    """Airflow's variables, as templates read them."""

    def __init__(self, **values: str) -> None:
        self._values = values

    def __getattr__(self, name: str) -> str:
        return self._values[name]

    def get(self, name: str, default: str) -> str:
        return self._values.get(name, default)


@pytest.fixture
def dag() -> Any:
    return runpy.run_path(str(EXAMPLE))["quiet"].dag


def test_the_order(dag: Any) -> None:
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == {
        "wait_until_quiet": {"plot", "warnings"},
        "plot": set(),
        "warnings": set(),
    }


def test_the_report(dag: Any, fake_emulator: EmulatorProcess, tmp_path: Path) -> None:
    fake_emulator.admin("DELETE", "telemetry")
    start(fake_emulator)
    measured(fake_emulator, ray_node_cpu_utilization=[been(3, 3600)])
    submit(fake_emulator, "shared", "one", "echo fine && echo WARNING: too hot")
    listed(fake_emulator, 3, OF_JOB)
    variables = Variables(vertex_ray_cluster="shared", vertex_ray_reports=f"file://{tmp_path}")
    results = {}
    for task_id in ("wait_until_quiet", "plot", "warnings"):
        task = dag.get_task(task_id)
        more = {"var": {"value": variables}, "run_id": "manual__2026-01-31T12:00:00+00:00"}
        results[task_id] = run_task(task, context_of(task, TaskInstance(task_id), **more))
    folder = tmp_path / "manual__2026-01-31T12-00-00+00-00"
    assert results["wait_until_quiet"]["value"] == 3
    assert (folder / "plot.svg").read_bytes().startswith(b"<?xml")
    assert (folder / "warnings.log").read_text().endswith("WARNING: too hot\n")
    assert results["warnings"]["written"] == 1
