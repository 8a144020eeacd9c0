"""BigQuery's fields and Arrow's types, each as the other."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.remote.bigquery.batches import table_of
from airflow_provider_vertex_ray.remote.bigquery.schema import SchemaError, conform, fields_of, plain_columns

KINDS: list[tuple[Any, str, str]] = [
    (pa.bool_(), "BOOL", "NULLABLE"),
    (pa.int8(), "INT64", "NULLABLE"),
    (pa.int64(), "INT64", "NULLABLE"),
    (pa.float32(), "FLOAT64", "NULLABLE"),
    (pa.string(), "STRING", "NULLABLE"),
    (pa.large_string(), "STRING", "NULLABLE"),
    (pa.dictionary(pa.int32(), pa.string()), "STRING", "NULLABLE"),
    (pa.binary(), "BYTES", "NULLABLE"),
    (pa.date32(), "DATE", "NULLABLE"),
    (pa.time64("us"), "TIME", "NULLABLE"),
    (pa.timestamp("ns"), "DATETIME", "NULLABLE"),
    (pa.timestamp("ns", tz="UTC"), "TIMESTAMP", "NULLABLE"),
    (pa.decimal128(38, 9), "NUMERIC", "NULLABLE"),
    (pa.decimal128(38, 20), "BIGNUMERIC", "NULLABLE"),
    (pa.list_(pa.int32()), "INT64", "REPEATED"),
]


@pytest.mark.parametrize(("kind", "name", "mode"), KINDS, ids=str)
def test_arrow_types_map_to_bigquery_types(kind: Any, name: str, mode: str) -> None:
    (field,) = fields_of(pa.schema([("c", kind)]))
    assert (field["name"], field["type"], field["mode"]) == ("c", name, mode)


def test_records_have_nested_fields() -> None:
    kind = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.struct([("c", pa.string())])))])
    (field,) = fields_of(pa.schema([("r", kind)]))
    assert field["type"] == "RECORD"
    assert [each["name"] for each in field["fields"]] == ["a", "b"]
    assert field["fields"][1]["mode"] == "REPEATED"
    assert field["fields"][1]["fields"][0]["type"] == "STRING"


@pytest.mark.parametrize(
    ("kind", "text"),
    [(pa.list_(pa.list_(pa.int64())), "lists of lists"), (pa.duration("us"), "which BigQuery does not support")],
    ids=str,
)
def test_unsupported_types_are_rejected(kind: Any, text: str) -> None:
    with pytest.raises(SchemaError, match=f"'c'.*{text}"):
        fields_of(pa.schema([("c", kind)]))


_SCALARS = [kind for kind, _, _ in KINDS if not pa.types.is_dictionary(kind) and not pa.types.is_large_string(kind)]


@given(kinds=st.lists(st.sampled_from(_SCALARS), min_size=1, max_size=5), rows=st.integers(0, 3))
def test_rows_conform_to_their_own_fields(kinds: list[Any], rows: int) -> None:
    schema = pa.schema([(f"c{place}", kind) for place, kind in enumerate(kinds)])
    table = pa.table([pa.nulls(rows, kind) for kind in kinds], schema=schema)
    fields = fields_of(schema)
    fitted = conform(table, fields, "the table")
    assert fitted.num_rows == rows
    assert fields_of(fitted.schema) == fields


def test_columns_get_the_order_and_types_of_the_fields() -> None:
    table = pa.table({"B": pa.array([1, None], pa.int32()), "a": ["x", "y"]})
    fields = [{"name": "a", "type": "STRING"}, {"name": "b", "type": "FLOAT"}]
    fitted = conform(table, fields, "schema_fields")
    assert fitted.column_names == ["a", "b"]
    assert fitted.to_pylist() == [{"a": "x", "b": 1.0}, {"a": "y", "b": None}]


def test_times_are_truncated_and_default_to_utc() -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
    table = pa.table({"t": pa.array([moment.replace(tzinfo=None)], pa.timestamp("ns"))})
    fitted = conform(table, [{"name": "t", "type": "TIMESTAMP"}], "x")
    assert fitted.to_pylist() == [{"t": moment}]


FAR = pa.array([253402300800]).cast(pa.timestamp("s"))
"""The year 10000, which Python has not."""


@pytest.mark.parametrize(
    ("array", "field", "text"),
    [
        (FAR, {"type": "DATETIME"}, "10000-01-01 .*years 1 to 9999"),
        (pa.array([2932897], pa.int32()).cast(pa.date32()), {"type": "DATE"}, "10000-01-01 .*years 1 to 9999"),
        (pa.array([-719163], pa.int32()).cast(pa.date32()), {"type": "DATE"}, "0000-12-31 .*years 1 to 9999"),
        (pa.ListViewArray.from_arrays([0], [1], FAR), {"type": "DATETIME", "mode": "REPEATED"}, "years 1 to 9999"),
        (
            pa.StructArray.from_arrays([FAR], ["a"]),
            {"type": "RECORD", "fields": [{"name": "b", "type": "DATETIME"}]},
            "10000-01-01 .*without b",
        ),
        (pa.array([0]).cast(pa.timestamp("us", "Mars/Base")), {"type": "DATE"}, "1970-01-01 .*wall time"),
        (pa.array([86_400_000_000]).cast(pa.time64("us")), {"type": "TIME"}, "86400000000 microseconds are not"),
        (pa.array([-1], pa.int32()).cast(pa.time32("s")), {"type": "TIME"}, "-1000000 microseconds are not"),
        (pa.array([b"\xff"]).view(pa.string()), {"type": "STRING"}, "Invalid UTF8"),
        (pa.array([b"\xff"]).view(pa.string()), {"type": "JSON"}, "Invalid UTF8"),
    ],
    ids=str,
)
def test_values_that_python_does_not_have_are_named(array: Any, field: dict[str, Any], text: str) -> None:
    with pytest.raises(SchemaError, match=rf"Column 'c(\[\])?' \(row 0 .*{text}"):
        conform(pa.table({"c": array}), [{"name": "c", **field}], "the table")


def test_lists_keep_their_values_however_they_are_stored() -> None:
    values = pa.array([5, 6, 7])
    for array in (
        pa.array([[6, 7], [], [5, 6]]),
        pa.array([[9], [6, 7], None, [5, 6]]).slice(1),
        pa.ListViewArray.from_arrays([1, 0, 0], [2, 0, 2], values),
        pa.LargeListViewArray.from_arrays([1, 2, 0], [2, 1, 2], values, mask=pa.array([False, True, False])),
    ):
        fitted = conform(pa.table({"c": array}), [{"name": "c", "type": "INT64", "mode": "REPEATED"}], "the table")
        assert fitted.column(0).to_pylist() == [[6, 7], [], [5, 6]]


@pytest.mark.parametrize(
    "series",
    [pd.period_range("2024-05", periods=1), pd.interval_range(0, 1), pd.to_timedelta([1])],
    ids=lambda series: str(series.dtype),
)
def test_pandas_types_that_bigquery_lacks_are_rejected(series: Any) -> None:
    table = table_of(pd.DataFrame({"c": series}))
    with pytest.raises(SchemaError, match="Column 'c' has the Arrow type .*which BigQuery does not support"):
        fields_of(table.schema)
    with pytest.raises(SchemaError, match="Column 'c'"):
        conform(table, [{"name": "c", "type": "INT64"}], "the table")


def test_numbers_become_decimals() -> None:
    fitted = conform(pa.table({"n": [1, 2]}), [{"name": "n", "type": "NUMERIC"}], "x")
    assert fitted.to_pylist()[0] == {"n": decimal.Decimal(1)}


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"a": [1]}, "without b; the table has the columns a, b"),
        ({"a": [1], "b": ["x"], "c": [1]}, "with the additional columns c; the table has the columns a, b"),
        ({"a": ["one"], "b": ["x"]}, "Column 'a' .*does not fit INT64 of the table"),
        ({"a": [1.5], "b": ["x"]}, "Column 'a' .*does not fit INT64 of the table"),
    ],
)
def test_undeclared_columns_are_rejected(columns: dict[str, Any], text: str) -> None:
    fields = [{"name": "a", "type": "INT64"}, {"name": "b", "type": "STRING"}]
    with pytest.raises(SchemaError, match=text):
        conform(pa.table(columns), fields, "the table")


def test_ray_tensors_become_lists() -> None:
    if not pytest.importorskip("ray").__version__.startswith("2.47."):
        pytest.skip("the cluster's Ray is another one")
    import numpy as np
    from ray.air.util.tensor_extensions.arrow import ArrowTensorArray

    table = pa.table({"v": ArrowTensorArray.from_numpy(np.array([[1.0, 2.0], [3.0, 4.0]]))})
    plain = plain_columns(table)
    assert plain.to_pylist() == [{"v": [1.0, 2.0]}, {"v": [3.0, 4.0]}]
    assert fields_of(plain.schema)[0]["mode"] == "REPEATED"
