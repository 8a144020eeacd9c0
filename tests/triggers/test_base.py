"""What all triggers have: JSON-able arguments without a secret, one event, and a free event loop."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.errors import QuotaExceededError, VertexRayError
from airflow_provider_vertex_ray.triggers import cluster, ensure, idle, job, jobs, monitoring
from airflow_provider_vertex_ray.triggers.base import WaitTrigger, result_of
from airflow_provider_vertex_ray.triggers.cluster import (
    ClusterTrigger,
    VertexRayClusterDeleteTrigger,
    VertexRayClusterReadyTrigger,
    VertexRayClusterResizeTrigger,
    VertexRayClusterStateTrigger,
)
from airflow_provider_vertex_ray.triggers.ensure import VertexRayClusterEnsureTrigger
from airflow_provider_vertex_ray.triggers.idle import VertexRayClusterIdleTrigger, VertexRayReaperTrigger
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from airflow_provider_vertex_ray.triggers.job_cluster import JobWaitTrigger
from airflow_provider_vertex_ray.triggers.jobs import VertexRayJobsTrigger
from airflow_provider_vertex_ray.triggers.monitoring import VertexRayMetricTrigger
from tests.support.clusters import full_name, start, submit
from tests.support.tasks import first_event, round_trip

SLOW = 3.0
"""Seconds that an answer takes."""

TICK = 0.05
"""Seconds between two looks of the watchdog."""

COMMON: dict[str, Any] = {
    "cluster_name": full_name("shared"),
    "gcp_conn_id": "another",
    "impersonation_chain": ["a@b", "c@d"],
    "poll_interval": 7.5,
    "deadline": 1_800_000_000.5,
    "passthrough": {"a": [1, None, "ä"]},
}
OF_CLUSTERS = {**COMMON, "operation": "projects/p/locations/l/operations/1"}
OF_REGION = {
    **{name: value for name, value in COMMON.items() if name != "cluster_name"},
    "project_id": "p",
    "location": "us-central1",
    "lease_uri": "gs://bucket",
}
BASES = (WaitTrigger, ClusterTrigger, JobWaitTrigger)
ALL: list[WaitTrigger] = [
    VertexRayClusterReadyTrigger(
        **OF_CLUSTERS,
        dashboard_timeout=11.0,
        created_at=1.5,
        leftovers=["projects/p/locations/l/persistentResources/other"],
        labels={"airflow-owner": "x"},
        delete_on_kill=True,
        prices={"currency": "EUR", "regions": {}},
    ),
    VertexRayClusterDeleteTrigger(
        **OF_CLUSTERS,
        also=["projects/p/locations/l/persistentResources/other"],
        created={"projects/p/locations/l/persistentResources/other": "2026-11-29T00:00:00Z"},
        began=2.5,
        lease={"uri": "gs://bucket", "cluster": "c", "owner": "dag/run", "token": "t"},
    ),
    VertexRayClusterResizeTrigger(
        **OF_CLUSTERS, replicas={"worker-pool1": 4}, lease={"uri": "gs://bucket", "cluster": "c", "token": "t"}
    ),
    VertexRayClusterStateTrigger(**OF_CLUSTERS, states=("RUNNING", "ERROR")),
    VertexRayJobTrigger(
        **COMMON,
        submission_id="one",
        dashboard_uri="x.aiplatform-training.googleusercontent.com",
        pending_deadline=1.0,
        lost_timeout=2.0,
        stream_logs=False,
        raise_on_failure=False,
        stop_at_deadline=False,
        stop_on_kill=True,
        begun=5.0,
        lease={"uri": "gs://bucket", "cluster": full_name("shared"), "owner": "dag/run", "scope": "", "ttl": 60.0},
        end={"returns": "job", "push": True},
    ),
    VertexRayJobsTrigger(
        **{name: value for name, value in COMMON.items() if name != "deadline"},
        plan="packed",
        dashboard_uri="x.aiplatform-training.googleusercontent.com",
        max_active=3,
        on_failure="stop",
        pending_timeout=1.0,
        job_timeout=9.0,
        lost_timeout=2.0,
        logs="all",
        log_lines=5,
        read_results=False,
        stop_on_kill=True,
        lease={"uri": "gs://bucket", "cluster": full_name("shared"), "owner": "dag/run", "scope": "", "ttl": 60.0},
    ),
    VertexRayClusterIdleTrigger(**OF_CLUSTERS, idle_for=5.0, lease_uri="gs://bucket"),
    VertexRayReaperTrigger(
        require_leases=True,
        unreadable_for=8.0,
        unreadable={"a": [1.0, 2.0]},
        **OF_REGION,
        idle_for=5.0,
        max_age=50.0,
        labels={"a": "b"},
        dry_run=True,
        drain_timeout=7.0,
        by="dag/run",
        prices={"currency": "EUR", "regions": {}},
    ),
    VertexRayClusterEnsureTrigger(
        **OF_REGION,
        shared_name="etl",
        spec={"worker_node_types": [{"machine_type": "n1-standard-8"}]},
        labels={"a": "b"},
        on_spec_mismatch="fail",
        max_age=50.0,
        lease_ttl=60.0,
        lease_owner="dag/run",
        lease_scope="group",
        shares_lease=True,
        max_cost=5.0,
        prices={"currency": "EUR", "regions": {}},
        dashboard_timeout=11.0,
    ),
    VertexRayMetricTrigger(
        **{name: value for name, value in COMMON.items() if name != "passthrough"},
        promql="up",
        comparison="<",
        threshold=5.0,
        for_seconds=60.0,
        end={"returns": "wait", "push": True},
    ),
]


def parameters_of(kind: type) -> dict[str, inspect.Parameter]:
    """What a trigger takes, those that it passes on to its base included."""
    found = {
        name: parameter
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    whole = kind.__mro__[1] is WaitTrigger
    return found if whole else {**parameters_of(kind.__mro__[1]), **found}


def test_every_trigger_is_tested() -> None:
    kinds = {
        kind
        for module in (cluster, ensure, idle, job, jobs, monitoring)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, WaitTrigger) and kind not in BASES
    }
    assert {type(trigger) for trigger in ALL} == kinds


@pytest.mark.parametrize("trigger", ALL, ids=lambda trigger: type(trigger).__name__)
def test_trigger_survives_serialisation(trigger: WaitTrigger) -> None:
    path, arguments = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    again = round_trip(trigger)
    assert type(again) is type(trigger)
    assert again.serialize() == (path, json.loads(json.dumps(arguments)))
    # Each parameter is in it, and none with its default: so nothing can get lost unseen.
    parameters = parameters_of(type(trigger))
    assert set(arguments) == set(parameters)
    assert [name for name, parameter in parameters.items() if arguments[name] == parameter.default] == []


@pytest.mark.parametrize("trigger", ALL, ids=lambda trigger: type(trigger).__name__)
def test_stored_arguments_contain_no_secret(trigger: WaitTrigger) -> None:
    assert not [name for name in trigger.serialize()[1] if "token" in name or "key" in name or "env" in name]


async def test_trigger_holds_no_token_after_its_wait(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    trigger = VertexRayClusterReadyTrigger(cluster_name=full_name("shared"), poll_interval=0.1)
    event = await first_event(trigger)
    assert event["status"] == "success"
    assert "ya29" not in json.dumps([trigger.serialize(), event])
    assert "ya29" not in repr(vars(trigger))


# --- one event --------------------------------------------------------------------------------------------------------


class Ends(WaitTrigger):
    """Ends as a test says."""

    end: Any = None

    async def wait(self) -> dict[str, Any]:
        if isinstance(self.end, BaseException):
            raise self.end
        return {"end": self.end}


def ends(end: Any, **arguments: Any) -> Ends:
    trigger = Ends(**arguments)
    trigger.end = end
    return trigger


async def test_successful_wait_returns_the_result() -> None:
    event = await first_event(ends(1, passthrough={"a": 1}))
    assert event == {"status": "success", "result": {"end": 1}, "passthrough": {"a": 1}}
    assert result_of(event) == {"end": 1}


async def test_error_keeps_its_type() -> None:
    event = await first_event(ends(QuotaExceededError("no more", {"metric": "cpus"}), passthrough={"a": 1}))
    assert event["passthrough"] == {"a": 1}
    with pytest.raises(QuotaExceededError) as caught:
        result_of(event)
    assert (caught.value.message, caught.value.details) == ("no more", {"metric": "cpus"})


async def test_unexpected_exception_is_an_event_too() -> None:
    # Otherwise the task would fail in the triggerer, and nothing would clean up behind it.
    with pytest.raises(VertexRayError, match=r"Unexpected error: ZeroDivisionError: by zero"):
        result_of(await first_event(ends(ZeroDivisionError("by zero"))))


async def test_cancelled_trigger_sends_no_event() -> None:
    with pytest.raises(asyncio.CancelledError):
        await first_event(ends(asyncio.CancelledError()))


def test_missing_event_is_an_error() -> None:
    with pytest.raises(VertexRayError, match="without an event"):
        result_of(None)


# --- the event loop stays free ----------------------------------------------------------------------------------------


async def longest_block(work: asyncio.Task[Any]) -> float:
    """The longest time in seconds for which the event loop did nothing else, as the triggerer's watchdog sees it.

    In ticks of a thread, which does not tick either while the whole process is held up.
    """
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while not work.done():
            time.sleep(TICK)
            ticks += 1

    watchdog = threading.Thread(target=tick)
    watchdog.start()
    longest = 0
    while not work.done():
        before = ticks
        await asyncio.sleep(TICK)
        longest = max(longest, ticks - before)
    await asyncio.to_thread(watchdog.join)
    work.result()
    return longest * TICK


async def test_triggers_do_not_block_the_event_loop(fake_emulator: EmulatorProcess) -> None:
    # How long the loop is busy is measured in benchmarks/many_waits. Here each way to the service is so slow that
    # whoever waited for it outside the loop's sight would hold the loop up for longer than any busy machine does.
    start(fake_emulator)
    name = full_name("shared")

    async def many() -> list[dict[str, Any]]:
        jobs = [VertexRayJobTrigger(cluster_name=name, submission_id=submission_id) for submission_id in ids]
        states = [
            VertexRayClusterReadyTrigger(cluster_name=name),
            VertexRayClusterStateTrigger(cluster_name=name, states=["RUNNING"]),
            VertexRayClusterResizeTrigger(cluster_name=name, replicas={"worker-pool1": 2}),
        ]
        metric = VertexRayMetricTrigger(cluster_name=name, promql="vector(1)", comparison="==", threshold=1)
        return await asyncio.gather(*(first_event(round_trip(trigger)) for trigger in [*jobs, *states, metric]))

    # The first use imports what the others have then.
    ids = ["first"]
    submit(fake_emulator, "shared", "first", "true")
    assert [event["status"] for event in await many()] == ["success"] * 5
    ids = [f"job-{number}" for number in range(10)]
    for submission_id in ids:
        submit(fake_emulator, "shared", submission_id, "echo 1 && sleep 1 && echo 2")
    work = asyncio.create_task(many())
    with ExitStack() as faults:
        for scope in ("control_plane", "dashboard", "auth"):
            faults.enter_context(fake_emulator.fault(scope=scope, action="slow", delay=SLOW, times=5))
        assert await longest_block(work) < SLOW * 0.6
    assert [event["status"] for event in work.result()] == ["success"] * 14
