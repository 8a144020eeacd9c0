"""Random BigQuery fields, rows that fit them as Arrow, and a comparison of values that sees every change."""

from __future__ import annotations

import datetime
import decimal
import math
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from airflow_provider_vertex_ray.remote.bigquery.arrow_types import arrow_type

UTC = datetime.timezone.utc
FIRST = datetime.datetime.min  # noqa: DTZ901 (DATETIME has no time zone)
LAST = datetime.datetime.max  # noqa: DTZ901
"""Last moment that BigQuery has."""


def _decimals(digits: int, scale: int) -> st.SearchStrategy[decimal.Decimal]:
    bound = 10 ** (digits + scale) - 1
    edge = st.sampled_from([0, 1, -1, bound, -bound])
    context = decimal.Context(prec=100)
    return (edge | st.integers(-bound, bound)).map(lambda number: context.scaleb(decimal.Decimal(number), -scale))


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "INT64": st.sampled_from([2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1),
    "FLOAT64": st.floats(width=64),
    "NUMERIC": _decimals(29, 9),
    "BIGNUMERIC": _decimals(38, 38),
    "STRING": st.text(max_size=8),
    "JSON": st.sampled_from(['{"a": 9007199254740993}', "null", "[1, 2.5]", '"text"']),
    "BYTES": st.binary(max_size=8),
    "DATE": st.sampled_from([FIRST.date(), LAST.date()]) | st.dates(),
    "TIME": st.times(),
    "DATETIME": st.sampled_from([FIRST, LAST]) | st.datetimes(),
    "TIMESTAMP": (st.sampled_from([FIRST, LAST]) | st.datetimes()).map(lambda moment: moment.replace(tzinfo=UTC)),
}
KINDS = tuple(SCALARS)


def field_strategy(depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Fields of all types and modes, with records inside of records."""
    modes = st.sampled_from(["NULLABLE", "REQUIRED", "REPEATED"])
    scalar = st.builds(lambda kind, mode: {"type": kind, "mode": mode}, st.sampled_from(KINDS), modes)
    if not depth:
        return scalar
    record = st.builds(
        lambda fields, mode: {"type": "RECORD", "mode": mode, "fields": fields}, fields_strategy(depth - 1, 3), modes
    )
    return scalar | record


def fields_strategy(depth: int = 2, most: int = 4) -> st.SearchStrategy[list[dict[str, Any]]]:
    """One to ``most`` fields with names of their own."""
    return st.lists(field_strategy(depth), min_size=1, max_size=most).map(
        lambda fields: [{"name": f"c{place}", **field} for place, field in enumerate(fields)]
    )


def value_strategy(field: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that BigQuery has in such a column."""
    mode = field["mode"]
    if field["type"] == "RECORD":
        found: st.SearchStrategy[Any] = st.fixed_dictionaries(
            {each["name"]: value_strategy(each) for each in field["fields"]}
        )
    else:
        found = SCALARS[field["type"]]
    if mode == "REPEATED":
        return st.lists(found, max_size=3)
    return found if mode == "REQUIRED" else st.none() | found


def rows_strategy(fields: list[dict[str, Any]], most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Up to ``most`` rows."""
    return st.lists(st.fixed_dictionaries({each["name"]: value_strategy(each) for each in fields}), max_size=most)


def arrow_table(fields: list[dict[str, Any]], rows: list[dict[str, Any]], chunks: int = 1) -> pa.Table:
    """Rows as the Storage Read API gives them."""
    schema = pa.schema([pa.field(each["name"], arrow_type(each)) for each in fields])
    size = max(1, -(-len(rows) // chunks))
    parts = [pa.Table.from_pylist(rows[first : first + size], schema) for first in range(0, len(rows), size)]
    return pa.concat_tables(parts) if parts else schema.empty_table()


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, in type as well; NaN is NaN, and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, datetime.datetime):
        return one == other and one.utcoffset() == other.utcoffset()
    return bool(one == other)
