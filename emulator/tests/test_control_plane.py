"""The state machine without a network: lifecycle of clusters."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from emulator_support.process import PATIENCE, cluster_body
from vertex_ray_emulator.clusters import control_plane
from vertex_ray_emulator.wire.protos import V1, V1BETA1, state_name

if TYPE_CHECKING:
    from collections.abc import Callable


from emulator_support.world import PARENT, World, finished, parse, refused

INTERNAL = "An internal error occurred on your cluster."


async def test_states_from_create_to_delete(make: Callable[..., World]) -> None:
    world = make()
    world.backend.hold.clear()
    operation = await world.create()
    assert state_name(await world.get()) == "PROVISIONING"
    assert not (await world.get()).HasField("start_time")
    assert not operation.render().done
    world.backend.hold.set()
    await finished(operation)
    resource = await world.get()
    assert state_name(resource) == "RUNNING"
    assert resource.create_time.ToNanoseconds() <= resource.start_time.ToNanoseconds()
    assert dict(resource.resource_runtime.access_uris) == {"RAY_DASHBOARD_URI": "somewhere"}
    assert [pool.used_replica_count for pool in resource.resource_pools] == [1, 1]
    started = resource.start_time.ToNanoseconds()

    world.backend.hold.clear()
    resizing = await world.update(3)
    assert state_name(await world.get()) == "UPDATING"
    world.backend.hold.set()
    await finished(resizing)
    resource = await world.get()
    assert state_name(resource) == "RUNNING"
    assert [pool.replica_count for pool in resource.resource_pools] == [1, 3]
    assert [pool.used_replica_count for pool in resource.resource_pools] == [1, 3]
    assert resource.start_time.ToNanoseconds() == started

    deleting = await world.delete()
    assert state_name(await world.get()) == "STOPPING"
    await finished(deleting)
    await refused(world.get(), "NOT_FOUND", "does not exist")
    assert world.backend.running == {}
    assert world.addresses.published == set()


async def test_operation_response_does_not_change_with_resource(make: Callable[..., World]) -> None:
    world = make()
    operation = await finished(await world.create())
    await finished(await world.update(4))
    answer = V1BETA1.PersistentResource()
    assert operation.render().response.Unpack(answer)
    assert [pool.replica_count for pool in answer.resource_pools] == [1, 1]


async def test_operations_use_version_of_caller(make: Callable[..., World]) -> None:
    world = make()
    operation = await finished(await world.plane.create(PARENT, "c1", parse(cluster_body()), V1))
    message = operation.render()
    assert message.metadata.type_url.endswith("aiplatform.v1.CreatePersistentResourceOperationMetadata")
    assert message.response.type_url.endswith("aiplatform.v1.PersistentResource")
    assert operation.render(V1BETA1).response.type_url.endswith("aiplatform.v1beta1.PersistentResource")


async def test_output_only_fields_are_ignored(make: Callable[..., World]) -> None:
    body = cluster_body(name="x", state="ERROR", error={"message": "no"}, resourceRuntime={"accessUris": {"A": "b"}})
    body["resourcePools"][0]["usedReplicaCount"] = 7
    resource = await make().created(body=body)
    assert resource.name == f"{PARENT}/persistentResources/c1"
    assert state_name(resource) == "RUNNING"
    assert not resource.error.message
    assert "A" not in resource.resource_runtime.access_uris
    assert resource.resource_pools[0].used_replica_count == 1


async def test_defaults_are_filled_in(make: Callable[..., World]) -> None:
    body = {"resourcePools": [{"machineSpec": {"machineType": "n1-standard-8"}, "replicaCount": 1}]}
    resource = await make().created(body=body)
    assert resource.resource_pools[0].id
    assert resource.resource_pools[0].disk_spec.boot_disk_type == "pd-ssd"
    assert resource.resource_pools[0].disk_spec.boot_disk_size_gb == 100


async def test_failed_backend_gives_service_text_and_stops_cluster(
    make: Callable[..., World],
) -> None:
    world = make()
    world.backend.failure = RuntimeError("no memory left")
    operation = await finished(await world.create())
    resource = await world.get()
    assert state_name(resource) == "ERROR"
    assert resource.error.code == operation.render().error.code == 13
    assert resource.error.message.startswith(INTERNAL)
    assert resource.error.message.endswith("The Vertex Ray emulator says why: RuntimeError: no memory left")
    assert operation.render().error.message == resource.error.message
    assert len(world.backend.stopped) == 1
    await finished(await world.delete())
    await refused(world.get(), "NOT_FOUND")


async def test_delete_is_refused_while_provisioning_and_while_stopping(make: Callable[..., World]) -> None:
    world = make(delete_seconds=0.05)
    world.backend.hold.clear()
    operation = await world.create()
    await refused(world.delete(), "FAILED_PRECONDITION", "is being created thus can not be deleted now")
    world.backend.hold.set()
    await finished(operation)
    deleting = await world.delete()
    await refused(world.delete(), "FAILED_PRECONDITION", "is in state STOPPING")
    await finished(deleting)
    await refused(world.delete(), "NOT_FOUND")


async def test_second_of_two_concurrent_deletes_is_refused(make: Callable[..., World]) -> None:
    world = make()
    await world.created()
    outcomes = await asyncio.gather(world.delete(), world.delete(), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ApiError", "LongRunningOperation"]


async def test_delete_cancels_resize_in_progress(make: Callable[..., World]) -> None:
    world = make()
    await world.created()
    world.backend.hold.clear()
    resizing = await world.update(5)
    deleting = await world.delete()
    assert (await finished(resizing)).render().error.code == 1
    await finished(deleting)
    assert world.backend.running == {}


async def test_update_requires_running(make: Callable[..., World]) -> None:
    world = make()
    world.backend.hold.clear()
    operation = await world.create()
    await refused(world.update(2), "FAILED_PRECONDITION", "is in state PROVISIONING")
    world.backend.hold.set()
    await finished(operation)
    world.backend.hold.clear()
    first = await world.update(2)
    await refused(world.update(3), "FAILED_PRECONDITION", "is in state UPDATING")
    world.backend.hold.set()
    await finished(first)


async def test_name_cannot_be_reused_right_after_delete(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(name_reuse_seconds=3600)
    await world.created()
    await refused(world.create(), "ALREADY_EXISTS", "There is an existing PersistentResource with the same ID")
    await finished(await world.delete())
    await refused(world.create(), "FAILED_PRECONDITION", "cannot be used again")
    # Another id, and the same id in another location, are not affected.
    await world.created("c2")
    other = PARENT.replace("us-central1", "europe-west4")
    await finished(await world.plane.create(other, "c1", parse(cluster_body()), V1BETA1))
    monkeypatch.setattr(control_plane, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3600))
    await finished(await world.create())


@pytest.mark.parametrize("action", ["purge", "force_state"])
async def test_admin_work_is_completed_after_its_client_disconnected(make: Callable[..., World], action: str) -> None:
    world = make()
    await world.created()
    cluster, go = world.plane.clusters()[0], asyncio.Event()
    stop = world.backend.stop

    async def slow_stop(key: str) -> None:
        await go.wait()
        await stop(key)

    world.backend.stop = slow_stop  # type: ignore[method-assign]
    if action == "force_state":
        cluster.addresses = None
    work = world.plane.purge([cluster]) if action == "purge" else world.plane.force_state(cluster, "RUNNING")
    request = asyncio.create_task(work)
    await asyncio.sleep(0.01)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert request.cancelled()
    go.set()
    async with asyncio.timeout(PATIENCE):
        while world.backend.stopped != [cluster.key] or cluster.state != "RUNNING":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert bool(world.backend.running) is (action == "force_state")


async def test_provisioning_and_resizing_take_minimum_duration(make: Callable[..., World]) -> None:
    world = make(provisioning_seconds=0.1, resize_seconds=0.1, delete_seconds=0.1)
    clock = asyncio.get_running_loop().time
    for begin in (world.create, lambda: world.update(2), world.delete):
        start = clock()
        await finished(await begin())
        assert clock() - start >= 0.1


async def test_hold_get_waits_until_cluster_is_provisioned(make: Callable[..., World]) -> None:
    world = make(hold_get=True)
    world.backend.hold.clear()
    await world.create()
    held = asyncio.ensure_future(world.get())
    await asyncio.sleep(0.05)
    assert not held.done()
    world.backend.hold.set()
    assert state_name(await asyncio.wait_for(held, PATIENCE)) == "RUNNING"
