"""The state machine without a network: names, pages, operations, resources without Ray, faults, forced states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from emulator_support.process import PATIENCE, cluster_body
from vertex_ray_emulator.faults import Fault
from vertex_ray_emulator.wire.errors import ApiError
from vertex_ray_emulator.wire.protos import state_name

if TYPE_CHECKING:
    from collections.abc import Callable


from emulator_support.world import PARENT, World, finished, refused


async def test_list_returns_pages(make: Callable[..., World]) -> None:
    world = make()
    names = [f"c{i}" for i in range(7)]
    for name in names:
        await world.create(name)
    seen: list[str] = []
    token = ""
    while True:
        page, token = await world.plane.list_page(PARENT, 3, token)
        assert len(page) <= 3
        seen += [resource.name.rsplit("/", 1)[1] for resource in page]
        if not token:
            break
    assert seen == names
    assert await world.plane.list_page(PARENT.replace("central1", "east1"), 0, "") == ([], "")
    await refused(world.plane.list_page(PARENT, -1, ""), "INVALID_ARGUMENT", "page_size")
    await refused(world.plane.list_page(PARENT, 0, "%%%"), "INVALID_ARGUMENT", "page_token")


async def test_names_are_checked_and_normalised(make: Callable[..., World]) -> None:
    world = make()
    await world.created()
    by_id = f"{PARENT}/persistentResources/c1".replace("123456789012", "demo-project")
    assert (await world.plane.get(by_id)).name == f"{PARENT}/persistentResources/c1"
    await refused(world.plane.get(by_id.replace("demo", "other")), "PERMISSION_DENIED", "may not exist")
    await refused(world.plane.get("c1"), "INVALID_ARGUMENT", "Invalid resource name")


async def test_resource_without_ray_has_no_addresses(make: Callable[..., World]) -> None:
    world = make()
    body = cluster_body()
    del body["resourceRuntimeSpec"]
    resource = await world.created(body=body)
    assert state_name(resource) == "RUNNING"
    assert dict(resource.resource_runtime.access_uris) == {}
    assert world.backend.running == {}
    await finished(await world.update(2))
    await finished(await world.delete())


async def test_refused_resize_leaves_cluster_unchanged(make: Callable[..., World]) -> None:
    world = make()
    await world.created()
    world.faults.add(Fault(scope="provisioning", method="Update*", action="outcome", outcome="stockout"))
    operation = await finished(await world.update(9))
    assert operation.render().error.code == 8
    resource = await world.get()
    assert state_name(resource) == "RUNNING"
    assert [pool.replica_count for pool in resource.resource_pools] == [1, 1]
    assert not resource.error.message


async def test_partial_resize_lacks_a_worker(make: Callable[..., World]) -> None:
    world = make()
    await world.created()
    world.faults.add(Fault(scope="provisioning", action="outcome", outcome="partial"))
    await finished(await world.update(4))
    resource = await world.get()
    assert [pool.replica_count for pool in resource.resource_pools] == [1, 4]
    assert [pool.used_replica_count for pool in resource.resource_pools] == [1, 3]


async def test_states_can_be_forced(make: Callable[..., World]) -> None:
    world = make()
    world.backend.hold.clear()
    operation = await world.create()
    cluster = world.plane.by_id("c1")
    assert cluster is not None
    await world.plane.force_state(cluster, "ERROR", ApiError("RESOURCE_EXHAUSTED", "gone"))
    assert operation.render().error.message == "gone"
    assert state_name(await world.get()) == "ERROR"
    assert (await world.get()).error.code == 8
    world.backend.hold.set()
    await world.plane.force_state(cluster, "RUNNING")
    resource = await world.get()
    assert state_name(resource) == "RUNNING"
    assert not resource.error.message
    assert list(world.backend.running.values()) == [["head", "worker-pool1-0"]]
    await refused(world.plane.force_state(cluster, "LOST"), "INVALID_ARGUMENT", "Invalid value for state")


async def test_purge_removes_hanging_cluster_and_frees_name(make: Callable[..., World]) -> None:
    world = make(name_reuse_seconds=3600)
    world.backend.hold.clear()
    operation = await world.create()
    await world.plane.purge(world.plane.clusters())
    assert operation.render().error.code == 1
    world.backend.hold.set()
    assert state_name(await world.created()) == "RUNNING"


async def test_closed_control_plane_refuses_creates(make: Callable[..., World]) -> None:
    world = make()
    await world.created()
    await world.plane.close()
    assert world.backend.running == {}
    await refused(world.create("c2"), "UNAVAILABLE", "is stopping")


async def test_operations_can_be_read_listed_and_deleted(make: Callable[..., World]) -> None:
    world = make()
    world.backend.hold.clear()
    operation = await world.create()
    operations = world.plane.operations
    assert await operations.wait(operation.name, 0.01) is operation
    with pytest.raises(ApiError, match="not done"):
        operations.delete(operation.name)
    with pytest.raises(ApiError, match="cannot be cancelled"):
        operations.cancel(operation.name)
    world.backend.hold.set()
    assert (await operations.wait(operation.name, PATIENCE)).done
    second = await finished(await world.update(2))
    assert operations.listing(PARENT) == [second, operation]
    assert operations.listing(f"{PARENT}/persistentResources/c1") == [second, operation]
    assert operations.listing(f"{PARENT}/persistentResources/c") == []
    operations.cancel(operation.name)
    operations.delete(operation.name)
    with pytest.raises(ApiError, match="does not exist"):
        operations.get(operation.name)
