"""The shapes of the utilisation's curves."""

from __future__ import annotations

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.plugins.page.plot import HEIGHT, WIDTH, Curve, curve

POINTS = st.lists(st.tuples(st.floats(-10, 4000), st.floats(allow_nan=True, allow_infinity=True)), max_size=80)


@given(POINTS.map(sorted))
def test_curve_stays_in_its_box(points: list[tuple[float, float]]) -> None:
    found = curve(points, 0, 3600, 60)
    numbers = [tuple(map(float, pair)) for pair in re.findall(r"(-?[\d.]+) (-?[\d.]+)", found.line + found.area)]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in numbers)
    assert (found == Curve()) == (not any(math.isfinite(value) and 0 <= at <= 3600 for at, value in points))


def test_missing_values_are_a_gap() -> None:
    found = curve([(0, 0), (60, 50), (600, 100), (660, 0)], 0, 3600, 60)
    assert found.line == "M0.0 100.0L10.0 50.0M100.0 0.0L110.0 100.0"
    assert found.area.count("Z") == 2
    assert (found.last, found.least, found.most) == (0, 0, 100)


def test_single_value_is_a_short_line() -> None:
    assert curve([(600, 50)], 0, 3600, 60).line == "M95.0 50.0L100.0 50.0"
    assert curve([(0, 50)], 0, 3600, 60).line == "M0.0 50.0L0.0 50.0"
