"""Waiting for a cluster that somebody else makes."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException
from emulator_support.process import PATIENCE, EmulatorProcess

from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    ClusterNotFoundError,
    InvalidArgumentError,
    QuotaExceededError,
)
from airflow_provider_vertex_ray.sensors.cluster import VertexRayClusterSensor
from tests.support.clusters import BODY, LOCATION, start
from tests.support.tasks import context_of, deferral_of, run_task


def sensor(cluster_id: Any = "shared", **more: Any) -> VertexRayClusterSensor:
    return VertexRayClusterSensor(
        **{"task_id": "wait", "cluster_id": cluster_id, "location": LOCATION, "poke_interval": 0.02, **more}
    )


def begin(emulator: EmulatorProcess) -> None:
    """A cluster that nobody waits for."""
    assert emulator.api("POST", "persistentResources?persistentResourceId=shared", BODY)[0] == 200


def test_until_it_runs(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    begin(fake_emulator)
    operator = sensor("{{ name }}", deferrable=deferrable, timeout=PATIENCE)
    result = run_task(operator, context_of(operator, name="shared"))
    assert (result["cluster_id"], result["state"], result["node_count"]) == ("shared", "RUNNING", 3)


def test_one_that_runs_already_is_not_deferred_for(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    operator = sensor(deferrable=True)
    assert operator.execute(context_of(operator))["state"] == "RUNNING"


def test_another_state(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="internal", delay=0.1):
        begin(fake_emulator)
        result = run_task(sensor(target_states=["ERROR", "STOPPING"], deferrable=deferrable, timeout=PATIENCE))
    assert result["state"] == "ERROR"
    assert "An internal error occurred" in result["error"]


@pytest.mark.parametrize(("outcome", "kind"), [("quota", QuotaExceededError), ("internal", ClusterFailedError)])
def test_one_that_fails(fake_emulator: EmulatorProcess, deferrable: bool, outcome: str, kind: type[Exception]) -> None:
    with fake_emulator.fault(scope="provisioning", outcome=outcome, delay=0.1):
        begin(fake_emulator)
        with pytest.raises(kind):
            run_task(sensor(deferrable=deferrable, timeout=PATIENCE))


def test_there_is_none(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(ClusterNotFoundError):
        run_task(sensor(deferrable=deferrable, timeout=PATIENCE))


@pytest.mark.parametrize(("soft_fail", "kind"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)])
def test_its_time_passes(
    fake_emulator: EmulatorProcess, deferrable: bool, soft_fail: bool, kind: type[Exception]
) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stuck"):
        begin(fake_emulator)
        with pytest.raises(kind):
            run_task(sensor(deferrable=deferrable, timeout=0.1, soft_fail=soft_fail))
    assert fake_emulator.calls("DeletePersistentResource") == []


def test_its_deadline_is_the_trigger_s(fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stuck"):
        begin(fake_emulator)
        deferral = deferral_of(sensor(deferrable=True, timeout=90))
    assert deferral.timeout is None
    assert deferral.trigger.serialize()[1]["deadline"] is not None


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"cluster_id": "{{ nothing }}"}, "cluster_id"),
        ({"target_states": ["READY"]}, "target_states"),
        ({"target_states": "RUNNING"}, "target_states"),
    ],
    ids=str,
)
def test_wrong_input(fake_emulator: EmulatorProcess, deferrable: bool, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        operator = sensor(**arguments, deferrable=deferrable)
        run_task(operator, context_of(operator, nothing=""))
    assert caught.value.field == field
    assert fake_emulator.calls() == []
