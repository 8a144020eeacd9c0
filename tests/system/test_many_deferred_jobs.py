"""Fifty deferrable jobs and two worker slots, with a real scheduler, a real triggerer and real Ray.

In the ordinary tests five jobs wait together, see ``test_odd_output``.
"""

from __future__ import annotations

import pytest

from devtools.dag_run_report import DEFERRED, RUNNING

from .conftest import System
from .dags.many_deferred_jobs import COUNT, JOB_SECONDS

pytestmark = [pytest.mark.system, pytest.mark.ray, pytest.mark.soak, pytest.mark.timeout(600)]


def test_more_jobs_wait_than_there_are_slots(system: System) -> None:
    report = system.airflow.run_dag("deferred_jobs", timeout=480)

    assert report.state == "success"
    jobs = report.instances("job")
    assert [job.map_index for job in jobs] == list(range(COUNT))
    assert {job.state for job in jobs} == {"success"}
    assert [report.xcom("job", n)["result"] for n in range(COUNT)] == list(range(COUNT))

    waiting, running = report.peak(DEFERRED, ["job"]), report.peak(RUNNING)
    assert running <= system.slots
    assert waiting > system.slots
    # Each job ran for its whole time, and most of that did not occupy a slot.
    waited, held = report.seconds_in(DEFERRED, ["job"]), report.seconds_in(RUNNING, ["job"])
    assert waited + held >= COUNT * JOB_SECONDS * 0.9
    assert waited > held
    assert system.emulator.clusters() == []
