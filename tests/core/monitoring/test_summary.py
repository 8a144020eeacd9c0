"""The figures and points that a task returns of its metrics."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.monitoring.summary import MOST_SERIES, summarised, thinned

POINTS = st.lists(st.tuples(st.floats(1.7e9, 1.8e9), st.floats(width=32)), max_size=60)


def test_figures_and_points() -> None:
    found = summarised({"cpu": [({"a": "b"}, [(1.0, 4.0), (2.0, math.nan), (3.0, 1 / 3)]), ({}, [(1.0, 10.0)])]})["cpu"]
    series = found.pop("series")
    assert found == {"min": 0.333333, "avg": 4.77778, "max": 10, "last": 0.333333, "count": 3, "more_series": 0}
    assert series[0] == {
        "labels": {"a": "b"},
        "min": 0.333333,
        "avg": 2.16667,
        "max": 4,
        "last": 0.333333,
        "count": 2,
        "points": [[1.0, 4.0], [3.0, 0.333333]],
    }


def test_nothing_is_known() -> None:
    nothing = {"min": None, "avg": None, "max": None, "last": None, "count": 0}
    assert summarised({"gpu": []}) == {"gpu": {**nothing, "series": [], "more_series": 0}}
    (series,) = summarised({"gpu": [({}, [(1.0, math.inf)])]})["gpu"]["series"]
    assert series == {"labels": {}, **nothing, "points": []}


@given(POINTS, st.integers(2, 70))
def test_thinned(points: list[tuple[float, float]], most: int) -> None:
    found = thinned(points, most)
    assert len(found) == min(len(points), most)
    assert found[:1] + found[-1:] == points[:1] + points[-1:] or any(math.isnan(v) for _, v in points)


@given(
    st.dictionaries(
        st.text(max_size=3), st.lists(st.tuples(st.just({"ip": "10.0.0.1"}), POINTS), max_size=40), max_size=4
    )
)
def test_it_is_always_json_and_bounded(metrics: Any) -> None:
    found = summarised(metrics)
    json.dumps(found, allow_nan=False)
    assert all(len(each["series"]) <= MOST_SERIES for each in found.values())
    points = sum(len(series["points"]) for each in found.values() for series in each["series"])
    assert points <= 1_500 + 2 * 80
    for name, each in found.items():
        assert each["count"] == sum(math.isfinite(value) for _, points in metrics[name] for _, value in points)
