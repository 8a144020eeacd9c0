"""Which layouts of a new table are refused before the job."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.function.bigquery_layout import check_layout, check_layout_columns
from airflow_provider_vertex_ray.errors import InvalidArgumentError

FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "INTEGER"},
    {"name": "Day", "type": "DATE", "mode": "REQUIRED"},
    {"name": "at", "type": "TIMESTAMP"},
    {"name": "price", "type": "FLOAT64"},
    {"name": "tags", "type": "STRING", "mode": "REPEATED"},
    {"name": "name", "type": "STRING"},
]
RANGE = {"start": 0, "end": "100", "interval": 10}


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"time_partitioning": {"type": "DAY", "fields": "day"}}, "time_partitioning: 'fields'.*Did you mean field?"),
        ({"time_partitioning": {"type": "DAILY"}}, r"time_partitioning\['type'\]: 'DAILY'.*HOUR, DAY"),
        ({"time_partitioning": {"field": "day"}}, r"time_partitioning\['type'\]: None"),
        ({"time_partitioning": {"type": "DAY", "field": 3}}, r"time_partitioning\['field'\]: 3"),
        ({"time_partitioning": {"type": "DAY", "expirationMs": "1 day"}}, r"\['expirationMs'\]: '1 day'"),
        ({"range_partitioning": {"field": "id"}}, r"range_partitioning\['range'\]: None"),
        ({"range_partitioning": {"range": RANGE}}, r"range_partitioning\['field'\]: None"),
        ({"range_partitioning": {"field": "id", "range": {**RANGE, "end": 1.5}}}, r"\['range'\]\['end'\]: 1.5"),
        ({"range_partitioning": {"field": "id", "range": {"start": 0, "end": 1}}}, r"\['interval'\]: None"),
        ({"cluster_fields": ["a", "b", "c", "d", "e"]}, "cluster_fields.*at most 4"),
        ({"cluster_fields": ["a", None]}, r"cluster_fields\[1\]: None"),
    ],
    ids=str,
)
def test_what_bigquery_would_refuse_is_named(layout: dict[str, Any], said: str) -> None:
    given = {"time_partitioning": None, "range_partitioning": None, "cluster_fields": None, **layout}
    with pytest.raises(InvalidArgumentError, match=said):
        check_layout(**given)


def test_what_is_right_or_not_known_yet_passes() -> None:
    check_layout({"type": "DAY", "field": "{{ params.field }}", "expirationMs": "3600000"}, None, ["a"])
    check_layout({"type": "{{ params.type }}"}, None, None)
    check_layout(None, {"field": "id", "range": RANGE}, ("{{ params.column }}",))
    check_layout("{{ params.all }}", None, "{{ params.columns }}")


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"timePartitioning": {"type": "DAY", "field": "dya"}}, "no such column, but id, Day, at"),
        ({"timePartitioning": {"type": "DAY", "field": "id"}}, "DATE, DATETIME, TIMESTAMP.*NULLABLE INT64"),
        ({"timePartitioning": {"type": "HOUR", "field": "day"}}, "DATETIME, TIMESTAMP.*REQUIRED DATE"),
        ({"rangePartitioning": {"field": "name", "range": RANGE}}, "INT64.*STRING"),
        ({"clustering": {"fields": ["name", "price"]}}, r"cluster_fields\[1\]: 'price'.*FLOAT64"),
        ({"clustering": {"fields": ["tags"]}}, "REPEATED STRING"),
    ],
    ids=str,
)
def test_columns_that_bigquery_cannot_use_are_named(layout: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_layout_columns(layout, FIELDS)
    assert re.search(said, str(caught.value))


def test_columns_are_found_in_any_case() -> None:
    check_layout_columns(
        {"timePartitioning": {"type": "DAY", "field": "DAY"}, "clustering": {"fields": ["ID"]}}, FIELDS
    )
    check_layout_columns({"timePartitioning": {"type": "HOUR", "field": "at"}}, FIELDS)
    check_layout_columns({"timePartitioning": {"type": "DAY"}}, FIELDS)
    check_layout_columns({"rangePartitioning": {"field": "id", "range": RANGE}}, FIELDS)
