"""No value is changed on its way through a transform: it arrives as it is, or an error names it."""

from __future__ import annotations

import datetime
import decimal
import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.function.bigquery_step import BATCH_FORMATS
from airflow_provider_vertex_ray.remote.bigquery.batches import batch_of, table_of
from airflow_provider_vertex_ray.remote.bigquery.fields import SchemaError, adopt_source_types
from airflow_provider_vertex_ray.remote.bigquery.schema import conform, fields_of
from tests.support.bigquery_rows import (
    FIRST,
    LAST,
    SCALARS,
    UTC,
    arrow_table,
    field_strategy,
    fields_strategy,
    rows_strategy,
    same,
)


def through(table: pa.Table, batch_format: str) -> pa.Table:
    """A batch, and what a transform that changes nothing returns."""
    return table_of(batch_of(table, batch_format), table.schema)


def loaded(table: pa.Table) -> pa.Table:
    """What BigQuery reads from the Parquet file that is loaded."""
    content = io.BytesIO()
    pq.write_table(table, content)
    content.seek(0)
    return pq.read_table(content)


def differences(draw: Any, batch_format: str, most: int) -> int:
    """How many rows were looked at; all arrive as they are."""
    fields = draw(fields_strategy())
    rows = draw(rows_strategy(fields, most))
    table = arrow_table(fields, rows, chunks=2)
    fitted = loaded(conform(through(table, batch_format), fields, "the table"))
    assert same(fitted.to_pylist(), rows), (fields, rows, fitted.to_pylist())
    # For a new table, the source says what the values do not.
    found = adopt_source_types(fields_of(through(table, batch_format).schema), fields)
    assert [each["type"] for each in found] == [each["type"] for each in fields]
    return len(rows)


@pytest.mark.parametrize("batch_format", BATCH_FORMATS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_values_arrive_unchanged(batch_format: str, data: st.DataObject) -> None:
    differences(data.draw, batch_format, 5)


ODD: dict[str, st.SearchStrategy[Any]] = {
    **SCALARS,
    "small float": st.floats(-4, 4).map(lambda number: round(number, 1)),
    "small integer": st.integers(-3, 3),
    "midnight": st.dates().map(lambda day: datetime.datetime.combine(day, datetime.time())),
    "aware": st.datetimes(FIRST + datetime.timedelta(2), LAST - datetime.timedelta(2)).map(
        lambda moment: moment.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    ),
    "list": st.lists(st.integers(-3, 3) | st.none(), max_size=2),
    "record": st.fixed_dictionaries({"a": st.integers(-3, 3)}, optional={"b": st.text(max_size=2)}),
}
"""Values that a transform may return where another type is expected."""


def kept(given: Any, found: Any) -> bool:
    """Whether a value that was converted to another type means the same."""
    if given is None or found is None:
        return given is found or (given is None and found == [])
    if isinstance(given, bool) or isinstance(found, bool):
        return given is found
    if isinstance(given, (int, float, decimal.Decimal)) and isinstance(found, (int, float, decimal.Decimal)):
        return same(float(given), float(found)) if given != given else given == found
    if isinstance(given, datetime.datetime) and isinstance(found, datetime.datetime):
        return (given if given.tzinfo or not found.tzinfo else given.replace(tzinfo=UTC)) == found and (
            bool(given.tzinfo) <= bool(found.tzinfo)
        )
    if isinstance(given, datetime.date) and isinstance(found, datetime.date):
        days = [
            each if isinstance(each, datetime.datetime) else datetime.datetime.combine(each, datetime.time())
            for each in (given, found)
        ]
        return days[0] == days[1] and days[0].tzinfo is None
    if isinstance(given, dict) and isinstance(found, dict):
        return given.keys() == found.keys() and all(kept(value, found[key]) for key, value in given.items())
    if isinstance(given, list) and isinstance(found, list):
        return len(given) == len(found) and all(map(kept, given, found))
    return type(given) is type(found) and bool(given == found)


def fitted_or_refused(batch: Any, field: dict[str, Any]) -> list[Any] | None:
    """The rows of a batch as they are loaded; None if an error names the column."""
    try:
        return conform(table_of(batch), [field], "the table").column(0).to_pylist()
    except SchemaError as error:
        if "'c" not in str(error):
            raise
        return None


def odd_rows(draw: Any) -> int:
    """How many rows were looked at: each arrives with the value that it had, or the whole batch is refused."""
    field = {"name": "c", **draw(field_strategy(1))}
    kinds = draw(st.lists(st.sampled_from(sorted(ODD)), min_size=1, max_size=2))
    rows = draw(st.lists(st.none() | st.one_of(*(ODD[kind] for kind in kinds)), max_size=4))
    # NaN among other values than numbers is what pandas has for NULL.
    numbers = field["type"] in ("FLOAT64", "INT64", "NUMERIC", "BIGNUMERIC")
    expected = [None if isinstance(row, float) and row != row and not numbers else row for row in rows]
    for batch in (pd.DataFrame({"c": pd.Series(rows, dtype=object)}), {"c": rows}):
        fitted = fitted_or_refused(batch, field)
        assert fitted is None or all(map(kept, expected, fitted)), (field, rows, fitted)
    return len(rows)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_other_values_are_refused_and_never_changed(data: st.DataObject) -> None:
    odd_rows(data.draw)


@pytest.mark.parametrize("missing", [None, pd.NA, pd.NaT, float("nan")], ids=str)
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("a", "STRING"),
        (b"a", "BYTES"),
        (True, "BOOL"),
        (1, "INT64"),
        (decimal.Decimal("1.5"), "NUMERIC"),
        (datetime.date(2026, 1, 2), "DATE"),
        (datetime.time(1), "TIME"),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)
def test_what_pandas_has_for_missing_is_null_beside_each_type(missing: Any, value: Any, kind: str) -> None:
    if kind in ("INT64", "NUMERIC") and missing is not None and missing is not pd.NA and missing is not pd.NaT:
        pytest.skip("among numbers, NaN is one")
    rows = pd.DataFrame({"c": pd.Series([value, missing, value], dtype=object)})
    assert conform(table_of(rows), [{"name": "c", "type": kind}], "the table").column(0).to_pylist() == [
        value,
        None,
        value,
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([np.float16(0.75), 1], [0.75, 1.0]),
        ([1, np.float16(0.75), None], [1.0, 0.75, None]),
        ([np.float32(0.5), np.int64(2)], [0.5, 2.0]),
        ([np.int64(3), decimal.Decimal("1.5")], [decimal.Decimal(3), decimal.Decimal("1.5")]),
    ],
    ids=str,
)
def test_numbers_of_numpy_keep_their_values_beside_others(values: list[Any], expected: list[Any]) -> None:
    for rows, wanted in ((values, expected), ([values], [expected])):
        for batch in ({"c": rows}, pd.DataFrame({"c": pd.Series(rows, dtype=object)})):
            assert table_of(batch).column(0).to_pylist() == wanted
