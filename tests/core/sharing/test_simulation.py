"""Runs, reapers and rollovers in thousands of interleavings, with clocks that disagree, over the package's own code."""

from __future__ import annotations

import asyncio
import random
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.dashboard_errors import dashboard_error
from airflow_provider_vertex_ray.core.sharing import ensure, guarded_delete, lease, lease_objects, lease_store
from airflow_provider_vertex_ray.core.sharing.activity import Activity
from airflow_provider_vertex_ray.core.sharing.ensure import SharedClusterReconciler
from airflow_provider_vertex_ray.core.sharing.generations import ClusterRequest, Step
from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete
from airflow_provider_vertex_ray.core.sharing.holding import held_cluster
from airflow_provider_vertex_ray.core.sharing.idle_policy import Decision, Policy, superseded_among, verdict
from airflow_provider_vertex_ray.core.sharing.lease import CLOCK_SKEW, HolderId
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    ClusterNotFoundError,
    LeaseStoreError,
    ServiceUnavailableError,
    SubmissionIdTakenError,
    VertexRayError,
)
from tests.support.clusters import SPEC

from .service import LOCATION, PROJECT, SimulatedTransport, World, offset

TTL = 400.0
IDLE = 50.0
URI = "gs://bucket/leases"


@dataclass(frozen=True)
class Plan:
    """What happens.

    :param seed: Of the order in which it happens.
    :param clocks: By how many seconds the clocks of the runs and the reapers are wrong.
    :param runs: For each run: when it starts; for each of its jobs how long before it the run does something else, and
        how long it takes; and whether the run dies after the last one.
    :param reapers: How often each of them looks, in seconds.
    :param max_age: Of a generation, or None.
    :param flaky: Share of requests without an answer.
    """

    seed: int
    clocks: list[float]
    runs: list[tuple[float, list[tuple[float, float]], bool]]
    reapers: list[float]
    max_age: float | None
    flaky: float


