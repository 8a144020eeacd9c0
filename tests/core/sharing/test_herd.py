"""Many holders of one cluster, where Cloud Storage takes one write a second of each object; in virtual time."""

from __future__ import annotations

import pytest

from benchmarks.leases import Herd, herd


def refused(found: Herd) -> int:
    return found.requests["429"] + found.requests["412"]


@pytest.mark.parametrize("holders", [300, pytest.param(3000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("shared", [False, True])
def test_every_task_gets_its_hold_and_no_renewal_is_lost(holders: int, shared: bool) -> None:
    found = herd(holders, shared=shared)
    assert (found.failed, found.lost, len(found.waits)) == (0, 0, holders)
    assert max(found.waits) < 5
    if shared:
        # One write for all, and one for each time that the hold is renewed.
        assert found.requests["writes"] < 10
    else:
        assert refused(found) == 0


def test_one_object_for_all_holders_does_not_carry_them() -> None:
    """What the figures are beside; the same storage and the same pauses."""
    found = herd(80, before=True)
    assert found.failed > 0
    assert refused(found) > 500
