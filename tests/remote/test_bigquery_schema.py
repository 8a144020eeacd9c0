"""BigQuery's fields and Arrow's types, each as the other."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