plans = st.builds(
    Plan,
    st.integers(0, 1 << 32),
    st.lists(st.sampled_from([-CLOCK_SKEW / 2, 0.0, CLOCK_SKEW / 2]), min_size=8, max_size=8),
    st.lists(
        st.tuples(
            st.floats(0, 1500),
            st.lists(st.tuples(st.floats(0, TTL - 60), st.floats(0, 700)), min_size=1, max_size=3),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.floats(5, 120), min_size=1, max_size=2),
    st.none() | st.floats(1000, 2000),
    st.sampled_from([0.0, 0.0, 0.03]),
)


class Simulation:
    """One plan, acted out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.world = World(plan.seed, flaky=plan.flaky)
        self.transport = cast("Transport", SimulatedTransport(self.world))
        self.store = LeaseStore(self.transport, URI)
        self.believes: dict[str, tuple[str, float, float]] = {}
        """For each run: the cluster that it holds, until when by its own clock, and by how much that is wrong."""
        self.ran: dict[str, list[str]] = {}
        self.world.on_create, self.world.on_delete = self.created, self.deleted

    def created(self, name: str) -> None:
        """At most one generation is live that is not too old."""
        max_age = self.plan.max_age
        for other, node in self.world.nodes.items():
            young = max_age is None or self.world.time - node.created < max_age - CLOCK_SKEW
            if node.state in ("PROVISIONING", "RUNNING") and young:
                self.world.wrong.append(f"{name} was made although {other} is {node.state}")

    def deleted(self, name: str) -> None:
        """Nobody used it."""
        if jobs := self.world.nodes[name].active():
            self.world.wrong.append(f"{name} was deleted under {jobs}")
        for run, (held, until, wrong) in self.believes.items():
            if held == name and until > self.world.time + wrong:
                self.world.wrong.append(f"{name} was deleted although {run} holds it")

    async def ensure(self, run: str, max_age: float | None) -> Cluster:
        """As ``VertexRayClusterEnsureTrigger`` does."""
        wanted = ClusterRequest("etl", SPEC.spec_hash(), "attach", max_age)
        found = SharedClusterReconciler(
            self.transport,
            PROJECT,
            LOCATION,
            wanted,
            SPEC,
            {},
            self.store,
            HolderId(run),
            TTL,
            False,
            self.world.notify,
        )
        while True:
            try:
                step = await found.step()
                if step.step is Step.ATTACH and step.cluster is not None and await found.confirm(step):
                    self.holds(run, step.cluster)
                    await found.clean_up(step)
                    return step.cluster
            except (ServiceUnavailableError, LeaseStoreError):
                pass
            await self.world.sleep(15)

    def holds(self, run: str, cluster: Cluster) -> None:
        # From when the request was sent on it may well be; what the run is sure of begins with the answer, and the
        # time of the request counts. A second of each request is less than what the clocks may differ by.
        now = self.world.time + offset.get()
        self.believes[run] = (cluster.cluster_id, now + TTL - 60, offset.get())

    async def run(self, run: str, clock: float, start: float, jobs: list[tuple[float, float]], dies: bool) -> None:
        """As the tasks of a DAG run do: ensure, then job after job, each wherever the shared cluster is."""
        offset.set(clock)
        await self.world.sleep(start)
        cluster = await self.ensure(run, self.plan.max_age)
        for number, (pause, seconds) in enumerate(jobs):
            await self.world.sleep(pause)
            cluster = await self.job(run, f"{run}-job-{number}", cluster, seconds)
        if dies:
            return
        del self.believes[run]
        name = parse_cluster_name(cluster.name)
        try:
            await self.store.release(name, HolderId(run))
        except VertexRayError:
            return

    async def job(self, run: str, job: str, cluster: Cluster, seconds: float) -> Cluster:
        while True:
            try:
                held = await held_cluster(self.transport, self.store, cluster, HolderId(run), TTL)
                self.holds(run, held)
                if held.state is ClusterState.RUNNING:
                    await self.submit(held, job, seconds)
                    break
            except (ClusterClosingError, ClusterNotFoundError):
                self.believes.pop(run, None)
            except (ServiceUnavailableError, LeaseStoreError):
                await self.world.sleep(10)
                continue
            cluster = await self.ensure(run, None)
        self.ran.setdefault(job, []).append(held.cluster_id)
        ends = self.world.time + seconds
        while self.world.time < ends:
            await self.world.sleep(min(TTL / 3, max(1.0, ends - self.world.time)))
            try:
                if await self.store.renew(parse_cluster_name(held.name), HolderId(run), TTL):
                    self.holds(run, held)
            except VertexRayError as error:
                self.world.notify(f"{run} can not renew: {error.message}")
        return held

    async def submit(self, cluster: Cluster, job: str, seconds: float) -> None:
        body = {"submission_id": job, "metadata": {"seconds": seconds}}
        try:
            await self.transport.request(
                "POST",
                f"http://service:1/{cluster.cluster_id}/api/jobs/",
                body=body,
                error_from=dashboard_error,
                repeatable=False,
            )
        except SubmissionIdTakenError:
            # The answer to an earlier try was lost.
            return

    async def reaper(self, name: str, clock: float, interval: float) -> None:
        """As ``VertexRayReaperTrigger`` does."""
        offset.set(clock)
        while any(not task.done() for task in self.runs) or self.world.nodes:
            found = GuardedDelete(self.transport, self.store, name)
            policy = Policy(IDLE, self.plan.max_age)
            try:
                every = await self.clusters()
            except ServiceUnavailableError:
                every = []
            superseded = superseded_among(every)
            for cluster in every:

                def judge(seen: Cluster, activity: Activity) -> str | None:
                    now = self.world.time + clock
                    said = verdict(seen, activity, policy, now, superseded=seen.name in superseded)  # noqa: B023
                    return said.why if said.decision is Decision.DELETE else None

                try:
                    await found.delete_if_unused(cluster, judge)
                except VertexRayError as error:
                    self.world.notify(f"{name}: {error.message}")
            await self.world.sleep(interval)

    async def clusters(self) -> list[Cluster]:
        from airflow_provider_vertex_ray.core.cluster.client import ClustersApi

        return await ClustersApi(self.transport).list_all(PROJECT, LOCATION)

    async def act(self) -> None:
        clocks = iter(self.plan.clocks)
        self.runs = [
            asyncio.create_task(self.run(f"run-{number}", next(clocks), *each))
            for number, each in enumerate(self.plan.runs)
        ]
        reapers = [
            asyncio.create_task(self.reaper(f"reaper-{number}", next(clocks), interval))
            for number, interval in enumerate(self.plan.reapers)
        ]
        await self.world.run([*self.runs, *reapers])


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The modules read the clock of whoever runs, in the world that is acted out."""
    current: list[World] = []
    clock = types.SimpleNamespace(time=lambda: current[-1].time + offset.get(), monotonic=lambda: current[-1].time)
    for module in (ensure, guarded_delete, lease_store):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(
        lease_objects, "asyncio", types.SimpleNamespace(sleep=lambda seconds: current[-1].sleep(seconds))
    )
    return current.append


def acted_out(plan: Plan, enter: Any) -> Simulation:
    simulation = Simulation(plan)
    enter(simulation.world)
    asyncio.run(simulation.act())
    return simulation


def check(plan: Plan, enter: Any) -> None:
    simulation = acted_out(plan, enter)
    story = "\n".join(simulation.world.log)
    assert simulation.world.wrong == [], story
    # Each job ran on one cluster, to its end; nothing is left.
    jobs = {f"run-{n}-job-{k}" for n, (_, each, _) in enumerate(plan.runs) for k in range(len(each))}
    assert set(simulation.ran) == jobs, story
    assert all(len(places) == 1 for places in simulation.ran.values()), story
    assert simulation.world.nodes == {}, story


# The reaper's clock is five minutes ahead of the run's, which pauses for nearly as long as it holds the lease.
CLOCKS_DISAGREE = Plan(
    0, [-CLOCK_SKEW / 2, CLOCK_SKEW / 2], [(0.0, [(1.0, 1.0), (TTL - 70, 1.0)], False)], [5.0], None, 0.0
)
RULES: Any = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@settings(max_examples=40, **RULES)
@given(plan=plans)
@example(plan=CLOCKS_DISAGREE)
def test_no_used_cluster_is_deleted_and_no_unused_one_is_kept(plan: Plan, clocks: Any) -> None:
    check(plan, clocks)


@pytest.mark.soak
@settings(max_examples=5000, **RULES)
@given(plan=plans)
def test_no_used_cluster_is_deleted_in_thousands_of_interleavings(plan: Plan, clocks: Any) -> None:
    check(plan, clocks)


def busy_plan(seed: int) -> Plan:
    """Runs that come and go all the time, so that some come while a reaper deletes."""
    starts = random.Random(seed)
    runs = [(200.0 * number + starts.uniform(0, 200), [(0.0, 60.0)], False) for number in range(10)]
    return Plan(seed, [0.0] * 20, runs, [5.0, 7.0], None, 0.0)


@pytest.mark.parametrize("closes", [True, False])
def test_the_simulation_sees_a_reaper_that_does_not_close_the_lease(
    clocks: Any, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    """Without it the same world shows what it is there for: a run that comes between the last look and the deletion."""
    real, worlds = GuardedDelete._close, []

    def enter(world: World) -> None:
        worlds.append(world)
        clocks(world)

    async def slow(self: GuardedDelete, name: Any, mark: Any, force: bool) -> None:
        if closes:
            await real(self, name, mark, force)
        # Time enough for a run to come.
        await worlds[-1].sleep(60)

    monkeypatch.setattr(GuardedDelete, "_close", slow)
    wrong = [each for seed in range(3) for each in acted_out(busy_plan(seed), enter).world.wrong]
    assert bool(wrong) is not closes, wrong


def test_the_simulation_sees_a_reaper_that_knows_of_no_leases(clocks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    init = GuardedDelete.__init__

    def without(self: GuardedDelete, transport: Any, store: Any, by: str) -> None:
        init(self, transport, None, by)

    monkeypatch.setattr(GuardedDelete, "__init__", without)
    plan = Plan(0, [0.0] * 8, [(0.0, [(0.0, 1.0), (300.0, 1.0)], False)], [5.0], None, 0.0)
    assert "although run-0 holds it" in str(acted_out(plan, clocks).world.wrong)


def test_the_simulation_sees_clocks_that_disagree(clocks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "CLOCK_SKEW", 0.0)
    assert "although run-0 holds it" in str(acted_out(CLOCKS_DISAGREE, clocks).world.wrong)
