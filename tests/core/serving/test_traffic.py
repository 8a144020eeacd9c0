"""Traffic splits always add up to 100, and an undone deployment gives back the previous one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.serving.traffic import restored_split, split_with, split_without


@st.composite
def splits(draw: st.DrawFn) -> dict[str, int]:
    """Splits of up to 5 models, of which some may have no traffic."""
    count = draw(st.integers(1, 5))
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=count - 1, max_size=count - 1)))
    return {str(10 + place): high - low for place, (low, high) in enumerate(zip([0, *cuts], [*cuts, 100], strict=True))}


@given(splits(), st.integers(0, 100))
def test_shares_add_up_to_100_and_an_undo_restores_them(previous: dict[str, int], percentage: int) -> None:
    sent = split_with(previous, percentage)
    assert sent is not None
    assert (sum(sent.values()), sent["0"]) == (100, percentage)
    now = {"99" if key == "0" else key: share for key, share in sent.items()}
    restored = restored_split(now, previous, "99", list(previous))
    before = {key: share for key, share in previous.items() if share}
    assert {key: share for key, share in (now if restored is None else restored).items() if share} == before


@given(splits())
def test_shares_of_an_undeployed_model_go_to_the_others(split: dict[str, int]) -> None:
    for gone in split:
        left = split_without(split, gone)
        assert (left is None) == (not split[gone])
        assert not left or (gone not in left and sum(left.values()) == 100)


def test_only_model_gets_all_of_the_traffic_or_none() -> None:
    assert split_with({}, 100) == {"0": 100}
    assert split_with({"1": 0}, 0) is None
    with pytest.raises(ValueError, match="no other model"):
        split_with({}, 1)


@pytest.mark.parametrize(
    ("split", "previous", "left", "expected"),
    [
        ({"new": 100, "a": 0}, {"a": 100}, ["a"], {"a": 100}),
        ({"new": 50, "a": 50}, {"a": 60, "b": 40}, ["a", "b"], {"a": 60, "b": 40}),
        # A model has been undeployed since, or all of them.
        ({"new": 100}, {"a": 60, "b": 40}, ["b", "c"], {"b": 100}),
        ({"new": 100}, {"a": 100}, ["c"], {}),
        # There was no traffic before.
        ({"new": 100}, {}, ["a"], {}),
        # Another model was deployed since.
        ({"new": 20, "a": 40, "c": 40}, {"a": 100}, ["a", "c"], {"a": 50, "c": 50}),
        # The new model has no traffic.
        ({"a": 100}, {"a": 100}, ["a"], None),
        # The deployment itself gave the traffic to a model that had none.
        ({"new": 0, "b": 100}, {"a": 100, "b": 0}, ["a", "b"], {"a": 100}),
    ],
)
def test_previous_split_is_restored_where_it_can_be(
    split: dict[str, int], previous: dict[str, int], left: list[str], expected: dict[str, int] | None
) -> None:
    assert restored_split(split, previous, "new", left) == expected
