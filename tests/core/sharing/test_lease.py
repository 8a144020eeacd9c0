"""Leases as pure logic: who uses a cluster, who is about to delete it, with clocks that disagree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from airflow_provider_vertex_ray.core.sharing.lease import CLOCK_SKEW, KEPT_USE, Closing, Holder, Lease
from airflow_provider_vertex_ray.errors import ClusterClosingError, LeaseHeldError, LeaseUnreadableError

NOW = 1_800_000_000.0
TTL = 900.0


def test_hold_is_acquired_and_released() -> None:
    lease = Lease().acquire("a", NOW, TTL)
    assert lease.live(NOW) == (Holder("a", NOW, NOW + TTL),)
    assert lease.live(NOW + TTL + CLOCK_SKEW - 1)
    assert lease.live(NOW + TTL + CLOCK_SKEW) == ()
    given_back = lease.release("a", NOW + 10)
    assert given_back.live(NOW + 10) == ()
    assert given_back.last_used == NOW + 10
    assert lease.release("b", NOW) is lease


def test_a_renewal_never_shortens_a_hold() -> None:
    lease = Lease().acquire("a", NOW, TTL)
    again = lease.acquire("a", NOW + 10, 60)
    assert again.holders["a"] == Holder("a", NOW, NOW + TTL)
    assert lease.acquire("a", NOW + 800, TTL).holders["a"] == Holder("a", NOW, NOW + 800 + TTL)


def test_hold_after_expiry_starts_anew() -> None:
    late = NOW + TTL + 1
    assert Lease().acquire("a", NOW, TTL).acquire("a", late, TTL).holders["a"].since == late


def test_lease_with_holders_cannot_be_closed() -> None:
    held = Lease().acquire("dag/run", NOW, TTL)
    with pytest.raises(LeaseHeldError, match="dag/run") as raised:
        held.close("reaper", "idle", NOW + TTL + CLOCK_SKEW - 1, 60)
    assert raised.value.details == {"owners": ["dag/run"]}
    closed = held.close("reaper", "idle", NOW + TTL + CLOCK_SKEW, 60)
    assert closed.closing == Closing("reaper", "idle", NOW + TTL + CLOCK_SKEW, NOW + TTL + CLOCK_SKEW + 60)


def test_closed_lease_rejects_holders_until_it_opens() -> None:
    closed = Lease().close("reaper", "idle", NOW, 60)
    with pytest.raises(ClusterClosingError, match=r"reaper is about to change it \(idle\)"):
        closed.acquire("a", NOW + 60 + CLOCK_SKEW - 1, TTL)
    # Whoever closed it has died.
    assert closed.acquire("a", NOW + 60 + CLOCK_SKEW, TTL).closing is None
    assert closed.reopen("somebody else") is closed
    assert closed.reopen("reaper").acquire("a", NOW + 1, TTL).live(NOW + 1)


def test_one_closes_at_a_time() -> None:
    closed = Lease().close("one", "idle", NOW, 60)
    with pytest.raises(ClusterClosingError, match="one is already about to change the cluster"):
        closed.close("two", "idle", NOW + 1, 60)
    assert closed.close("one", "idle", NOW + 30, 60).closing == Closing("one", "idle", NOW, NOW + 90)


def test_when_it_was_used_last() -> None:
    assert Lease().used_until(NOW) is None
    held = Lease().acquire("a", NOW, TTL)
    assert held.used_until(NOW + 5) == NOW + 5
    assert held.used_until(NOW + 5000) == NOW + TTL
    assert held.release("a", NOW + 7).used_until(NOW + 5000) == NOW + 7


def test_long_expired_holders_are_dropped() -> None:
    lease = Lease().acquire("a", NOW, TTL).acquire("b", NOW + TTL + KEPT_USE + 1, TTL)
    assert set(lease.holders) == {"b"}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        {},
        {"version": 2, "holders": {}, "closing": None, "last_used": None},
        {"version": 1, "holders": [], "closing": None, "last_used": None},
        {"version": 1, "holders": {"a": {"since": 1}}, "closing": None, "last_used": None},
        {"version": 1, "holders": {"a": {"since": 1, "expires": "later"}}, "closing": None, "last_used": None},
        {"version": 1, "holders": {"a": {"since": 1, "expires": float("nan")}}, "closing": None, "last_used": None},
        {"version": 1, "holders": {}, "closing": {"by": "a"}, "last_used": None},
        {"version": 1, "holders": {}, "closing": None, "last_used": True},
        {"version": 1, "holders": {}, "closing": None},
        {"version": 1, "holders": {"a": {"since": 1, "expires": 10**400}}, "closing": None, "last_used": None},
        # What is closed must not open because somebody wrote nonsense.
        *({"version": 1, "holders": {}, "closing": nothing, "last_used": None} for nothing in ({}, [], "", 0, False)),
    ],
)
def test_other_content_is_not_a_lease(data: Any) -> None:
    with pytest.raises(LeaseUnreadableError):
        Lease.from_json(data)


times = st.floats(NOW - 1e6, NOW + 1e6)
leases = st.builds(
    Lease,
    st.dictionaries(st.text(min_size=1), st.tuples(times, times)).map(
        lambda found: {owner: Holder(owner, *span) for owner, span in found.items()}
    ),
    st.none() | st.builds(Closing, st.text(), st.text(), times, times),
    st.none() | times,
)


@given(leases)
def test_lease_survives_json(lease: Lease) -> None:
    assert Lease.from_json(json.loads(json.dumps(lease.to_json()))) == lease


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@given(leases, anything, st.data())
def test_lease_with_one_replaced_part_is_read_or_rejected(lease: Lease, value: Any, data: Any) -> None:
    said = lease.to_json()
    places = [(said, key) for key in said] + [(each, key) for each in said["holders"].values() for key in each]
    places += [(said["closing"], key) for key in said["closing"] or ()]
    place, key = data.draw(st.sampled_from(places))
    place[key] = value
    try:
        found = Lease.from_json(said)
    except LeaseUnreadableError:
        return
    assert found.to_json() == said


@dataclass
class Clock:
    """Somebody's clock: off by less than half of what two may differ by."""

    offset: float


