"""More deferrable jobs than worker slots, with a real scheduler, a real triggerer and real Ray."""

from __future__ import annotations

import pytest

from devtools.dag_run_report import DEFERRED, RUNNING

from .conftest import System
from .dags.many_deferred_jobs import ALL, JOB_SECONDS, SAMPLE

pytestmark = [pytest.mark.system, pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.mark.parametrize("count", [SAMPLE, pytest.param(ALL, marks=pytest.mark.soak)])
def test_more_jobs_wait_than_there_are_slots(system: System, count: int) -> None:
    report = system.airflow.run_dag(f"deferred_jobs_{count}", timeout=480)

    assert report.state == "success"
    jobs = report.instances("job")
    assert [job.map_index for job in jobs] == list(range(count))
    assert {job.state for job in jobs} == {"success"}
    assert [report.xcom("job", n)["result"] for n in range(count)] == list(range(count))

    waiting, running = report.peak(DEFERRED, ["job"]), report.peak(RUNNING)
    assert running <= system.slots
    assert waiting > system.slots
    # Each job ran for its whole time, and most of that did not occupy a slot.
    waited, held = report.seconds_in(DEFERRED, ["job"]), report.seconds_in(RUNNING, ["job"])
    assert waited + held >= count * JOB_SECONDS * 0.9
    assert waited > held
    assert system.emulator.clusters() == []
