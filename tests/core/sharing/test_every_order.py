"""The protocol of holders and closers in every order of their requests, over the package's own code.

A request to Cloud Storage is atomic and takes effect at one moment, so what can happen is the set of all orders of the
requests. They are few enough to go through them all, which the soak does where they are thousands.
"""

from __future__ import annotations

import asyncio
import contextlib
import types
from typing import Any, cast

import pytest

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.state import ClusterState
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing import guarded_delete, lease_objects, lease_store
from airflow_provider_vertex_ray.core.sharing.activity import Activity, read_activity
from airflow_provider_vertex_ray.core.sharing.generations import GENERATION_LABEL, SHARED_LABEL
from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete, new_closing
from airflow_provider_vertex_ray.core.sharing.holding import held_cluster
from airflow_provider_vertex_ray.core.sharing.lease import HolderId
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import ClusterClosingError, ClusterNotFoundError, LeaseHeldError
from tests.support.clusters import SPEC

from .orders import Actor, OrderedWorld, every_order
from .service import LOCATION, PROJECT, START, Node, SimulatedTransport, stamp

NAME = ClusterName(PROJECT, LOCATION, "etl-g1")
TTL = 900.0
RUN, OTHER = HolderId("dag/run", "group"), HolderId("dag/other")


# Where the orders are thousands, all of them are in the soak.
SAMPLE = 500
SAMPLED = pytest.mark.parametrize("sample", [SAMPLE, pytest.param(None, marks=pytest.mark.soak)])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[OrderedWorld]:
    current: list[OrderedWorld] = []
    time = types.SimpleNamespace(time=lambda: current[-1].time, monotonic=lambda: current[-1].time)
    for module in (lease_store, guarded_delete):
        monkeypatch.setattr(module, "time", time)
    sleep = types.SimpleNamespace(sleep=lambda seconds: current[-1].sleep(seconds))
    monkeypatch.setattr(lease_objects, "asyncio", sleep)
    return current


def holder(label: str, who: HolderId = RUN, writer: str = "") -> Actor:
    async def act(world: OrderedWorld, transport: Transport) -> None:
        try:
            await LeaseStore(transport, "gs://bucket/leases").acquire(NAME, who, TTL, writer=writer)
            world.ok.add(label)
        except ClusterClosingError:
            pass

    return act


def closer(label: str) -> Actor:
    async def act(world: OrderedWorld, transport: Transport) -> None:
        try:
            await LeaseStore(transport, "gs://bucket/leases").close(NAME, new_closing(label, "idle", label), 180.0)
            world.ok.add(label)
        except (LeaseHeldError, ClusterClosingError):
            pass

    return act


async def long_ago(world: OrderedWorld, transport: Transport) -> None:
    """Three holds that have expired, so that a listing has several pages."""
    for number in range(3):
        await holder("", HolderId(f"dag/old-{number}"))(world, transport)
    world.ok.clear()
    world.time += 10 * TTL


async def held(world: OrderedWorld, transport: Transport) -> None:
    await holder("", RUN)(world, transport)
    world.ok.clear()
    world.time += TTL / 2


def both(outcomes: set[frozenset[str]], *labels: str) -> bool:
    return any(set(labels) <= each for each in outcomes)


@pytest.mark.parametrize(
    ("who", "prepare", "sample"),
    [
        (RUN, None, SAMPLE),
        (OTHER, None, SAMPLE),
        (RUN, long_ago, None),
        pytest.param(RUN, None, None, marks=pytest.mark.soak),
        pytest.param(OTHER, None, None, marks=pytest.mark.soak),
    ],
)
def test_a_holder_and_a_closer_never_both_go_on(
    clock: list[OrderedWorld], who: HolderId, prepare: Actor | None, sample: int | None
) -> None:
    """Two holders, also with the same hold, of which one may rely on what the other wrote."""
    second: list[Actor] = [] if prepare is not None else [holder("second", who)]
    seen = every_order(clock, prepare, holder("first"), *second, closer("reaper"), sample=sample)
    assert not both(seen.outcomes, "first", "reaper")
    assert not both(seen.outcomes, "second", "reaper")
    assert seen.orders > 30
    assert {"reaper"} in seen.outcomes
    assert {"first"} in seen.outcomes or {"first", "second"} in seen.outcomes


@SAMPLED
def test_of_two_closers_and_a_holder_at_most_one_goes_on(clock: list[OrderedWorld], sample: int | None) -> None:
    seen = every_order(clock, None, holder("run"), closer("one"), closer("two"), sample=sample)
    assert seen.orders == sample or seen.orders > 500
    assert seen.outcomes <= {frozenset(), *(frozenset({each}) for each in ("run", "one", "two"))}
    assert {frozenset({each}) for each in ("run", "one", "two")} <= seen.outcomes


