"""Leases as pure logic: who uses a cluster, and what is read of what others wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.sharing.lease import CLOCK_SKEW, KEPT_USE, OPEN, Closing, Holder, HolderId, Lease
from airflow_provider_vertex_ray.errors import InvalidArgumentError, LeaseHeldError, LeaseUnreadableError
from tests.support.leases import held_by

NOW = 1_800_000_000.0
TTL = 900.0


def test_a_hold_is_live_until_every_clock_says_otherwise() -> None:
    held = Holder("a", NOW, NOW).renewed(NOW, TTL)
    assert held.expires >= NOW + TTL
    assert held.live(held.expires + CLOCK_SKEW - 1)
    assert not held.live(held.expires + CLOCK_SKEW)
    # A release needs no such caution.
    assert not held.ended(NOW + 10).live(NOW + 10)
    assert held.ended(NOW + 10).expires == NOW + 10


def test_a_renewal_never_shortens_a_hold() -> None:
    held = Holder("a", NOW, NOW).renewed(NOW, TTL)
    again = held.renewed(NOW + 10, 60)
    assert (again.since, again.expires) == (NOW, held.expires)
    assert held.renewed(NOW + 800, TTL).expires == held.expires + 800


def test_a_hold_begins_anew_after_its_end() -> None:
    held = Holder("a", NOW, NOW).renewed(NOW, TTL)
    assert held.renewed(held.expires + 1, TTL).since == held.expires + 1
    released = held.ended(NOW + 10).renewed(NOW + 20, 60)
    assert (released.since, released.released, released.expires) == (NOW + 20, False, NOW + 20 + 72)


def test_a_hold_is_not_written_again_while_it_lasts() -> None:
    held = Holder("a", NOW, NOW).renewed(NOW, TTL)
    assert held.lasts(NOW + 100, TTL)
    assert not held.lasts(NOW + 200, TTL)
    assert not held.ended(NOW).lasts(NOW, 0)


def test_a_lease_with_holders_cannot_be_closed() -> None:
    held = held_by("dag/run", "dag/other", now=NOW)
    with pytest.raises(LeaseHeldError, match=r"held by dag/other, dag/run\.") as raised:
        held.check_unheld(NOW)
    assert raised.value.details == {"owners": ["dag/other", "dag/run"]}
    with pytest.raises(LeaseHeldError, match=r"held by dag/other\."):
        held.check_unheld(NOW, ignoring="dag/run")
    held.check_unheld(NOW + 60 + CLOCK_SKEW)
    with pytest.raises(LeaseHeldError, match=r"dag/run-0, .* and 2995 more"):
        held_by(*(f"dag/run-{number}" for number in range(3000)), now=NOW).check_unheld(NOW)


def test_a_closing_is_void_when_its_owner_has_died() -> None:
    closing = Closing("reaper", "idle", NOW, NOW + 60)
    assert Lease(closing=closing).closing_at(NOW + 60 + CLOCK_SKEW - 1) is closing
    assert Lease(closing=closing).closing_at(NOW + 60 + CLOCK_SKEW) is None


def test_when_it_was_used_last() -> None:
    assert Lease().used_until(NOW) is None
    held = held_by("a", now=NOW)
    assert held.used_until(NOW + 5) == NOW + 5
    assert held.used_until(NOW + 5000) == NOW + 60
    (holder,) = held.holders.values()
    assert Lease({"a": holder.ended(NOW + 7)}).used_until(NOW + 5000) == NOW + 7


def test_holds_that_ended_long_ago_are_outdated_but_for_the_last_one() -> None:
    old = {name: Holder(name, NOW, NOW + seconds) for name, seconds in (("a", 0), ("b", 10), ("c", 5))}
    assert sorted(Lease(old).outdated(NOW + KEPT_USE + 20)) == ["a", "c"]
    assert Lease(old).outdated(NOW + KEPT_USE) == []
    live = {**old, "d": Holder("d", NOW, NOW + 2 * KEPT_USE)}
    assert sorted(Lease(live).outdated(NOW + KEPT_USE + 20)) == ["a", "b", "c"]


def test_what_holds_has_an_identity() -> None:
    assert HolderId("dag/run", "a").key != HolderId("dag/run", "b").key != HolderId("dag/run").key
    assert HolderId("dag/r", "un").key != HolderId("dag/ru", "n").key
    assert HolderId("dag/lauf-ü", "グループ").key.isascii()
    for owner in ("x" * 1001, "a\x00b", "a\nb", "\ud800"):
        with pytest.raises(InvalidArgumentError, match="lease_owner"):
            HolderId(owner)


HELD = Holder("a", NOW, NOW + 60, "s").to_json()
CLOSED = Closing("reaper", "idle", NOW, NOW + 60, "t").to_json()


@pytest.mark.parametrize("data", [None, [], "text", {}, 0, {**HELD, "version": 1}, {**HELD, "version": [2]}])
def test_other_content_is_neither_a_hold_nor_a_closing(data: Any) -> None:
    for kind in (Holder, Closing):
        with pytest.raises(LeaseUnreadableError):
            kind.from_json(data)


def test_a_closing_that_was_taken_back_is_none() -> None:
    assert Closing.from_json(OPEN) is None


def test_a_long_reason_is_shortened() -> None:
    assert len(Closing("a", "x" * 5000, NOW, NOW).to_json()["reason"]) == 500


times = st.floats(NOW - 1e6, NOW + 1e6)
holders = st.builds(Holder, st.text(), times, times, st.text(), st.booleans(), st.text())
closings = st.builds(Closing, st.text(), st.text(), times, times, st.text())


@given(holders | closings)
def test_holds_and_closings_survive_json(written: Holder | Closing) -> None:
    assert type(written).from_json(json.loads(json.dumps(written.to_json()))) == written


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@given(st.sampled_from([HELD, CLOSED]), anything, st.data())
def test_one_replaced_part_is_read_or_rejected(said: dict[str, Any], value: Any, data: Any) -> None:
    said = {**said, data.draw(st.sampled_from(sorted(said))): value}
    kind = Holder if "owner" in said else Closing
    try:
        found = kind.from_json(said)
    except LeaseUnreadableError:
        return
    assert found is not None
    assert found.to_json() == said


@given(st.sampled_from([HELD, CLOSED]), st.data())
def test_one_missing_part_is_never_read_as_nothing(said: dict[str, Any], data: Any) -> None:
    kind, said = (Holder if "owner" in said else Closing), dict(said)
    del said[data.draw(st.sampled_from(sorted(said)))]
    with pytest.raises(LeaseUnreadableError):
        kind.from_json(said)
