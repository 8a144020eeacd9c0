"""What an address of the page may ask for: whatever is in it, the page gets a valid query."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.plugins.page.owners import Owner
from airflow_provider_vertex_ray.plugins.page.query import (
    JOB_FILTERS,
    JOB_SORTS,
    JOBS_SHOWN,
    SORTS,
    STATES,
    USES,
    ClusterQuery,
    ListQuery,
)
from airflow_provider_vertex_ray.plugins.page.reader import MOST_JOBS
from tests.plugins.builders import NOW

ODD = st.text(max_size=40) | st.sampled_from(
    [
        "",
        "0",
        "-1",
        "1e9",
        "9" * 40,
        "5-3",
        "3-5",
        "1h",
        "idle",
        "-",
        "\u202e",
        "\ud800",
        "new\nline",
        "a=b&q=c",
        "null",
    ]
)


def _given(names: list[str]) -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(st.sampled_from(names), ODD)


def _again(link: str) -> dict[str, str]:
    return dict(parse_qsl(link[1:], keep_blank_values=True))


@given(_given(list(ListQuery.__dataclass_fields__)))
def test_any_address_of_the_list_is_valid(parameters: dict[str, str]) -> None:
    query = ListQuery.of(parameters)
    assert query.sort in SORTS
    assert query.state in ("", *STATES)
    assert query.use in ("", *USES)
    assert ListQuery.of(_again(query.link())) == query


@given(_given(list(ClusterQuery.__dataclass_fields__)), st.just(NOW))
def test_any_address_of_a_cluster_is_valid(parameters: dict[str, str], now: float) -> None:
    query = ClusterQuery.of(parameters)
    assert query.show in JOB_FILTERS
    assert query.sort in JOB_SORTS
    assert 1 <= query.jobs <= MOST_JOBS
    period = query.period(now)
    assert period is None or period[0] < period[1]
    assert (query.came_from is None) == (query.from_dag == "")
    again = ClusterQuery.of(_again(query.link()))
    # An id with what UTF-8 cannot encode is the only value that an address cannot repeat.
    assert again == query or "\ud800" in query.job or any("\ud800" <= each <= "\udfff" for each in query.job)


@pytest.mark.parametrize("text", ["", "-3", "0", "1.5", "٣", "9" * 20, "ten"])
def test_odd_number_of_jobs_is_ignored(text: str) -> None:
    assert ClusterQuery.of({"jobs": text}).jobs in (1, JOBS_SHOWN)
    assert ClusterQuery.of({"jobs": "50"}).jobs == 50
    assert ClusterQuery.of({"jobs": "999999"}).jobs == MOST_JOBS


def test_period_is_named_or_two_times() -> None:
    assert ClusterQuery.of({"within": "1h"}).period(NOW) == (NOW - 3600, NOW)
    assert ClusterQuery.of({"within": "100-200"}).period(NOW) == (100, 200)
    for odd in ("200-100", "100-100", "100", "-5-7", "1-2-3", "2h", "1e3-1e4"):
        assert ClusterQuery.of({"within": odd}).period(NOW) is None


def test_link_repeats_what_was_chosen_and_nothing_else() -> None:
    assert ListQuery().link() == "?"
    assert ListQuery(q="a b", sort="cost").link(state="ERROR") == "?q=a%20b&state=ERROR&sort=cost"
    query = ClusterQuery(job="a/b", q="x", jobs=50)
    assert query.link(job="", jobs=JOBS_SHOWN) == "?q=x"
    assert query.hidden("q", "jobs") == [("job", "a/b")]
    assert query.download() == "?job=a%2Fb"


def test_way_back_to_the_list_holds_only_a_query_of_the_list() -> None:
    assert ClusterQuery.of({"back": "q=etl&sort=cost&evil=//x&state=NOPE"}).back == "q=etl&sort=cost"
    assert ClusterQuery.of({"back": "//evil.example"}).back == ""


def test_way_back_to_a_task_needs_all_of_its_names() -> None:
    names = {"from_dag": "etl", "from_run": "r", "from_task": "load"}
    assert ClusterQuery.of({**names, "from_map": "3"}).came_from == Owner("etl", "r", "load", 3)
    assert ClusterQuery.of({**names, "from_map": "x"}).came_from == Owner("etl", "r", "load", -1)
    for name in names:
        assert ClusterQuery.of({**names, name: ""}).came_from is None
