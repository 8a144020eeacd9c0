"""Autoscaling: how many nodes a workload needs, and how a cluster gets and loses them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from emulator_support.data_plane import until as eventually
from emulator_support.process import QUICK, EmulatorProcess, cluster_body
from emulator_support.scaling import a_node_comes_and_goes_with_a_job, body
from emulator_support.world import World, finished, parse, refused
from hypothesis import given
from hypothesis import strategies as st
from vertex_ray_emulator.clusters import autoscaler
from vertex_ray_emulator.project.plan import node_plan
from vertex_ray_emulator.project.scaling import Demand, scaled
from vertex_ray_emulator.wire.protos import state_name


def ids(pool: int, count: int) -> list[str]:
    return [f"worker-pool{pool}-{k}" for k in range(count)]


def test_pending_tasks_add_the_nodes_that_they_need() -> None:
    resource = parse(body((0, 5)))
    for tasks, nodes in ((1, 1), (16, 1), (17, 2), (33, 3), (1000, 5)):
        demand = Demand([({"CPU": 1.0}, tasks)])
        assert scaled(resource, ["head"], demand, 10) == {"worker-pool1": ids(1, nodes)}


def test_free_nodes_are_used_first() -> None:
    resource = parse(body((1, 5)))
    present = ["head", "worker-pool1-0"]
    demand = Demand([({"CPU": 4.0}, 4)], {"worker-pool1-0": {"CPU": 16.0}})
    assert scaled(resource, present, demand, 10) == {}
    busy = Demand([({"CPU": 4.0}, 4)], {"worker-pool1-0": {"CPU": 3.0}})
    assert scaled(resource, present, busy, 10) == {"worker-pool1": ids(1, 2)}


def test_what_fits_on_no_node_adds_none() -> None:
    resource = parse(body((0, 5)))
    for shape in ({"CPU": 17.0}, {"GPU": 1.0}, {"CPU": 1.0, "special": 1.0}):
        assert scaled(resource, ["head"], Demand([(shape, 9)]), 10) == {}


def test_each_shape_gets_its_kind_of_node() -> None:
    resource = parse(body((0, 3), (0, 3), gpu=0))
    demand = Demand([({"CPU": 1.0}, 20), ({"CPU": 1.0, "GPU": 1.0, "accelerator_type:T4": 0.001}, 2)])
    # The CPUs of the two nodes with GPUs are needed as well, once the others are there.
    assert scaled(resource, ["head"], demand, 10) == {"worker-pool1": ids(1, 2), "worker-pool2": ids(2, 2)}


def test_idle_nodes_are_removed_wherever_they_are() -> None:
    resource = parse(body((1, 5)))
    present = ["head", *ids(1, 4)]
    demand = Demand(idle={"worker-pool1-0": 11.0, "worker-pool1-1": 0.0, "worker-pool1-2": 30.0, "worker-pool1-3": 9.0})
    assert scaled(resource, present, demand, 10) == {"worker-pool1": ["worker-pool1-1", "worker-pool1-3"]}
    everything = Demand(idle=dict.fromkeys(present, 100.0))
    assert scaled(resource, present, everything, 10) == {"worker-pool1": ["worker-pool1-0"]}


def test_nothing_is_removed_while_something_waits_for_such_nodes() -> None:
    resource = parse(body((0, 2)))
    demand = Demand([({"CPU": 16.0}, 3)], idle=dict.fromkeys(ids(1, 2), 100.0))
    assert scaled(resource, ["head", *ids(1, 2)], demand, 10) == {}


def test_pool_that_the_head_shares_keeps_the_head() -> None:
    resource = parse(body((1, 3), head=True))
    wanted = scaled(resource, ["head"], Demand([({"CPU": 1.0}, 1000)]), 10)
    assert wanted == {"head-node": ["head", "head-node-1", "head-node-2"]}
    present = ["head", "head-node-1", "head-node-2"]
    demand = Demand(idle=dict.fromkeys(present, 100.0))
    assert scaled(resource, present, demand, 10) == {"head-node": ["head"]}


@given(
    least=st.integers(0, 3),
    more=st.integers(1, 5),
    have=st.sets(st.integers(0, 12)),
    tasks=st.lists(
        st.tuples(st.sampled_from([{"CPU": 1.0}, {"CPU": 16.0}, {"GPU": 1.0}, {}]), st.integers(1, 2000)), max_size=4
    ),
    idle=st.sets(st.integers(0, 12)),
)
def test_bounds_hold_and_busy_nodes_stay(
    least: int, more: int, have: set[int], tasks: list[tuple[dict[str, float], int]], idle: set[int]
) -> None:
    resource = parse(body((least, least + more)))
    present = [f"worker-pool1-{k}" for k in sorted(have)][: least + more]
    spare = {f"worker-pool1-{k}": 100.0 for k in idle}
    found = scaled(resource, ["head", *present], Demand(tasks, idle=spare), 10).get("worker-pool1", present)
    assert len(found) == len(set(found)) <= least + more
    assert len(found) >= min(least, len(present))
    assert set(present) - set(found) <= set(spare)
    if not set(present) <= set(found):
        assert set(found) <= set(present), "it grew and shrank at once"


@given(present=st.sets(st.integers(0, 9)), count=st.integers(1, 6))
def test_resizing_keeps_the_nodes_that_there_are(present: set[int], count: int) -> None:
    have = {f"worker-pool1-{k}" for k in present}
    plan = {node.node_id for node in node_plan(parse(cluster_body(count)), ["head", *have])}
    assert len(plan) == count + 1
    assert len(plan & have) == min(count, len(have))


async def test_cluster_is_updating_while_it_scales(make: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaler, "INTERVAL", 0.01)
    world = make(autoscaling_idle_seconds=0.5)
    resource = await world.created(body=body((0, 4)))
    assert resource.resource_pools[1].replica_count == 0
    world.backend.hold.clear()
    world.backend.wanted = Demand([({"CPU": 16.0}, 2)])

    async def until_state(name: str, workers: int) -> None:
        async def reached() -> bool:
            found = await world.get()
            return (state_name(found), found.resource_pools[1].replica_count) == (name, workers)

        await eventually(reached, f"{name} with {workers} workers")

    await until_state("UPDATING", 0)
    await refused(world.update(1), "FAILED_PRECONDITION", "UPDATING")
    world.backend.wanted = Demand()
    world.backend.hold.set()
    await until_state("RUNNING", 2)
    assert (await world.get()).resource_pools[1].used_replica_count == 2
    world.backend.wanted = Demand(idle=dict.fromkeys(ids(1, 2), 1.0))
    await until_state("RUNNING", 0)
    # A cluster that is being scaled can be deleted.
    world.backend.hold.clear()
    world.backend.wanted = Demand([({"CPU": 16.0}, 2)])
    await until_state("UPDATING", 0)
    await finished(await world.delete())
    assert world.plane.clusters() == []


def test_job_that_waits_for_a_node_gets_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    arguments = [*QUICK, "--autoscaling-idle-seconds", "1"]
    with EmulatorProcess(tmp_path_factory.mktemp("scales"), arguments) as emulator:
        emulator.create("c1", body((0, 2)))
        a_node_comes_and_goes_with_a_job(emulator, "c1")
