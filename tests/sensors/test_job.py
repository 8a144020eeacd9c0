"""Waiting for a job that somebody else submitted."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    JobFailedError,
    JobNotFoundError,
    JobStoppedError,
)
from airflow_provider_vertex_ray.log_query import LogQuery
from airflow_provider_vertex_ray.sensors.job import VertexRayJobSensor
from tests.support.clusters import LOCATION, dashboard_of, jobs_of, start, submit
from tests.support.monitoring import listed
from tests.support.tasks import context_of, deferral_of, run_task


def sensor(submission_id: Any = "job", **more: Any) -> VertexRayJobSensor:
    arguments = {"task_id": "wait", "cluster_id": "shared", "location": LOCATION, "poke_interval": 0.05, **more}
    return VertexRayJobSensor(submission_id=submission_id, **arguments)


@pytest.fixture
def shared(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    """With a running cluster ``shared``."""
    start(fake_emulator)
    return fake_emulator


@pytest.mark.parametrize("seconds", ["0", "0.2"])
def test_until_it_has_ended(shared: EmulatorProcess, deferrable: bool, seconds: str) -> None:
    submit(shared, "shared", "job", f"sleep {seconds}")
    operator = sensor("{{ name }}", deferrable=deferrable, timeout=PATIENCE)
    result = run_task(operator, context_of(operator, name="job"))
    assert (result["submission_id"], result["status"], result["exit_code"]) == ("job", "SUCCEEDED", 0)


def test_one_that_has_ended_is_not_deferred_for(shared: EmulatorProcess) -> None:
    submit(shared, "shared", "job", "echo done")
    until(lambda: jobs_of(shared, "shared")["job"]["end_time"])
    operator = sensor(deferrable=True)
    assert operator.execute(context_of(operator))["status"] == "SUCCEEDED"


@pytest.mark.parametrize("soft_fail", [False, True])
@pytest.mark.parametrize("seconds", ["0", "0.2"])
def test_one_that_fails(shared: EmulatorProcess, deferrable: bool, seconds: str, soft_fail: bool) -> None:
    submit(shared, "shared", "job", f"sleep {seconds} && exit 5")
    # Too late is soft, failed is not.
    with pytest.raises(JobFailedError, match="exit code 5"):
        run_task(sensor(deferrable=deferrable, timeout=PATIENCE, soft_fail=soft_fail))


def test_one_that_was_stopped(shared: EmulatorProcess, deferrable: bool) -> None:
    submit(shared, "shared", "job", "sleep 600")
    until(lambda: jobs_of(shared, "shared")["job"]["status"] == "RUNNING")
    path = f"{dashboard_of(shared, 'shared')}/api/jobs/job/stop"
    assert shared.request("POST", path, {}, token=shared.token())[0] == 200
    with pytest.raises(JobStoppedError):
        run_task(sensor(deferrable=deferrable, timeout=PATIENCE))


@pytest.mark.parametrize(("soft_fail", "kind"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)])
def test_its_time_passes_and_the_job_goes_on(
    shared: EmulatorProcess, deferrable: bool, soft_fail: bool, kind: type[Exception]
) -> None:
    submit(shared, "shared", "job", "sleep 600")
    with pytest.raises(kind):
        run_task(sensor(deferrable=deferrable, timeout=0.1, soft_fail=soft_fail))
    assert jobs_of(shared, "shared")["job"]["status"] == "RUNNING"
    assert shared.calls("POST /api/jobs/job/stop") == []


def test_its_deadline_is_the_trigger_s(shared: EmulatorProcess) -> None:
    submit(shared, "shared", "job", "sleep 600")
    deferral = deferral_of(sensor(deferrable=True, timeout=90))
    arguments = deferral.trigger.serialize()[1]
    assert deferral.timeout is None
    assert arguments["deadline"] is not None
    assert arguments["stop_at_deadline"] is False


def test_a_job_that_the_cluster_does_not_know(shared: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(JobNotFoundError):
        run_task(sensor(deferrable=deferrable, timeout=PATIENCE))


def test_a_cluster_that_is_not_there(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(ClusterNotFoundError):
        run_task(sensor(deferrable=deferrable, timeout=PATIENCE))


def test_a_failed_job_s_last_lines(shared: EmulatorProcess, deferrable: bool) -> None:
    shared.admin("DELETE", "telemetry")
    submit(shared, "shared", "job", "echo before && exit 3")
    listed(shared, 2, LogQuery("shared", submission_id="job"))
    with pytest.raises(JobFailedError, match=r"(?s)exit code 3: .*    before$") as caught:
        run_task(sensor(deferrable=deferrable))
    assert caught.value.details["logs_tail"][-1] == "before"
