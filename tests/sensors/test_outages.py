"""A short outage of the service ends no sensor: not in the poke before it defers, and not in any other."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.sensors.cluster import VertexRayClusterSensor
from airflow_provider_vertex_ray.sensors.endpoint import VertexRayEndpointSensor
from airflow_provider_vertex_ray.sensors.idle import VertexRayClusterIdleSensor
from airflow_provider_vertex_ray.sensors.job import VertexRayJobSensor
from airflow_provider_vertex_ray.sensors.monitoring import VertexRayMetricSensor
from airflow_provider_vertex_ray.sensors.quota import VertexRayQuotaSensor
from tests.support.clusters import LOCATION, jobs_of, start, submit
from tests.support.tasks import run_task

COMMON: dict[str, Any] = {"task_id": "wait", "cluster_id": "shared", "location": LOCATION, "poke_interval": 0.02}
OUTAGE = {"scope": "control_plane", "method": "GetPersistentResource", "action": "status"}


def sensors(deferrable: bool, **more: Any) -> dict[str, VertexRayBaseSensor]:
    given = {**COMMON, "deferrable": deferrable, "timeout": PATIENCE, **more}
    return {
        "cluster": VertexRayClusterSensor(**given),
        "job": VertexRayJobSensor(submission_id="job", **given),
        "idle": VertexRayClusterIdleSensor(idle_for=0.001, **given),
    }


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("kind", ["cluster", "job", "idle"])
def test_sensor_survives_an_outage(fake_emulator: EmulatorProcess, deferrable: bool, kind: str, status: int) -> None:
    start(fake_emulator)
    submit(fake_emulator, "shared", "job", "true")
    until(lambda: jobs_of(fake_emulator, "shared")["job"]["status"] == "SUCCEEDED")
    # More in a row than one call tries.
    with fake_emulator.fault(**OUTAGE, status=status, times=8):
        found = run_task(sensors(deferrable)[kind])
    assert found["submission_id" if kind == "job" else "cluster_id"] == ("job" if kind == "job" else "shared")


def test_outage_that_lasts_ends_at_the_timeout(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    with fake_emulator.fault(**OUTAGE, status=503, times=None), pytest.raises(AirflowSensorTimeout):
        run_task(sensors(deferrable, timeout=0.3)["cluster"])


@pytest.mark.parametrize(
    "kind",
    [
        VertexRayClusterSensor,
        VertexRayClusterIdleSensor,
        VertexRayEndpointSensor,
        VertexRayJobSensor,
        VertexRayMetricSensor,
        VertexRayQuotaSensor,
    ],
)
def test_every_sensor_pokes_as_the_base_class_does(kind: type[VertexRayBaseSensor]) -> None:
    assert kind.poke is VertexRayBaseSensor.poke
