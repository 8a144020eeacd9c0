"""The PromQL of a cluster's metrics."""

from __future__ import annotations

from typing import Any

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.monitoring.metric_query import (
    METRICS,
    UNITS,
    check_promql,
    metric_queries,
    metric_query,
    selector,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError


def test_the_documented_query() -> None:
    assert metric_query("cpu", "etl") == 'avg(ray_node_cpu_utilization{cluster="etl"})'


@pytest.mark.parametrize("name", METRICS)
def test_each_named_metric_is_valid_promql(name: str) -> None:
    assert promql_parser.parse(metric_query(name, "etl")) is not None
    assert name in UNITS


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00")))
def test_a_value_of_a_label_stays_one(text: str) -> None:
    tree: Any = promql_parser.parse(selector("up", text, State="=~RUNNING.*"))
    matchers = {matcher.name: matcher.value for matcher in tree.matchers.matchers}
    assert matchers == {"cluster": text, "State": "RUNNING.*"}


def test_named_ones_and_others_together() -> None:
    found = metric_queries(["gpu"], {"disk": "avg(ray_node_disk_usage)"}, "etl")
    assert found == {"gpu": 'avg(ray_node_gpus_utilization{cluster="etl"})', "disk": "avg(ray_node_disk_usage)"}


@pytest.mark.parametrize(
    ("metrics", "queries", "field"),
    [
        (["disk"], {}, "metrics[0]"),
        (["cpu"], {"cpu": "1"}, "queries"),
        ([], {"x": " "}, "queries['x']"),
        ([], {"x": None}, "queries['x']"),
        ([], {}, "metrics"),
    ],
)
def test_wrong_input(metrics: list[str], queries: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        metric_queries(metrics, queries, "etl")
    assert caught.value.field == field


def test_a_query_without_end() -> None:
    with pytest.raises(InvalidArgumentError, match="at most 20000 characters"):
        check_promql("1" * 20_001, "promql")
