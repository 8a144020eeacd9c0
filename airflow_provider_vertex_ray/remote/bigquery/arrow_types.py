"""Arrow types and BigQuery's fields, each for the other."""

from __future__ import annotations

from typing import Any

from .fields import Field, SchemaError, kind_of, mode_of

__all__ = ["arrow_type", "fields_of", "is_binary", "is_list", "is_text", "plain_columns", "storage"]

_STORED_AS_MEANT = ("arrow.uuid", "arrow.json")
"""Arrow's extension types whose stored values are those that are meant. A period of pandas, for example, is not."""

DECIMAL_DIGITS = 38
"""Digits of Arrow's smaller decimals."""


def fields_of(schema: Any) -> list[Field]:
    """Return the BigQuery fields for an Arrow schema; a column with only nulls has the type ``""``.

    :raises SchemaError: BigQuery does not support a type.
    """
    return [_field(each.name, each.name, each.type) for each in schema]


def _field(name: str, path: str, kind: Any) -> Field:
    import pyarrow.types as is_a

    kind = storage(kind, path)
    if is_a.is_map(kind):
        inner = [_field("key", f"{path}.key", kind.key_type), _field("value", f"{path}.value", kind.item_type)]
        return {"name": name, "type": "RECORD", "mode": "REPEATED", "fields": inner}
    if is_list(kind):
        item = _field(name, f"{path}[]", kind.value_type)
        if item["mode"] == "REPEATED":
            raise SchemaError(f"Column {path!r} contains lists of lists, which BigQuery does not support.")
        return {**item, "mode": "REPEATED"}
    if is_a.is_struct(kind):
        parts = [kind.field(place) for place in range(kind.num_fields)]
        if not parts:
            raise SchemaError(f"Column {path!r} contains records without fields, which BigQuery does not support.")
        inner = [_field(part.name, f"{path}.{part.name}", part.type) for part in parts]
        return {"name": name, "type": "RECORD", "mode": "NULLABLE", "fields": inner}
    return {"name": name, "type": _scalar(path, kind), "mode": "NULLABLE"}


def _scalar(path: str, kind: Any) -> str:
    import pyarrow.types as is_a

    if is_a.is_decimal(kind):
        whole = kind.precision - kind.scale
        return "NUMERIC" if kind.scale <= 9 and whole <= DECIMAL_DIGITS - 9 else "BIGNUMERIC"
    if is_a.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "DATETIME"
    found = (
        (is_a.is_null, ""),
        (is_a.is_boolean, "BOOL"),
        (is_a.is_integer, "INT64"),
        (is_a.is_floating, "FLOAT64"),
        (is_text, "STRING"),
        (is_binary, "BYTES"),
        (is_a.is_date, "DATE"),
        (is_a.is_time, "TIME"),
    )
    for test, result in found:
        if test(kind):
            return result
    raise _unsupported(path, kind)


def _unsupported(path: str, kind: Any) -> SchemaError:
    return SchemaError(
        f"Column {path!r} has the Arrow type {kind}, which BigQuery does not support. Cast it in the transform."
    )


def storage(kind: Any, path: str) -> Any:
    """Return the type without what only describes how it is stored.

    :param kind: the Arrow type.
    :param path: path of the column.
    :raises SchemaError: the stored values are not those that are meant.
    """
    import pyarrow as pa
    import pyarrow.types as is_a

    if isinstance(kind, pa.BaseExtensionType):
        if type(kind).__module__.partition(".")[0] == "ray":
            raise SchemaError(
                f"Column {path!r} contains Python objects. Convert them to plain values in the transform."
            )
        if kind.extension_name not in _STORED_AS_MEANT and len(getattr(kind, "shape", ())) != 1:
            raise _unsupported(path, kind)
        return storage(kind.storage_type, path)
    if is_a.is_dictionary(kind) or is_a.is_run_end_encoded(kind):
        return storage(kind.value_type, path)
    return kind


def is_list(kind: Any) -> bool:
    """Return whether an Arrow type is a list, however it is stored."""
    import pyarrow.types as is_a

    return bool(
        is_a.is_list(kind)
        or is_a.is_large_list(kind)
        or is_a.is_fixed_size_list(kind)
        or str(kind).startswith(("list_view<", "large_list_view<"))
    )


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is a string, however it is stored."""
    import pyarrow.types as is_a

    return bool(is_a.is_string(kind) or is_a.is_large_string(kind) or str(kind) == "string_view")


def is_binary(kind: Any) -> bool:
    """Return whether an Arrow type is bytes, however they are stored."""
    import pyarrow.types as is_a

    return bool(
        is_a.is_binary(kind)
        or is_a.is_large_binary(kind)
        or is_a.is_fixed_size_binary(kind)
        or str(kind) == "binary_view"
    )


def arrow_type(field: Field) -> Any:
    """Return the Arrow type of a column in the Parquet files that are loaded.

    :raises SchemaError: the step does not carry the type.
    """
    import pyarrow as pa

    kind = kind_of(field)
    if kind == "RECORD":
        found = pa.struct(
            [
                pa.field(str(each["name"]), arrow_type(each), nullable=mode_of(each) != "REQUIRED")
                for each in field["fields"]
            ]
        )
    else:
        found = {
            "BOOL": pa.bool_(),
            "INT64": pa.int64(),
            "FLOAT64": pa.float64(),
            "STRING": pa.string(),
            # BigQuery loads no JSON from Parquet, so it is parsed after the load.
            "JSON": pa.string(),
            "BYTES": pa.binary(),
            "DATE": pa.date32(),
            "TIME": pa.time64("us"),
            "DATETIME": pa.timestamp("us"),
            "TIMESTAMP": pa.timestamp("us", tz="UTC"),
            "NUMERIC": pa.decimal128(38, 9),
            "BIGNUMERIC": pa.decimal256(76, 38),
        }.get(kind)
    if found is None:
        raise SchemaError(f"Column {field['name']!r} has the BigQuery type {kind}, which this step cannot write.")
    return pa.list_(pa.field("item", found)) if mode_of(field) == "REPEATED" else found


def plain_columns(table: Any) -> Any:
    """Return the table with Ray's tensor columns converted to lists.

    :raises SchemaError: a column contains Python objects.
    """
    import pyarrow as pa

    for place, each in enumerate(table.schema):
        if not isinstance(each.type, pa.ExtensionType) or type(each.type).__module__.partition(".")[0] != "ray":
            continue
        if "object" in type(each.type).__name__.lower():
            raise SchemaError(
                f"Column {each.name!r} contains Python objects. Convert them to plain values in the transform."
            )
        values = [None if value is None else value.tolist() for value in table.column(place).to_pylist()]
        table = table.set_column(place, each.name, pa.chunked_array([pa.array(values)]))
    return table