def test_a_live_hold_keeps_its_cluster_whatever_is_done_at_once(clock: list[OrderedWorld]) -> None:
    async def renew(world: OrderedWorld, transport: Transport) -> None:
        assert await LeaseStore(transport, "gs://bucket/leases").renew(NAME, RUN, TTL)
        world.ok.add("renewed")

    seen = every_order(clock, held, renew, holder("next job"), closer("reaper"))
    assert not both(seen.outcomes, "reaper")
    assert all("renewed" in each for each in seen.outcomes)


@SAMPLED
def test_a_killed_try_never_takes_the_hold_of_the_next_one(clock: list[OrderedWorld], sample: int | None) -> None:
    async def first_try(world: OrderedWorld, transport: Transport) -> None:
        await holder("", RUN, "try 1")(world, transport)
        world.ok.clear()

    async def killed(world: OrderedWorld, transport: Transport) -> None:
        await LeaseStore(transport, "gs://bucket/leases").take_back(NAME, RUN, "try 1")

    async def look(world: OrderedWorld) -> bool:
        asked = asyncio.ensure_future(
            LeaseStore(cast("Transport", SimulatedTransport(world)), "gs://bucket/leases").read(NAME)
        )
        await world.run([asked])
        return bool(asked.result().live(world.time))

    seen = every_order(clock, first_try, killed, holder("try 2", RUN, "try 2"), closer("reaper"), sample=sample)
    assert not both(seen.outcomes, "try 2", "reaper")
    for world in seen.worlds:
        if "try 2" in world.ok:
            clock.append(world)
            assert asyncio.run(look(world))
    # Nothing is left of a try that nobody follows.
    alone = every_order(clock, first_try, killed)
    assert alone.worlds[0].objects.keys() <= {"leases/1234/us-central1/etl-g1/closing.json"}


@SAMPLED
def test_a_refused_wait_takes_back_only_what_nobody_else_relies_on(
    clock: list[OrderedWorld], sample: int | None
) -> None:
    """An ensuring task takes its hold back when it is refused; the jobs of its group may have the same one."""

    async def written(world: OrderedWorld, transport: Transport) -> None:
        await holder("", RUN, "wait")(world, transport)
        world.ok.clear()

    async def ensures(world: OrderedWorld, transport: Transport) -> None:
        store = LeaseStore(transport, "gs://bucket/leases")
        closing = await store._closing(NAME)
        if closing is None or not closing.holds(world.time):
            world.ok.add("ensure")
        else:
            await store.take_back(NAME, RUN, "wait")

    async def closes(world: OrderedWorld, transport: Transport) -> None:
        with contextlib.suppress(LeaseHeldError):
            mark = new_closing("reaper", "idle", "reaper")
            await LeaseStore(transport, "gs://bucket/leases").close(NAME, mark, 180.0, unbroken=True)
            world.ok.add("reaper")

    seen = every_order(clock, written, ensures, holder("job"), closes, sample=sample)
    assert not both(seen.outcomes, "ensure", "reaper")
    assert not both(seen.outcomes, "job", "reaper")
    assert {frozenset({"reaper"}), frozenset({"ensure", "job"})} <= seen.outcomes


@pytest.mark.parametrize("pause", [100.0, 600.0])
def test_an_unbroken_closing_needs_no_second_look(clock: list[OrderedWorld], pause: float) -> None:
    """Who came since was refused; a closing that was void in between is a new one."""

    async def closes_again(world: OrderedWorld, transport: Transport) -> None:
        store = LeaseStore(transport, "gs://bucket/leases")
        for label in ("closed", "closed again"):
            try:
                await store.close(NAME, new_closing("delete", "idle", "token"), 180.0, unbroken=True)
            except LeaseHeldError:
                return
            world.ok.add(label)
            if label == "closed":
                await world.turn()
                world.time += pause

    seen = every_order(clock, None, holder("run"), closes_again)
    assert not both(seen.outcomes, "run", "closed again")
    assert {"closed", "closed again"} in seen.outcomes
    # Without a break, nobody gets in between.
    assert both(seen.outcomes, "run", "closed") is (pause > 180.0)


RUNNING = {
    **SPEC.with_labels({SHARED_LABEL: "etl", GENERATION_LABEL: "1"}).to_persistent_resource(LOCATION),
    "name": NAME.full,
    "createTime": stamp(START - 9000),
}


def running(world: OrderedWorld) -> None:
    world.nodes["etl-g1"] = Node(RUNNING, START - 9000, START - 8000, "RUNNING")


async def job(world: OrderedWorld, transport: Transport) -> None:
    """As the operators do it: the cluster is read again after the hold."""
    running(world)
    cluster = await ClustersApi(transport).get(NAME)
    try:
        cluster = await held_cluster(transport, LeaseStore(transport, "gs://bucket/leases"), cluster, RUN, TTL)
    except (ClusterClosingError, ClusterNotFoundError):
        return
    if cluster.state is ClusterState.RUNNING:
        world.ok.add("job")


