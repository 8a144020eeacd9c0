"""When a condition on a metric holds, and that it never does by what is not known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.monitoring.condition import COMPARISONS, Held, MetricCondition
from airflow_provider_vertex_ray.errors import InvalidArgumentError

NOW = 1_770_000_000.0
UNDER = MetricCondition("<", 10, 1800)


def grid(condition: MetricCondition, values: list[float | None], now: float = NOW) -> list[tuple[float, float]]:
    """The last values up to now, a step apart; None is a sample that is missing."""
    begin = now - (len(values) - 1) * condition.step
    return [(begin + k * condition.step, value) for k, value in enumerate(values) if value is not None]


def count_of(condition: MetricCondition) -> int:
    """Samples that just cover the time."""
    return math.ceil(condition.for_seconds / condition.step) + 1


def test_it_holds_since_the_first_sample_of_the_run() -> None:
    points = grid(UNDER, [50.0] + [5.0] * 70)
    verdict = UNDER.decide([points], NOW)
    assert verdict.held == Held(points[1][0], 5.0)
    assert (verdict.value, verdict.reason) == (5.0, "")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([5.0] * 60, "it has held for only 1770 s"),
        ([5.0] * 60 + [10.0], "the last value is 10"),
        ([5.0] * 60 + [math.nan], "the last value is nan"),
        ([5.0] * 30 + [50.0] + [5.0] * 40, "it has held for only 1170 s"),
        ([5.0] * 30 + [None] + [5.0] * 40, "it has held for only 1170 s"),
        ([5.0] * 30 + [math.nan] + [5.0] * 40, "it has held for only 1170 s"),
        ([5.0] * 70 + [None], "no data for the last 30 s"),
        ([5.0] * 70 + [None, None], "no data for the last 60 s"),
        ([None] * 61, "no data"),
    ],
    ids=str,
)
def test_it_does_not_hold(values: list[float | None], reason: str) -> None:
    verdict = UNDER.decide([grid(UNDER, values)], NOW)
    assert (verdict.held, verdict.reason) == (None, reason)


def test_without_series_nothing_is_known() -> None:
    assert UNDER.decide([], NOW).held is None
    assert UNDER.decide([[], grid(UNDER, [5.0] * 70)], NOW).held is None


def test_all_series_have_to_fit() -> None:
    quiet, shorter = grid(UNDER, [5.0] * 80), grid(UNDER, [None] * 10 + [3.0] * 70)
    assert UNDER.decide([quiet, shorter], NOW).held == Held(shorter[0][0], 5.0)
    assert UNDER.decide([quiet, grid(UNDER, [5.0] * 79 + [50.0])], NOW).held is None
    assert UNDER.decide([quiet, grid(UNDER, [5.0] * 70 + [None] * 10)], NOW).held is None
    assert UNDER.decide([quiet, grid(UNDER, [5.0] * 40)], NOW).held is None


def test_one_value_is_enough_without_a_time() -> None:
    now = MetricCondition(">=", 2)
    assert now.decide([grid(now, [2.0])], NOW).held == Held(NOW, 2.0)
    assert now.decide([grid(now, [1.0])], NOW).held is None
    assert now.decide([grid(now, [2.0, None, None])], NOW).held is None
    assert str(now) == ">= 2"
    assert str(UNDER) == "< 10 for 1800 s"


@pytest.mark.parametrize("seconds", [0, 0.5, 1, 30, 1800, 86_400, 604_800])
def test_the_window_covers_the_time_twice_in_a_bounded_number_of_steps(seconds: float) -> None:
    condition = MetricCondition("<", 1, seconds)
    begin, end = condition.window(NOW)
    assert end == NOW
    assert end - begin >= 2 * seconds - 1e-6
    assert 1 <= (end - begin) / condition.step <= 10_000
    assert condition.step <= 300


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("~", 1), "comparison"),
        (("<", math.nan), "threshold"),
        (("<", math.inf), "threshold"),
        (("<", True), "threshold"),
        (("<", "1"), "threshold"),
        (("<", 1, -1), "for_seconds"),
        (("<", 1, 700_000), "for_seconds"),
        (("<", 1, None), "for_seconds"),
    ],
)
def test_wrong_input(arguments: tuple[object, ...], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        MetricCondition(*arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


VALUES = st.one_of(st.none(), st.floats(-5, 5), st.sampled_from([math.nan, math.inf, -math.inf, 0.0]))
CONDITIONS = st.builds(
    MetricCondition,
    st.sampled_from(list(COMPARISONS)),
    st.sampled_from([-5.0, 0.0, 1.0]),
    st.sampled_from([0, 3, 10, 240]),
)
SERIES = st.lists(st.lists(VALUES, min_size=1, max_size=20), max_size=3)


@given(CONDITIONS, SERIES)
def test_what_holds_is_known_at_every_step_of_the_time(
    condition: MetricCondition, given: list[list[float | None]]
) -> None:
    """Told again, the other way round: at each step back to the beginning each series has a value, and it fits."""
    held = condition.decide([grid(condition, values) for values in given], NOW).held
    need = count_of(condition)
    expected = bool(given) and all(
        len(values) >= need and all(value is not None and condition.fits(value) for value in values[-need:])
        for values in given
    )
    assert (held is not None) == expected
    if held is not None:
        steps = round((NOW - held.since) / condition.step) + 1
        assert steps >= need
        assert all(value is not None and condition.fits(value) for values in given for value in values[-steps:])


@given(CONDITIONS, st.integers(0, 30), st.data())
def test_a_sample_taken_away_never_makes_it_hold(condition: MetricCondition, extra: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES, min_size=1, max_size=count_of(condition) + extra))
    points = grid(condition, values)
    fewer = [point for point in points if data.draw(st.booleans())]
    if condition.decide([fewer], NOW).held is not None:
        assert condition.decide([points], NOW).held is not None


@given(CONDITIONS, st.integers(0, 5), st.floats(0, 0.4), st.data())
def test_a_quiet_metric_holds_whenever_it_is_looked_at(
    condition: MetricCondition, extra: int, late: float, data: st.DataObject
) -> None:
    value = data.draw(st.floats(-5, 5).filter(condition.fits))
    points = grid(condition, [value] * (count_of(condition) + extra))
    assert condition.decide([points], NOW + late * condition.step).held == Held(points[0][0], value)
