"""Waiting for a condition on a metric."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.core import polling
from airflow_provider_vertex_ray.core.http import google_call
from airflow_provider_vertex_ray.errors import InvalidArgumentError, InvalidRequestError, MetricsNotAuthorisedError
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.sensors.monitoring import VertexRayMetricSensor
from airflow_provider_vertex_ray.triggers.monitoring import VertexRayMetricTrigger
from tests.support.clusters import LOCATION, full_name, start
from tests.support.monitoring import been, measured
from tests.support.tasks import context_of, deferral_of, first_event, run_task

RANGE = "QueryRangePrometheus"


def sensor(**more: Any) -> VertexRayMetricSensor:
    arguments = {
        "task_id": "wait",
        "cluster_id": "shared",
        "location": LOCATION,
        "poke_interval": 0.02,
        "timeout": PATIENCE,
    }
    condition = {} if "promql" in more else {"metric": "gpu"}
    return VertexRayMetricSensor(**{**arguments, **condition, "comparison": "<", "threshold": 10, **more})


@pytest.fixture
def shared(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    """With a running cluster ``shared`` that has measured nothing."""
    fake_emulator.admin("DELETE", "telemetry")
    start(fake_emulator)
    return fake_emulator


def quiet(emulator: EmulatorProcess, seconds: float = 3600, value: float = 4) -> None:
    measured(emulator, ray_node_gpus_utilization=[been(value, seconds, GpuIndex="0")])


def test_under_10_percent_for_30_minutes(shared: EmulatorProcess, deferrable: bool) -> None:
    quiet(shared, 2400)
    operator = sensor(cluster_id="{{ name }}", for_seconds=1800, deferrable=deferrable)
    context = context_of(operator, name="shared")
    result = run_task(operator, context)
    assert (result["cluster_id"], result["condition"], result["value"]) == ("shared", "< 10 for 1800 s", 4)
    assert result["promql"] == 'avg(ray_node_gpus_utilization{cluster="shared"})'
    assert 2300 <= result["at"] - result["since"] <= 3000
    facts = context["ti"].xcoms[LINK_KEY]
    assert (facts["cluster_id"], facts["promql"]) == ("shared", result["promql"])
    assert facts["dashboard_uri"]


def becomes_quiet_once_asked(emulator: EmulatorProcess, asked: int = 2) -> threading.Thread:
    """Set the metric after the sensor has looked so often."""

    def work() -> None:
        until(lambda: len(emulator.calls(RANGE)) >= asked, "nobody asks")
        quiet(emulator)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_it_waits_until_it_is_so(shared: EmulatorProcess, deferrable: bool) -> None:
    quiet(shared, value=80)
    thread = becomes_quiet_once_asked(shared)
    assert run_task(sensor(for_seconds=60, deferrable=deferrable))["value"] == 4
    thread.join()
    assert len(shared.calls(RANGE)) >= 2


def test_without_data_it_waits(shared: EmulatorProcess, deferrable: bool) -> None:
    thread = becomes_quiet_once_asked(shared)
    assert run_task(sensor(deferrable=deferrable))["value"] == 4
    thread.join()


@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 503}, {"action": "reset"}], ids=str)
def test_troubles_on_the_way(shared: EmulatorProcess, deferrable: bool, fault: dict[str, Any]) -> None:
    quiet(shared)
    with shared.fault(scope="control_plane", method=RANGE, times=3, **fault):
        assert run_task(sensor(for_seconds=600, deferrable=deferrable))["value"] == 4


def test_a_token_that_expires_while_it_waits(shared: EmulatorProcess) -> None:
    quiet(shared, value=80)

    def expire() -> None:
        until(lambda: len(shared.calls(RANGE)) >= 2, "nobody asks")
        shared.admin("POST", "tokens/revoke")
        until(lambda: len([call for call in shared.calls(RANGE) if call["status"] == 401]) >= 1, "no refusal")
        quiet(shared)

    thread = threading.Thread(target=expire)
    thread.start()
    assert run_task(sensor(for_seconds=60, deferrable=True))["value"] == 4
    thread.join()


@pytest.mark.parametrize(("soft_fail", "kind"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)])
def test_its_time_passes(shared: EmulatorProcess, deferrable: bool, soft_fail: bool, kind: type[Exception]) -> None:
    quiet(shared, value=80)
    with pytest.raises(kind):
        run_task(sensor(for_seconds=60, deferrable=deferrable, timeout=0.1, soft_fail=soft_fail))


async def test_the_error_says_what_was_known(shared: EmulatorProcess) -> None:
    quiet(shared, seconds=20)
    error = (await first_event(trigger(for_seconds=600, deadline=time.time() + 0.1)))["error"]
    assert error["type"] == "OperationTimeoutError"
    assert "< 10 for 600 s: it has held for " in error["message"]
    assert error["message"].endswith("; its last value is 4.")


async def test_a_service_that_is_silent_does_not_hold_the_deadline_up(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet(shared)
    monkeypatch.setattr(polling, "SHORTEST_LOOK", 1.0)
    monkeypatch.setattr(google_call, "TIMEOUT", 600.0)
    with shared.fault(scope="control_plane", method=RANGE, action="hang", times=None):
        event = await asyncio.wait_for(first_event(trigger(deadline=time.time() + 0.1)), PATIENCE)
    assert "no answer in time; its value is unknown" in event["error"]["message"]


async def test_429_for_ever_ends_at_the_deadline(shared: EmulatorProcess) -> None:
    quiet(shared)
    with shared.fault(scope="control_plane", method=RANGE, status=429, times=None):
        event = await asyncio.wait_for(first_event(trigger(deadline=time.time() + 0.1)), PATIENCE)
    assert event["error"]["type"] == "OperationTimeoutError"


def trigger(**more: Any) -> VertexRayMetricTrigger:
    query = 'avg(ray_node_gpus_utilization{cluster="shared"})'
    known = {"cluster_name": full_name("shared"), "promql": query, "comparison": "<", "threshold": 10}
    return VertexRayMetricTrigger(**{**known, "poll_interval": 0.02, **more})


def test_all_series_have_to_fit(shared: EmulatorProcess, deferrable: bool) -> None:
    query = 'ray_node_gpus_utilization{cluster="shared"}'
    measured(shared, ray_node_gpus_utilization=[been(4, 600, GpuIndex="0"), been(90, 600, GpuIndex="1")])
    with pytest.raises(AirflowSensorTimeout):
        run_task(sensor(promql=query, for_seconds=60, deferrable=deferrable, timeout=0.1))
    measured(shared, ray_node_gpus_utilization=[been(4, 600, GpuIndex="0"), been(5, 600, GpuIndex="1")])
    assert run_task(sensor(promql=query, for_seconds=60, deferrable=deferrable))["value"] in (4, 5)


def test_a_cluster_that_is_gone_is_not_quiet(shared: EmulatorProcess) -> None:
    quiet(shared)
    shared.wait(shared.api("DELETE", "persistentResources/shared")[1])
    with pytest.raises(AirflowSensorTimeout):
        run_task(sensor(for_seconds=600, deferrable=True, timeout=0.1))


def test_its_deadline_is_the_trigger_s(shared: EmulatorProcess) -> None:
    deferral = deferral_of(sensor(deferrable=True, timeout=90))
    assert deferral.timeout is None
    assert deferral.trigger.serialize()[1]["deadline"] is not None


def test_what_can_not_get_better_fails_at_once(shared: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(InvalidRequestError, match=r"The query was: avg\("):
        run_task(sensor(promql="avg(", deferrable=deferrable))
    shared.admin("PUT", "project", {"denied_permissions": ["monitoring.timeSeries.list"]})
    try:
        with pytest.raises(MetricsNotAuthorisedError):
            run_task(sensor(deferrable=deferrable))
    finally:
        shared.admin("DELETE", "project")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"cluster_id": "Bad_Id"}, "cluster_id"),
        ({"metric": "disk"}, "metric"),
        ({"metric": None}, "metric"),
        ({"metric": "gpu", "promql": "up"}, "metric"),
        ({"promql": " "}, "promql"),
        ({"comparison": "under"}, "comparison"),
        ({"threshold": "ten"}, "threshold"),
        ({"for_seconds": -1}, "for_seconds"),
    ],
    ids=str,
)
def test_wrong_input_is_refused_at_parse(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        sensor(**arguments)
    assert caught.value.field == field
