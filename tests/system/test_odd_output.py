"""What one job prints harms no other wait of the same triggerer."""

from __future__ import annotations

import pytest

from devtools.dag_run_report import DEFERRED, RUNNING, DagRunReport

from .conftest import System
from .dags.odd_output import ALL, ODD, SAMPLE, gate

pytestmark = [pytest.mark.system, pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.mark.parametrize("count", [SAMPLE, pytest.param(ALL, marks=pytest.mark.soak)])
def test_odd_output_fails_its_task_alone(system: System, count: int) -> None:
    triggerer: list[int] = []

    def open_gates(report: DagRunReport) -> None:
        states = {job.map_index: job.state for job in report.instances("job")}
        if not triggerer and list(states.values()) == [DEFERRED] * count:
            triggerer.extend(system.airflow.processes("triggerer"))
            gate(system.folder, count, "odd").touch()
        # The others end only when the event of this one has been stored and its task has ended.
        if triggerer and states[ODD] not in (DEFERRED, "scheduled", "queued", "running", None):
            gate(system.folder, count, "rest").touch()

    report = system.airflow.run_dag(f"odd_output_{count}", timeout=780, on_progress=open_gates)

    states = {job.map_index: job.state for job in report.instances("job")}
    assert states == {number: "failed" if number == ODD else "success" for number in range(count)}
    assert {n: report.xcom("job", n)["result"] for n in range(count) if n != ODD} == {
        n: n for n in range(count) if n != ODD
    }
    assert {job.try_number for job in report.instances("job")} == {1}
    log = report.log_text("job", ODD)
    assert "before the end: 2999" in log
    assert "['seed']" in log
    assert "64 bits" in log
    assert "a\ufffdb" in log
    # More waited than there are slots, and no slot was held meanwhile.
    assert report.peak(DEFERRED, ["job"]) == count > system.slots >= report.peak(RUNNING)
    assert triggerer, "the jobs never waited together"
    assert set(triggerer) <= set(system.airflow.processes("triggerer"))
    assert system.emulator.clusters() == []
