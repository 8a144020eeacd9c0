"""What the page says a cluster has cost over time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.plugins.page import spending as module
from airflow_provider_vertex_ray.plugins.page.cache import Cached
from airflow_provider_vertex_ray.plugins.page.spending import HEIGHT, spending
from airflow_provider_vertex_ray.price_table import PriceTable
from tests.plugins.builders import NOW, cluster, facts, job, seen

PRICES = seen(PriceTable("USD", {"us-central1": {"machines": {"n1-standard-16": 1.0, "n1-standard-8": 0.5}}}))
HOUR = 3600.0


def _job(begin: float, end: float | None, name: str = "j") -> Job:
    times = {"start_time": int((NOW - begin) * 1000)}
    if end is None:
        return job(name, **times)
    return job(name, "SUCCEEDED", end_time=int((NOW - end) * 1000), **times)


def _spent(age: float, *jobs: Job, **more: Any) -> Any:
    return spending(facts(of=cluster(age=age), jobs=seen(jobs), **{"prices": PRICES, **more}), jobs, NOW)


def test_time_without_a_job_is_told_apart() -> None:
    # Two overlapping jobs count once; $2 an hour.
    found = _spent(10 * HOUR, _job(9 * HOUR, 7 * HOUR), _job(8 * HOUR, 6 * HOUR), _job(HOUR, None))
    assert found.summary == ("$20.00 in the last 10 h at its current size, of which $12.00 (60 %) while no job ran.")
    assert found.step == "1 h"
    assert found.most == "$2.00"


def test_without_prices_node_hours_are_counted() -> None:
    assert "30 node-hours in the last 10 h" in _spent(10 * HOUR, prices=Cached()).summary


@pytest.mark.parametrize(
    "given",
    [
        {"of": cluster(state="ERROR", age=HOUR)},
        {"of": cluster(state="PROVISIONING", age=HOUR)},
        {"of": cluster(age=5)},
        {"of": cluster(age=HOUR), "jobs": Cached()},
    ],
)
def test_nothing_is_drawn_of_what_is_not_billed_or_not_known(given: dict[str, Any]) -> None:
    assert spending(facts(**given), (), NOW) is None


def test_use_before_the_oldest_known_job_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_JOBS", 2)
    found = _spent(10 * HOUR, _job(3 * HOUR, 2 * HOUR), _job(2 * HOUR, HOUR, "k"))
    assert "of which $2.00 (10 %) while no job ran. For $14.00 of it that is not known" in found.summary


@given(
    st.floats(61, 4e6),
    st.lists(st.tuples(st.floats(0, 5e6), st.floats(0, 5e6) | st.none()), max_size=20),
)
def test_columns_stay_in_their_box_and_add_up(age: float, times: list[tuple[float, float | None]]) -> None:
    found = _spent(age, *(_job(begin, end, f"j{place}") for place, (begin, end) in enumerate(times)))
    assert found is not None
    assert 1 <= len(found.columns) <= 32
    for column in found.columns:
        assert column.x >= 0
        assert column.x + column.width <= 100.01
        assert all(y >= 0 and y + height <= HEIGHT + 0.05 for _, y, height in column.parts)
        tops = [y for _, y, _ in column.parts]
        assert tops == sorted(tops, reverse=True)