@dataclass
class Actor:
    """Somebody who uses the cluster, and knows only what its own clock says."""

    name: str
    clock: Clock
    held_until: float | None = None
    """By its own clock: until then it believes that it holds the cluster."""


@dataclass
class Reaper:
    """Somebody who deletes it."""

    name: str
    clock: Clock
    closed_until: float | None = None


offsets = st.floats(-CLOCK_SKEW / 2, CLOCK_SKEW / 2).map(Clock)


class World(RuleBasedStateMachine):
    """Users and reapers race, each with a clock of its own; what is written is one after the other."""

    actors: Bundle[Actor] = Bundle("actors")
    reapers: Bundle[Reaper] = Bundle("reapers")

    def __init__(self) -> None:
        super().__init__()
        self.time = NOW
        self.lease = Lease()
        self.everybody: list[Actor] = []
        self.deleters: list[Reaper] = []

    @initialize(target=actors, clock=offsets)
    def first(self, clock: Clock) -> Actor:
        return self.actor(clock)

    @rule(target=actors, clock=offsets)
    def another(self, clock: Clock) -> Actor:
        return self.actor(clock)

    def actor(self, clock: Clock) -> Actor:
        found = Actor(f"run-{len(self.everybody)}", clock)
        self.everybody.append(found)
        return found

    @rule(target=reapers, clock=offsets)
    def reaper(self, clock: Clock) -> Reaper:
        found = Reaper(f"reaper-{len(self.deleters)}", clock)
        self.deleters.append(found)
        return found

    @rule(seconds=st.floats(0, 2000))
    def pass_time(self, seconds: float) -> None:
        self.time += seconds

    @rule(actor=actors, ttl=st.floats(1, 1000))
    def acquire(self, actor: Actor, ttl: float) -> None:
        now = self.time + actor.clock.offset
        try:
            self.lease = self.lease.acquire(actor.name, now, ttl)
        except ClusterClosingError:
            return
        actor.held_until = max(now + ttl, actor.held_until or 0)

    @rule(actor=actors)
    def release(self, actor: Actor) -> None:
        self.lease = self.lease.release(actor.name, self.time + actor.clock.offset)
        actor.held_until = None

    @rule(reaper=reapers, ttl=st.floats(1, 1000))
    def close(self, reaper: Reaper, ttl: float) -> None:
        now = self.time + reaper.clock.offset
        try:
            self.lease = self.lease.close(reaper.name, "idle", now, ttl)
        except (LeaseHeldError, ClusterClosingError):
            return
        reaper.closed_until = now + ttl

    @rule(reaper=reapers)
    def reopen(self, reaper: Reaper) -> None:
        self.lease = self.lease.reopen(reaper.name)
        reaper.closed_until = None

    @invariant()
    def nobody_uses_what_somebody_deletes(self) -> None:
        users = [a.name for a in self.everybody if (a.held_until or 0) > self.time + a.clock.offset]
        deleters = [r.name for r in self.deleters if (r.closed_until or 0) > self.time + r.clock.offset]
        assert not (users and deleters), (users, deleters)
        assert len(deleters) <= 1


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
