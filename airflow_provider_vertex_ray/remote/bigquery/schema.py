"""Convert between BigQuery fields and Arrow types, and make a block conform to given fields."""

from __future__ import annotations

from typing import Any

__all__ = ["SchemaError", "conform", "fields_of"]

Field = dict[str, Any]
"""A field as in the REST API: name, type, mode, fields."""

_ALIASES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "STRUCT": "RECORD"}
_DECIMAL_DIGITS = 38


class SchemaError(ValueError):
    """The transform's rows do not have the columns or types of the target."""


def fields_of(schema: Any) -> list[Field]:
    """Return the BigQuery fields for an Arrow schema; a column with only nulls has the type ``""``.

    :raises SchemaError: BigQuery does not support a type.
    """
    return [_field(each.name, each.type) for each in schema]


def _field(name: str, kind: Any) -> Field:
    import pyarrow.types as is_a

    if is_a.is_dictionary(kind):
        return _field(name, kind.value_type)
    if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind):
        item = _field(name, kind.value_type)
        if item["mode"] == "REPEATED":
            raise SchemaError(f"Column {name!r} contains lists of lists, which BigQuery does not support.")
        return {**item, "mode": "REPEATED"}
    if is_a.is_struct(kind):
        inner = [_field(kind.field(place).name, kind.field(place).type) for place in range(kind.num_fields)]
        return {"name": name, "type": "RECORD", "mode": "NULLABLE", "fields": inner}
    return {"name": name, "type": _scalar(name, kind), "mode": "NULLABLE"}


def _scalar(name: str, kind: Any) -> str:
    import pyarrow.types as is_a

    if is_a.is_decimal(kind):
        whole = kind.precision - kind.scale
        return "NUMERIC" if kind.scale <= 9 and whole <= _DECIMAL_DIGITS - 9 else "BIGNUMERIC"
    if is_a.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "DATETIME"
    found = (
        (is_a.is_null, ""),
        (is_a.is_boolean, "BOOL"),
        (is_a.is_integer, "INT64"),
        (is_a.is_floating, "FLOAT64"),
        (is_a.is_string, "STRING"),
        (is_a.is_large_string, "STRING"),
        (is_a.is_binary, "BYTES"),
        (is_a.is_large_binary, "BYTES"),
        (is_a.is_fixed_size_binary, "BYTES"),
        (is_a.is_date, "DATE"),
        (is_a.is_time, "TIME"),
    )
    for test, result in found:
        if test(kind):
            return result
    raise SchemaError(
        f"Column {name!r} has the Arrow type {kind}, which BigQuery does not support. Cast it in the transform."
    )


def _arrow(field: Field) -> Any:
    import pyarrow as pa

    kind = str(field["type"]).upper()
    kind = _ALIASES.get(kind, kind)
    if kind == "RECORD":
        found = pa.struct([pa.field(each["name"], _arrow(each)) for each in field["fields"]])
    else:
        found = {
            "BOOL": pa.bool_(),
            "INT64": pa.int64(),
            "FLOAT64": pa.float64(),
            "STRING": pa.string(),
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
    return pa.list_(found) if str(field.get("mode") or "").upper() == "REPEATED" else found


def plain_columns(table: Any) -> Any:
    """Return the table with Ray's tensor columns converted to lists.

    :raises SchemaError: a column contains Python objects.
    """
    import pyarrow as pa

    for place, each in enumerate(table.schema):
        if not isinstance(each.type, pa.ExtensionType):
            continue
        if "object" in type(each.type).__name__.lower():
            raise SchemaError(
                f"Column {each.name!r} contains Python objects. Convert them to plain values in the transform."
            )
        values = [None if value is None else value.tolist() for value in table.column(place).to_pylist()]
        table = table.set_column(place, each.name, pa.chunked_array([pa.array(values)]))
    return table


def conform(table: Any, fields: list[Field], said_by: str) -> Any:
    """Return the table with exactly the given columns, in their order and with their types.

    :param table: a ``pyarrow.Table``.
    :param fields: the BigQuery fields.
    :param said_by: origin of the fields, for errors.
    :raises SchemaError: the table has other columns, or values that do not fit.
    """
    import pyarrow as pa

    # BigQuery's column names are case-insensitive.
    given = {name.lower(): name for name in table.column_names}
    wanted = {str(field["name"]).lower(): str(field["name"]) for field in fields}
    missing = [wanted[name] for name in wanted if name not in given]
    extra = [given[name] for name in given if name not in wanted]
    if missing or extra or len(given) != table.num_columns:
        parts = [f"without {', '.join(missing)}"] if missing else []
        parts += [f"with the additional columns {', '.join(extra)}"] if extra else []
        parts = parts or ["with two columns of the same name"]
        raise SchemaError(
            f"The transform returned rows {' and '.join(parts)}; {said_by} has the columns "
            f"{', '.join(wanted.values())}."
        )
    columns = []
    for field in fields:
        column, kind = table.column(given[str(field["name"]).lower()]), _arrow(field)
        try:
            # Times are truncated to microseconds, because BigQuery has none finer.
            safe = not (pa.types.is_temporal(column.type) and pa.types.is_temporal(kind))
            columns.append(column if column.type == kind else column.cast(kind, safe=safe))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise SchemaError(
                f"Column {field['name']!r} of the transform ({column.type}) does not fit {field['type']} of {said_by}: "
                f"{error}"
            ) from None
    return pa.Table.from_arrays(columns, names=[str(field["name"]) for field in fields])
