"""A task that would wait in a triggerer says so if Airflow reports none; by Airflow's own health check."""

from __future__ import annotations

import datetime
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from airflow.api.common.airflow_health import get_airflow_health
from airflow.jobs.job import Job
from airflow.utils.session import create_session
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.operators import triggerer_health
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.triggerer_health import HEALTH_PATH, no_triggerer
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.sensors.cluster import VertexRayClusterSensor
from tests.operators.builders import submit_job
from tests.support.clusters import LOCATION, start
from tests.support.tasks import deferral_of
from tests.support.wrong_uses import serving_json

WORDS = "Airflow's health check reports none"
AIRFLOW_3 = importlib.util.find_spec("airflow.sdk") is not None


@contextmanager
def api_server(health: bytes) -> Iterator[None]:
    """What the API server of Airflow 3 answers; Airflow 2 reads its database itself."""
    with serving_json({HEALTH_PATH: health}) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"http://{address}/execution/")
        yield


@contextmanager
def triggerer(age: float) -> Iterator[None]:
    """A triggerer's row in Airflow's database, with a heartbeat that is some seconds old."""
    with create_session() as session:
        heartbeat = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=age)
        job = Job(job_type="TriggererJob", state="running", latest_heartbeat=heartbeat)
        session.add(job)
        session.flush()
        number = job.id
    try:
        yield
    finally:
        with create_session() as session:
            session.query(Job).filter(Job.id == number).delete()


@pytest.fixture(autouse=True)
def _answer_of_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggerer_health, "SECONDS", 60.0)


def health() -> bytes:
    return json.dumps(get_airflow_health()).encode()


def test_no_triggerer_is_told_before_the_wait(
    fake_emulator: EmulatorProcess, airflow_db: None, task_log: list[str]
) -> None:
    start(fake_emulator)
    with api_server(health()):
        assert no_triggerer()
        deferral_of(submit_job("sleep 600", deferrable=True))
        assert [line for line in task_log if WORDS in line]
    with triggerer(age=3600), api_server(health()):
        assert no_triggerer()


def test_running_triggerer_is_not_mentioned(
    fake_emulator: EmulatorProcess, airflow_db: None, task_log: list[str]
) -> None:
    start(fake_emulator)
    # So that it is not old before it is looked at.
    with triggerer(age=-60), api_server(health()):
        assert not no_triggerer()
        deferral_of(submit_job("sleep 600", deferrable=True))
    assert [line for line in task_log if WORDS in line] == []


def test_sensors_say_it_too(
    fake_emulator: EmulatorProcess, airflow_db: None, task_log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VertexRayBaseSensor, "log", VertexRayBaseOperator.log, raising=False)
    start(fake_emulator)
    sensor = VertexRayClusterSensor(
        task_id="wait", cluster_id="shared", target_states=["ERROR"], location=LOCATION, deferrable=True
    )
    with api_server(health()):
        deferral_of(sensor)
    assert [line for line in task_log if WORDS in line]


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 has no such server between a task and its database")
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>a login page</html>",
        b"[]",
        b"{}",
        b'{"triggerer": {"status": "unhealthy"}}',
        b'{"metadatabase": 3}',
    ],
)
def test_anything_else_says_nothing(answer: bytes) -> None:
    with api_server(answer):
        assert not no_triggerer()


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 has no such server between a task and its database")
def test_the_path_is_airflows_own() -> None:
    from airflow.api_fastapi.core_api.routes.public.monitor import monitor_router

    assert HEALTH_PATH.removeprefix("/api/v2") in {route.path for route in monitor_router.routes}  # type: ignore[attr-defined]
