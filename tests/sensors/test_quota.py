"""Waiting for free quota."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.cluster_spec import AutoscalingSpec, ClusterSpec, Resources
from airflow_provider_vertex_ray.core import polling
from airflow_provider_vertex_ray.core.http import google_call
from airflow_provider_vertex_ray.errors import (
    InvalidArgumentError,
    NotAuthorisedError,
    QuotaTooSmallError,
    ServiceDisabledError,
)
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.sensors.quota import VertexRayQuotaSensor
from airflow_provider_vertex_ray.triggers.quota import VertexRayQuotaTrigger
from tests.support.clusters import LOCATION, SPEC, start
from tests.support.tasks import TaskInstance, context_of, deferral_of, first_event, run_task

CPUS = "custom_model_training_cpus"
GROWING = ClusterSpec(worker_node_types=[Resources("n1-standard-8", autoscaling_spec=AutoscalingSpec(2, 10))])


def sensor(spec: Any = SPEC, **more: Any) -> VertexRayQuotaSensor:
    return VertexRayQuotaSensor(
        **{"task_id": "wait", "spec": spec, "location": LOCATION, "poke_interval": 0.01, "timeout": PATIENCE, **more}
    )


def script(emulator: EmulatorProcess, **numbers: int) -> None:
    emulator.admin("PUT", "project", {"quota": {CPUS: {LOCATION: numbers}}})


def after_looks(emulator: EmulatorProcess, looks: int, act: Callable[[], Any]) -> threading.Thread:
    """Does something once the quota was looked at so many times."""

    def work() -> None:
        until(lambda: len(emulator.calls("ListTimeSeries")) >= looks, what=f"fewer than {looks} looks")
        act()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_what_is_free_is_not_waited_for(fake_emulator: EmulatorProcess) -> None:
    script(fake_emulator, limit=100, used=68)
    operator = sensor(deferrable=True)
    ti = TaskInstance("wait")
    found = operator.execute(context_of(operator, ti))
    assert found == {
        "location": LOCATION,
        "quota": [{"metric": CPUS, "asked": 32, "asked_at_most": 32, "limit": 100, "used": 68, "free": 32}],
    }
    assert ti.xcoms[LINK_KEY] == {"project_id": "demo-project", "emulator": fake_emulator.host}


def test_a_cluster_that_is_deleted_frees_it(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    script(fake_emulator, limit=63)
    start(fake_emulator)
    fake_emulator.admin("DELETE", "calls")
    waiting = after_looks(fake_emulator, 3, lambda: fake_emulator.api("DELETE", "persistentResources/shared"))
    try:
        found = run_task(sensor(deferrable=deferrable))
    finally:
        waiting.join()
    assert [(each["used"], each["free"]) for each in found["quota"]] == [(0, 63)]
    assert len(fake_emulator.calls("ListTimeSeries")) >= 4


@pytest.mark.parametrize(("numbers", "full_size"), [({"limit": 31}, False), ({"limit": 95}, True)])
def test_a_limit_that_is_too_small_ends_the_wait_at_once(
    fake_emulator: EmulatorProcess, deferrable: bool, numbers: dict[str, int], full_size: bool
) -> None:
    script(fake_emulator, **numbers)
    with pytest.raises(QuotaTooSmallError) as caught:
        run_task(sensor(GROWING, deferrable=deferrable, full_size=full_size))
    assert len(fake_emulator.calls("GetConsumerQuotaMetric")) == 1
    assert f"{CPUS}: 32 requested (up to 96 when autoscaled); limit {numbers['limit']}" in str(caught.value)
    assert "IAM & Admin > Quotas" in str(caught.value)
    assert caught.value.details["quota"][0]["limit"] == numbers["limit"]


def test_a_limit_that_becomes_too_small_ends_it_as_well(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    script(fake_emulator, limit=64, used=60)
    waiting = after_looks(fake_emulator, 2, lambda: script(fake_emulator, limit=8, used=60))
    try:
        with pytest.raises(QuotaTooSmallError):
            run_task(sensor(deferrable=deferrable))
    finally:
        waiting.join()


def test_the_beginning_is_enough_unless_the_full_size_is_asked_for(fake_emulator: EmulatorProcess) -> None:
    script(fake_emulator, limit=100, used=60)
    assert run_task(sensor(GROWING))["quota"][0]["free"] == 40
    deferral = deferral_of(sensor(GROWING, deferrable=True, full_size=True))
    assert deferral.trigger.serialize()[1]["full_size"] is True


@pytest.mark.parametrize(
    ("status", "method"), [(429, "GetConsumerQuotaMetric"), (500, "ListTimeSeries"), (503, "GetConsumerQuotaMetric")]
)
def test_a_service_that_does_not_answer_for_a_while(
    fake_emulator: EmulatorProcess, deferrable: bool, status: int, method: str
) -> None:
    script(fake_emulator, limit=64, used=60)
    # More in a row than one call tries.
    fake_emulator.admin(
        "POST", "faults", {"scope": "control_plane", "method": method, "action": "status", "status": status, "times": 8}
    )
    waiting = after_looks(fake_emulator, 10, lambda: script(fake_emulator, limit=64, used=32))
    try:
        assert run_task(sensor(deferrable=deferrable))["quota"][0]["free"] == 32
    finally:
        waiting.join()
    refused = [call for call in fake_emulator.calls(method) if call["status"] == status]
    assert len(refused) == 8


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"denied_permissions": ["serviceusage.quotas.get"]}, NotAuthorisedError),
        ({"denied_permissions": ["monitoring.timeSeries.list"]}, NotAuthorisedError),
        ({"services": {"monitoring.googleapis.com": "DISABLED"}}, ServiceDisabledError),
    ],
)
def test_what_may_not_be_read_is_not_waited_for(
    fake_emulator: EmulatorProcess, deferrable: bool, said: dict[str, Any], kind: type[Exception]
) -> None:
    fake_emulator.admin("PUT", "project", said)
    with pytest.raises(kind):
        run_task(sensor(deferrable=deferrable))


@pytest.mark.parametrize(("soft_fail", "kind"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)])
def test_its_time_passes(
    fake_emulator: EmulatorProcess, deferrable: bool, soft_fail: bool, kind: type[Exception]
) -> None:
    script(fake_emulator, limit=64, used=60)
    with pytest.raises(kind):
        run_task(sensor(deferrable=deferrable, timeout=0.1, soft_fail=soft_fail))


def test_its_deadline_is_the_trigger_s(fake_emulator: EmulatorProcess) -> None:
    script(fake_emulator, limit=64, used=60)
    deferral = deferral_of(sensor(deferrable=True, timeout=90))
    assert deferral.timeout is None
    assert deferral.trigger.serialize()[1]["deadline"] is not None


async def test_a_service_that_is_silent_does_not_hold_the_deadline_up(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "SHORTEST_LOOK", 1.0)
    monkeypatch.setattr(google_call, "TIMEOUT", 600.0)
    trigger = VertexRayQuotaTrigger(
        project_id="demo-project", location=LOCATION, spec=SPEC.to_dict(), deadline=time.time() + 0.1
    )
    with fake_emulator.fault(scope="control_plane", method="GetConsumerQuotaMetric", action="hang", times=None):
        event = await asyncio.wait_for(first_event(trigger), PATIENCE)
    assert event["error"]["type"] == "OperationTimeoutError"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"spec": {"worker_node_types": []}}, "worker_node_types"),
        ({"spec": {"ray_version": "{{ nothing }}"}}, "ray_version"),
        ({"spec": {"worker_node_types": [{"machine_type": "a9-hugegpu-8g"}]}}, "spec"),
        ({"full_size": "yes"}, "full_size"),
    ],
    ids=str,
)
def test_wrong_input(fake_emulator: EmulatorProcess, deferrable: bool, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        operator = sensor(**arguments, deferrable=deferrable)
        run_task(operator, context_of(operator, nothing=""))
    assert caught.value.field == field
    assert fake_emulator.calls() == []
