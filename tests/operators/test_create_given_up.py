"""Creates that are given up: a shared cluster that others use stays, and a kill deletes a cluster of the task's own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from emulator_support.process import PATIENCE, EmulatorProcess, until
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.errors import DashboardNotReadyError, ProvisioningTimeoutError
from airflow_provider_vertex_ray.triggers import airflow_task, kill_deletion, shared_deletion
from tests.operators.builders import create
from tests.support.clock import FAR, passing_once
from tests.support.clusters import cluster_ids
from tests.support.leases import hold
from tests.support.tasks import context_of, deferral_of, first_event, round_trip, run_task

TI = SimpleNamespace(dag_id="dag", run_id="run-1", task_id="create", map_index=-1)


@pytest.mark.parametrize("held", [True, False])
def test_shared_cluster_is_deleted_only_if_nobody_holds_it(
    fake_emulator: EmulatorProcess,
    storage: StorageEmulator,
    monkeypatch: pytest.MonkeyPatch,
    task_log: list[str],
    held: bool,
) -> None:
    shared = {"cluster_id": None, "shared_name": "etl", "lease_uri": storage.uri, "provision_timeout": FAR}
    operator = create(**shared, deferrable=True)
    context = context_of(operator)
    with (
        fake_emulator.fault(scope="provisioning", outcome="stuck"),
        passing_once(monkeypatch, lambda: "Cluster etl-g1 is PROVISIONING" in task_log),
    ):
        event = asyncio.run(first_event(round_trip(deferral_of(operator, context).trigger)))
    again = create(**shared, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        again.execute_complete(context, event)
    waiting: Any = deferred.value
    fake_emulator.admin("POST", "clusters/etl-g1/state", {"state": "RUNNING"})
    if held:
        hold(storage, "other/run", "etl-g1")
    event = asyncio.run(first_event(round_trip(waiting.trigger)))
    with pytest.raises(ProvisioningTimeoutError, match="was kept.*other/run" if held else "Timed out"):
        again.clean_up_complete(context, event)
    assert cluster_ids(fake_emulator) == (["etl-g1"] if held else [])


@pytest.mark.parametrize(
    ("leases", "held", "said"),
    [(True, False, "did not answer"), (True, True, "was kept.*other/run"), (False, False, "was kept.*incurs charges")],
)
def test_shared_cluster_with_a_dead_dashboard_is_deleted_unless_others_may_use_it(
    fake_emulator: EmulatorProcess,
    storage: StorageEmulator,
    monkeypatch: pytest.MonkeyPatch,
    leases: bool,
    held: bool,
    said: str,
) -> None:
    monkeypatch.setattr(shared_deletion, "UNREADABLE_SECONDS", 0.5)
    lease = {"lease_uri": storage.uri} if leases else {}
    operator = create(cluster_id=None, shared_name="etl", dashboard_timeout=0.2, deferrable=True, **lease)
    context = context_of(operator)
    with fake_emulator.fault(scope="dashboard", action="status", status=404, times=None):
        event = asyncio.run(first_event(round_trip(deferral_of(operator, context).trigger)))
        assert event["error"]["details"]["made_here"] is True
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute_complete(context, event)
        waiting: Any = deferred.value
        if held:
            hold(storage, "other/run", "etl-g1")
        event = asyncio.run(first_event(round_trip(waiting.trigger)))
        with pytest.raises(DashboardNotReadyError, match=said):
            operator.clean_up_complete(context, event)
    assert cluster_ids(fake_emulator) == ([] if said == "did not answer" else ["etl-g1"])


def test_shared_cluster_of_others_with_a_dead_dashboard_is_kept_and_said_to_cost(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    shared = {"cluster_id": None, "shared_name": "etl", "lease_uri": storage.uri, "deferrable": False}
    run_task(create(**shared))
    dead = {"scope": "dashboard", "action": "status", "status": 404, "times": None}
    with fake_emulator.fault(**dead), pytest.raises(DashboardNotReadyError, match="was kept, and incurs charges"):
        run_task(create(**shared, dashboard_timeout=0.2))
    assert cluster_ids(fake_emulator) == ["etl-g1"]


MARKED = {"region": "us-central1"}
"""What a create stores before it waits."""


@pytest.mark.parametrize(
    ("states", "facts", "left"),
    [
        (["failed"], MARKED, []),
        (["deferred"], MARKED, ["made"]),
        (["scheduled"], MARKED, ["made"]),
        # Marked by a user.
        (["success"], MARKED, []),
        (["success"], None, []),
        # It has succeeded: this triggerer hung, and is told to cancel what another one has ended.
        (["success"], {**MARKED, "dashboard_uri": "https://dashboard"}, ["made"]),
        (["running", "success"], {**MARKED, "dashboard_uri": "https://dashboard"}, ["made"]),
        (["success"], OSError("no answer"), ["made"]),
    ],
)
def test_killed_create_deletes_its_cluster_unless_it_is_used(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, states: list[str], facts: Any, left: list[str]
) -> None:
    async def task_state(ti: Any) -> str:
        return states.pop(0) if len(states) > 1 else states[0]

    async def stored_xcom(ti: Any, key: str) -> Any:
        if isinstance(facts, Exception):
            raise facts
        return facts

    monkeypatch.setattr(airflow_task, "task_state", task_state)
    monkeypatch.setattr(airflow_task, "stored_xcom", stored_xcom)
    monkeypatch.setattr(kill_deletion, "KILL_SECONDS", 0.5 if states == ["scheduled"] else PATIENCE)
    monkeypatch.setattr(kill_deletion, "KILL_INTERVAL", 0.1)
    trigger: Any = round_trip(deferral_of(create(deferrable=True)).trigger)
    until(lambda: fake_emulator.api("GET", "persistentResources/made")[1]["state"] == "RUNNING")
    trigger.task_instance = TI
    asyncio.run(trigger.on_kill())
    until(lambda: cluster_ids(fake_emulator) == left)