async def reaper(world: OrderedWorld, transport: Transport) -> None:
    running(world)
    cluster = await ClustersApi(transport).get(NAME)
    deletion = GuardedDelete(transport, LeaseStore(transport, "gs://bucket/leases"), "reaper")
    if (await deletion.delete_if_unused(cluster, lambda _, activity: None if activity.busy else "idle")).deleted:
        world.ok.add("reaper")


@SAMPLED
def test_a_job_and_a_reaper_never_both_go_on(clock: list[OrderedWorld], sample: int | None) -> None:
    seen = every_order(clock, None, job, reaper, sample=sample)
    assert seen.orders == sample or seen.orders > 1000
    assert not both(seen.outcomes, "job", "reaper")
    assert {frozenset({"job"}), frozenset({"reaper"})} <= seen.outcomes


def slow_look(clock: list[OrderedWorld], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the activity takes longer than a lease stays closed."""

    async def activity(*arguments: Any) -> Activity:
        found = await read_activity(*arguments)
        # Whoever waits goes on meanwhile, in any order.
        await clock[-1].turn()
        clock[-1].time += 600.0
        await clock[-1].turn()
        return found

    monkeypatch.setattr(guarded_delete, "read_activity", activity)


@SAMPLED
def test_a_closing_that_is_too_old_is_renewed_before_the_deletion(
    clock: list[OrderedWorld], monkeypatch: pytest.MonkeyPatch, sample: int | None
) -> None:
    slow_look(clock, monkeypatch)
    seen = every_order(clock, None, job, reaper, sample=sample)
    assert not both(seen.outcomes, "job", "reaper")
    assert {frozenset({"job"}), frozenset({"reaper"})} <= seen.outcomes


# The sample shows what each part of the protocol is there for.


def test_the_orders_show_a_holder_that_does_not_read_the_mark(
    clock: list[OrderedWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: LeaseStore, name: ClusterName) -> None:
        return None

    monkeypatch.setattr(LeaseStore, "_closing", nothing)
    harm = every_order(clock, None, holder("run"), closer("reaper"), until=("run", "reaper"), sample=SAMPLE)
    assert both(harm.outcomes, "run", "reaper")


def test_the_orders_show_a_holder_that_reads_the_mark_first(
    clock: list[OrderedWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LeaseStore._closing

    async def act(world: OrderedWorld, transport: Transport) -> None:
        store = LeaseStore(transport, "gs://bucket/leases")
        before = await real(store, NAME)

        async def read_before(self: LeaseStore, name: ClusterName) -> Any:
            return before

        monkeypatch.setattr(LeaseStore, "_closing", read_before)
        await holder("run")(world, transport)

    harm = every_order(clock, None, act, closer("reaper"), until=("run", "reaper"), sample=SAMPLE)
    assert both(harm.outcomes, "run", "reaper")


def test_the_orders_show_a_closer_that_lists_only_before_its_mark(
    clock: list[OrderedWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LeaseStore.close

    async def lists_before(self: LeaseStore, name: ClusterName, mark: Any, seconds: float, **_: Any) -> None:
        (await self.read(name)).check_unheld(clock[-1].time)
        await real(self, name, mark, seconds, force=True)

    monkeypatch.setattr(LeaseStore, "close", lists_before)
    harm = every_order(clock, None, holder("run"), closer("reaper"), until=("run", "reaper"), sample=SAMPLE)
    assert both(harm.outcomes, "run", "reaper")


def test_the_orders_show_a_refused_holder_that_removes_a_shared_hold(clock: list[OrderedWorld]) -> None:
    async def removes(world: OrderedWorld, transport: Transport) -> None:
        store = LeaseStore(transport, "gs://bucket/leases")
        try:
            await store.acquire(NAME, RUN, TTL)
            world.ok.add("first")
        except ClusterClosingError:
            await store.release(NAME, RUN)

    harm = every_order(
        clock, None, removes, holder("second"), closer("reaper"), until=("second", "reaper"), sample=SAMPLE
    )
    assert both(harm.outcomes, "second", "reaper")


def test_the_orders_show_a_deletion_long_after_the_closing(
    clock: list[OrderedWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_look(clock, monkeypatch)
    real, closed = GuardedDelete._close, set()

    async def only_once(self: GuardedDelete, name: Any, mark: Any, force: bool) -> None:
        if mark.token not in closed:
            closed.add(mark.token)
            await real(self, name, mark, force)

    monkeypatch.setattr(GuardedDelete, "_close", only_once)
    assert both(every_order(clock, None, job, reaper, until=("job", "reaper"), sample=SAMPLE).outcomes, "job", "reaper")
