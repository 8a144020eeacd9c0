"""The table of types and batch formats in docs/bigquery.md says what happens."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_vertex_ray.core.function.bigquery_step import BATCH_FORMATS
from airflow_provider_vertex_ray.remote.bigquery.batches import batch_of, table_of
from airflow_provider_vertex_ray.remote.bigquery.fields import SchemaError, adopt_source_types, check_carried
from airflow_provider_vertex_ray.remote.bigquery.schema import conform, fields_of
from tests.support.bigquery_rows import FIRST, LAST, UTC, arrow_table, same

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bigquery.md"
HEAD = ("| type | pandas | pyarrow | numpy |", "| --- | --- | --- | --- |")

EDGES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "INT64": [2**53 + 1, -(2**63), 2**63 - 1, 0],
    "FLOAT64": [float("nan"), float("-inf"), -0.0, 5e-324, 0.1],
    "NUMERIC": [decimal.Decimal("9" * 29 + "." + "9" * 9), decimal.Decimal("-0.000000001")],
    "BIGNUMERIC": [decimal.Decimal("9" * 38 + "." + "9" * 38), decimal.Decimal("-1E-38")],
    "STRING": ["", "é\U0001f600", "NaN", "None"],
    "BYTES": [b"", b"\x00\xff"],
    "DATE": [FIRST.date(), LAST.date()],
    "TIME": [datetime.time(), datetime.time(23, 59, 59, 999999)],
    "DATETIME": [FIRST, LAST],
    "TIMESTAMP": [FIRST.replace(tzinfo=UTC), LAST.replace(tzinfo=UTC)],
    "JSON": ['{"a": 9007199254740993}', "null"],
    "GEOGRAPHY": [],
    "INTERVAL": [],
    "RANGE": [],
}
"""All types of BigQuery, with values at their edges."""


def shapes(kind: str) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Fields and rows: the values themselves, with NULL, in arrays, in records, in arrays of records, and no rows."""
    values = EDGES[kind]
    one = {"name": "c", "type": kind, "mode": "NULLABLE"}
    inner = {**one, "name": "k"}
    many = {**inner, "name": "ks", "mode": "REPEATED"}
    record = {"name": "c", "type": "RECORD", "mode": "NULLABLE", "fields": [inner, many]}
    records = [None, *({"k": value, "ks": values} for value in [*values, None])]
    return [
        ([{**one, "mode": "REQUIRED"}], [{"c": value} for value in values]),
        ([one], [{"c": value} for value in [*values, None]]),
        ([one], [{"c": None}]),
        ([one], []),
        ([{**one, "mode": "REPEATED"}], [{"c": values}, {"c": []}]),
        ([record], [{"c": value} for value in records]),
        ([{**record, "mode": "REPEATED"}], [{"c": records[1:]}, {"c": []}]),
    ]


def held(batch: Any, batch_format: str) -> str:
    """What a column of a batch is."""
    if batch_format == "pyarrow":
        return str(batch.schema.field("c").type)
    return str(batch["c"].dtype)


def outcome(kind: str, batch_format: str) -> str:
    """What becomes of the values of a type in a batch format, through a transform that changes nothing."""
    try:
        check_carried([{"name": "c", "type": kind}])
    except SchemaError:
        return "refused before the job"
    kinds = []
    for fields, rows in shapes(kind):
        table = arrow_table(fields, rows)
        batch = batch_of(table, batch_format)
        kinds.append(held(batch, batch_format))
        returned = table_of(batch, table.schema)
        assert same(conform(returned, fields, "the table").to_pylist(), rows), (fields, rows)
        found = adopt_source_types(fields_of(returned.schema), fields)
        assert [each["type"] for each in found] == [each["type"] for each in fields]
    plain, with_null = kinds[:2]
    return f"exact: `{plain}`" if plain == with_null else f"exact: `{plain}`, with NULL `{with_null}`"


def row(kind: str) -> str:
    """A row of the table."""
    return f"| {kind} | " + " | ".join(outcome(kind, each) for each in BATCH_FORMATS) + " |"


def table() -> str:
    """The whole table, for the page."""
    return "\n".join((*HEAD, *map(row, EDGES)))


@pytest.mark.parametrize("kind", EDGES)
def test_the_documented_round_trip_is_the_real_one(kind: str) -> None:
    assert row(kind) in PAGE.read_text().splitlines()


def test_the_documented_table_has_all_types() -> None:
    page = PAGE.read_text()
    lines = page[page.index(HEAD[0]) :].splitlines()
    assert [line.split(" | ")[0] for line in lines[2 : 2 + len(EDGES)]] == [f"| {kind}" for kind in EDGES]


def test_bignumeric_beyond_arrow_is_named() -> None:
    # BigQuery has a 39th digit before the point for some values, and Arrow has not.
    big = pa.table({"c": pa.array([decimal.Decimal("5" + "0" * 38)], pa.decimal256(76, 0))})
    with pytest.raises(SchemaError, match=r"Column 'c' \(row 0 of the batch.*BIGNUMERIC"):
        conform(big, [{"name": "c", "type": "BIGNUMERIC"}], "the table")
