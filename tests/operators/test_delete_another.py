"""A delete that takes long: the id may be free again meanwhile, and belong to another run's cluster."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.core.cluster.tries import REQUESTED_LABEL
from airflow_provider_vertex_ray.errors import ServiceError
from airflow_provider_vertex_ray.operators.owner_labels import run_labels
from airflow_provider_vertex_ray.triggers import cluster_deletion
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterDeleteTrigger
from tests.operators.builders import delete
from tests.support.clusters import cluster_ids, full_name, start
from tests.support.tasks import context_of, deferral_of, first_event, round_trip, run_task


def deletes(emulator: EmulatorProcess) -> list[int]:
    return [call["status"] for call in emulator.calls("DeletePersistentResource")]


def trigger() -> VertexRayClusterDeleteTrigger:
    """The wait for the deletion of ``shared``."""
    return VertexRayClusterDeleteTrigger(
        cluster_name=full_name("shared"), poll_interval=0.02, deadline=time.time() + PATIENCE
    )


def stuck(emulator: EmulatorProcess) -> AbstractContextManager[Any]:
    """A deletion that is accepted in the block does not end."""
    return emulator.fault(scope="provisioning", method="DeletePersistentResource", outcome="stuck")


def other_try(emulator: EmulatorProcess) -> None:
    """The cluster of this run, which got another id because the one that was asked for was blocked."""
    labels = {**run_labels(context_of(delete("train"))), REQUESTED_LABEL: "train"}
    start(emulator, "train-2", labels=labels)
    emulator.admin("POST", "clusters/train-2/state", {"state": "PROVISIONING"})


def test_cluster_of_another_run_with_the_free_id_is_kept(fake_emulator: EmulatorProcess) -> None:
    other_try(fake_emulator)
    waiting = deferral_of(delete("train", deferrable=True))
    # The wait has not begun, or goes on in another triggerer, when the other run's cluster comes.
    start(fake_emulator, "train")
    fake_emulator.admin("POST", "clusters/train-2/state", {"state": "RUNNING"})
    event = asyncio.run(first_event(round_trip(waiting.trigger)))
    assert event["status"] == "success", event
    assert cluster_ids(fake_emulator) == ["train"]
    assert deletes(fake_emulator) == [200]


async def test_cluster_that_comes_during_the_wait_is_kept(fake_emulator: EmulatorProcess) -> None:
    other_try(fake_emulator)
    trigger = VertexRayClusterDeleteTrigger(
        cluster_name=full_name("train"),
        also=[full_name("train-2")],
        poll_interval=0.02,
        deadline=time.time() + PATIENCE,
    )
    work = asyncio.create_task(first_event(trigger))
    await asyncio.to_thread(until, lambda: deletes(fake_emulator))
    await asyncio.to_thread(start, fake_emulator, "train")
    looks = len(deletes(fake_emulator))
    await asyncio.to_thread(until, lambda: len(deletes(fake_emulator)) > looks + 2)
    await asyncio.to_thread(fake_emulator.admin, "POST", "clusters/train-2/state", {"state": "RUNNING"})
    assert (await work)["status"] == "success"
    assert cluster_ids(fake_emulator) == ["train"]


def test_cluster_that_was_made_anew_before_the_wait_is_kept(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    waiting = deferral_of(delete("shared", deferrable=True))
    # Somebody has deleted it, and the service gives the id away again.
    fake_emulator.reset()
    start(fake_emulator)
    event = asyncio.run(first_event(round_trip(waiting.trigger)))
    assert event["result"]["existed"] is False
    assert cluster_ids(fake_emulator) == ["shared"]
    assert deletes(fake_emulator) == []


async def test_cluster_that_was_made_anew_during_the_wait_ends_it(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    with stuck(fake_emulator):
        work = asyncio.create_task(first_event(trigger()))
        await asyncio.to_thread(until, lambda: deletes(fake_emulator))
    await asyncio.to_thread(fake_emulator.reset)
    await asyncio.to_thread(start, fake_emulator)
    event = await work
    assert event["status"] == "success", event
    assert cluster_ids(fake_emulator) == ["shared"]


@pytest.mark.parametrize("anew", [True, False])
def test_what_ends_its_operation_between_two_looks_is_no_failure(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    start(fake_emulator)
    look = cluster_deletion.operation_failure

    async def purged_just_before(hook: Any, operation: str | None) -> Any:
        monkeypatch.setattr(cluster_deletion, "operation_failure", look)
        await asyncio.to_thread(fake_emulator.reset)
        if anew:
            await asyncio.to_thread(start, fake_emulator)
        return ServiceError("The PersistentResource was purged.")

    monkeypatch.setattr(cluster_deletion, "operation_failure", purged_just_before)
    with stuck(fake_emulator):
        event = asyncio.run(first_event(trigger()))
    assert event["status"] == "success", event
    assert event["result"]["existed"] is True
    assert cluster_ids(fake_emulator) == (["shared"] if anew else [])


def test_failed_operation_of_a_cluster_that_exists_is_the_failure(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(fake_emulator)

    async def failed(hook: Any, operation: str | None) -> Any:
        return ServiceError("Something went wrong at the service.")

    monkeypatch.setattr(cluster_deletion, "operation_failure", failed)
    with stuck(fake_emulator):
        event = asyncio.run(first_event(trigger()))
    assert event["error"]["message"] == "Something went wrong at the service."


def test_service_that_does_not_tell_at_first_is_asked_by_the_trigger(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    with fake_emulator.fault(scope="control_plane", method="GetPersistentResource", status=503, times=None):
        waiting = deferral_of(delete("shared", deferrable=True))
    trigger = round_trip(waiting.trigger)
    assert asyncio.run(first_event(trigger))["result"]["existed"] is True
    # A triggerer that goes on hours later knows when the task began.
    start(fake_emulator, "later")
    late = VertexRayClusterDeleteTrigger(
        cluster_name=full_name("later"), began=time.time() - 3600, poll_interval=0.02, deadline=time.time() + PATIENCE
    )
    assert asyncio.run(first_event(late))["result"]["existed"] is False
    assert cluster_ids(fake_emulator) == ["later"]
    assert run_task(delete("later", deferrable=False))["existed"] is True
