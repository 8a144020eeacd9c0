"""A deferred resize or deletion that is killed opens the lease that it closed, unless that must stay closed."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.errors import ClusterNotFoundError
from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls
from airflow_provider_vertex_ray.triggers import airflow_task, kill_lease
from tests.operators.builders import delete, resize
from tests.support.clusters import SPEC, start
from tests.support.leases import hold, lease_of
from tests.support.tasks import deferral_of, first_event, round_trip

_, WORKERS = (pool.pool_id for pool in SPEC.pools())
TI = SimpleNamespace(dag_id="dag", run_id="run-1", task_id="task", map_index=-1)


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The states that Airflow tells of the killed task, one after the other; it remains in the last one."""
    said: list[str] = []

    async def task_state(ti: Any) -> str:
        return said.pop(0) if len(said) > 1 else said[0]

    monkeypatch.setattr(airflow_task, "task_state", task_state)
    monkeypatch.setattr(kill_lease, "KILL_SECONDS", PATIENCE)
    monkeypatch.setattr(kill_lease, "KILL_INTERVAL", 0.1)
    return said


def killed(trigger: Any) -> None:
    again: Any = round_trip(trigger)
    again.task_instance = TI
    asyncio.run(again.on_kill())


@pytest.mark.parametrize("kind", ["resize", "delete"])
@pytest.mark.parametrize(
    ("said", "reopened"), [(["failed"], True), (["running", "queued", "success"], True), (["scheduled"], False)]
)
def test_kill_opens_the_lease_unless_an_attempt_goes_on(
    fake_emulator: EmulatorProcess,
    storage: StorageEmulator,
    states: list[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    said: list[str],
    reopened: bool,
) -> None:
    start(fake_emulator)
    lease = {"lease_uri": storage.uri, "deferrable": True}
    operator = resize("shared", {WORKERS: 1}, **lease) if kind == "resize" else delete("shared", **lease)
    waiting = deferral_of(operator)
    assert lease_of(storage).closing is not None
    states += said
    if not reopened:
        monkeypatch.setattr(kill_lease, "KILL_SECONDS", 0.5)
    killed(waiting.trigger)
    assert (lease_of(storage).closing is None) is reopened
    if reopened:
        hold(storage, "other/run")


@pytest.mark.parametrize("answer", ["STOPPING", "gone"])
def test_lease_of_a_cluster_that_is_being_deleted_stays_closed(
    fake_emulator: EmulatorProcess,
    storage: StorageEmulator,
    states: list[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:
    start(fake_emulator)
    waiting = deferral_of(delete("shared", lease_uri=storage.uri, deferrable=True))
    states.append("failed")
    if answer == "STOPPING":
        fake_emulator.admin("POST", "clusters/shared/state", {"state": "STOPPING"})
    else:
        asyncio.run(first_event(round_trip(waiting.trigger)))

        async def get_cluster(self: ClusterCalls, name: Any) -> Any:
            raise ClusterNotFoundError("gone")

        monkeypatch.setattr(ClusterCalls, "get_cluster", get_cluster)
    killed(waiting.trigger)
    assert lease_of(storage).closing is not None


def test_lease_stays_closed_while_the_request_may_still_arrive(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, states: list[str]
) -> None:
    start(fake_emulator)
    waiting = deferral_of(delete("shared", lease_uri=storage.uri, deferrable=True))
    states.append("failed")

    async def cut_off() -> None:
        trigger: Any = round_trip(waiting.trigger)
        trigger.task_instance = TI
        work = asyncio.create_task(trigger.wait())
        arrived = partial(until, lambda: work.done() or fake_emulator.admin("GET", "faults")["faults"] == [])
        await asyncio.to_thread(arrived, "the request is not sent")
        assert not work.done()
        work.cancel()
        await asyncio.wait({work})
        await trigger.on_kill()

    slow = {"scope": "control_plane", "method": "DeletePersistentResource", "action": "slow", "delay": 600.0}
    with fake_emulator.fault(**slow):
        asyncio.run(cut_off())
    assert lease_of(storage).closing is not None
