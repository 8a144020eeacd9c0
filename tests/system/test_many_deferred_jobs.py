"""Fifty deferrable jobs through two worker slots of a real scheduler."""

from __future__ import annotations

import pytest

from devtools.dag_run_report import DEFERRED, RUNNING

from .conftest import System
from .dags.many_deferred_jobs import JOB_SECONDS, JOBS

pytestmark = [pytest.mark.system, pytest.mark.ray, pytest.mark.timeout(600)]


def test_more_jobs_wait_than_there_are_slots(system: System) -> None:
    report = system.airflow.run_dag("many_deferred_jobs", timeout=480)

    assert report.state == "success"
    jobs = report.instances("job")
    assert [job.map_index for job in jobs] == list(range(JOBS))
    assert {job.state for job in jobs} == {"success"}
    assert [report.xcom("job", n)["result"] for n in range(JOBS)] == list(range(JOBS))

    waiting, running = report.peak(DEFERRED, ["job"]), report.peak(RUNNING)
    assert running <= system.slots
    assert waiting > 2 * system.slots
    # Each job ran for its whole time, and most of that cost no slot.
    waited, held = report.seconds_in(DEFERRED, ["job"]), report.seconds_in(RUNNING, ["job"])
    assert waited + held >= JOBS * JOB_SECONDS * 0.9
    assert waited > held
    assert system.emulator.clusters() == []
