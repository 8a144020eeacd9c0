"""The example DAG with many jobs as one task: a real scheduler, a real triggerer and real Ray."""

from __future__ import annotations

import pytest

from devtools.dag_run_report import DEFERRED, RUNNING

from .conftest import System

pytestmark = [pytest.mark.system, pytest.mark.ray, pytest.mark.soak, pytest.mark.timeout(900)]

SHARDS = 50


def test_many_jobs_are_one_task(system: System) -> None:
    report = system.airflow.run_dag("example_vertex_ray_many_jobs", conf={"shards": SHARDS}, timeout=800)

    assert report.state == "success"
    found = report.xcom("count_primes")
    assert [job["key"] for job in found] == [f"from-{100_000 * n // SHARDS}" for n in range(SHARDS)]
    assert {job["status"] for job in found} == {"SUCCEEDED"}
    assert report.xcom("check") == 9_592
    # Most of the time, it held no slot.
    assert report.seconds_in(DEFERRED, ["count_primes"]) > report.seconds_in(RUNNING, ["count_primes"])
    assert f"{SHARDS} of {SHARDS} Ray jobs have ended" in report.log_text("count_primes")
    assert system.emulator.clusters() == []
