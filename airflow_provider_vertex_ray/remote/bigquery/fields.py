"""BigQuery's fields, as in its REST API: which types a step carries, and which source fits which target.

Airflow uses the same rules before a job starts, so this module needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = [
    "Field",
    "SchemaError",
    "adopt_source_types",
    "check_carried",
    "has_type",
    "kind_of",
    "merge_fields",
    "mode_of",
    "names_of",
    "nullable",
    "unfit",
]

Field = dict[str, Any]
"""A field as in the REST API: name, type, mode, fields."""

CARRIED = frozenset(
    {
        "BOOL",
        "INT64",
        "FLOAT64",
        "NUMERIC",
        "BIGNUMERIC",
        "STRING",
        "BYTES",
        "DATE",
        "TIME",
        "DATETIME",
        "TIMESTAMP",
        "JSON",
        "RECORD",
    }
)
"""Types that a step reads and writes without changing a value."""

REFUSED = {
    "GEOGRAPHY": "Select ST_ASTEXT(column) AS column in a query, and write it to a STRING column.",
    "INTERVAL": "Select CAST(column AS STRING) AS column in a query, and write it to a STRING column.",
    "RANGE": "Select RANGE_START(column) and RANGE_END(column) in a query, and write two columns.",
}
"""Types that a step does not carry, because Parquet has no form that BigQuery loads, each with a remedy."""

_ALIASES = {
    "INTEGER": "INT64",
    "INT": "INT64",
    "SMALLINT": "INT64",
    "BIGINT": "INT64",
    "TINYINT": "INT64",
    "BYTEINT": "INT64",
    "FLOAT": "FLOAT64",
    "BOOLEAN": "BOOL",
    "STRUCT": "RECORD",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
}

_FITS = {
    "BOOL": {"BOOL"},
    "INT64": {"INT64", "FLOAT64"},
    "FLOAT64": {"FLOAT64", "INT64"},
    "NUMERIC": {"NUMERIC", "BIGNUMERIC", "INT64"},
    "BIGNUMERIC": {"BIGNUMERIC", "NUMERIC", "INT64"},
    "STRING": {"STRING"},
    "BYTES": {"BYTES"},
    "DATE": {"DATE", "DATETIME"},
    "TIME": {"TIME"},
    "DATETIME": {"DATETIME", "DATE"},
    "TIMESTAMP": {"TIMESTAMP", "DATETIME"},
    "JSON": {"JSON", "STRING"},
    "RECORD": {"RECORD"},
}
"""For each type of a target, the types of a source whose values may fit; the values themselves are checked later."""

_WIDER = {
    frozenset({"INT64", "FLOAT64"}): "FLOAT64",
    frozenset({"INT64", "NUMERIC"}): "NUMERIC",
    frozenset({"INT64", "BIGNUMERIC"}): "BIGNUMERIC",
    frozenset({"NUMERIC", "BIGNUMERIC"}): "BIGNUMERIC",
}
"""For pairs of types that different batches return for one column, the type that holds both."""


class SchemaError(ValueError):
    """Rows or fields do not have the columns, types or values that are needed."""


def kind_of(field: Field) -> str:
    """Return the type of a field by its name in GoogleSQL, and RECORD for a struct; ``""`` if it is unknown."""
    kind = str(field.get("type") or "").upper()
    return _ALIASES.get(kind, kind)


def mode_of(field: Field) -> str:
    """Return the mode of a field: ``NULLABLE``, ``REQUIRED`` or ``REPEATED``."""
    return str(field.get("mode") or "NULLABLE").upper()


def names_of(fields: Sequence[Field]) -> dict[str, Field]:
    """Return fields by their names in lower case, because BigQuery's names are case-insensitive."""
    return {str(field["name"]).lower(): field for field in fields}


def has_type(field: Field) -> bool:
    """Return whether the type of a field is known, at every depth."""
    return bool(kind_of(field)) and all(has_type(each) for each in field.get("fields") or ())


def check_carried(fields: Sequence[Field], path: str = "") -> None:
    """Validate that a step carries the types of all fields, at every depth.

    :param fields: the fields.
    :param path: path of the record that contains them.
    :raises SchemaError: a type is not carried, or a field is not well formed.
    """
    seen: set[str] = set()
    for field in fields:
        if not isinstance(field, dict) or not isinstance(field.get("name"), str) or not field["name"]:
            raise SchemaError(f"{path or 'The list'} contains {field!r}, which is not a field with a name and a type.")
        name, kind = f"{path}{field['name']}", kind_of(field)
        if field["name"].lower() in seen:
            raise SchemaError(f"Column {name} is listed twice.")
        seen.add(field["name"].lower())
        if kind not in CARRIED:
            remedy = REFUSED.get(kind, f"Use one of {', '.join(sorted(CARRIED))}.")
            raise SchemaError(
                f"Column {name} has the type {kind or 'None'}, which a BigQuery step cannot carry. {remedy}"
            )
        if mode_of(field) not in ("NULLABLE", "REQUIRED", "REPEATED"):
            raise SchemaError(f"Column {name} has the mode {field['mode']!r}. Use NULLABLE, REQUIRED or REPEATED.")
        if kind == "RECORD":
            if not isinstance(field.get("fields"), (list, tuple)) or not field["fields"]:
                raise SchemaError(f"Column {name} is a RECORD without fields.")
            check_carried(field["fields"], f"{name}.")


def unfit(source: Sequence[Field], target: Sequence[Field]) -> str | None:
    """Return why rows with the source's fields can never fit the target's; None if they may.

    :param source: fields of the rows.
    :param target: fields of the table.
    """
    return next(_misfits(names_of(source), names_of(target), ""), None)


def _misfits(source: dict[str, Field], target: dict[str, Field], path: str) -> Iterator[str]:
    missing = [f"{path}{field['name']}" for name, field in target.items() if name not in source]
    extra = [f"{path}{field['name']}" for name, field in source.items() if name not in target]
    if missing:
        yield f"the source has no {', '.join(missing)}"
    if extra:
        yield f"the target has no {', '.join(extra)}"
    for name, field in target.items():
        given, full = source[name], f"{path}{field['name']}"
        if (mode_of(given) == "REPEATED") != (mode_of(field) == "REPEATED"):
            yield f"{full} is {mode_of(given)} in the source and {mode_of(field)} in the target"
        elif kind_of(given) not in _FITS.get(kind_of(field), {kind_of(given)}):
            yield f"{full} is {kind_of(given)} in the source and {kind_of(field)} in the target"
        elif kind_of(field) == "RECORD":
            yield from _misfits(names_of(given.get("fields") or ()), names_of(field["fields"]), f"{full}.")


def merge_fields(one: Sequence[Field], other: Sequence[Field], path: str = "") -> list[Field]:
    """Return the fields that hold the rows of two batches, whichever of them came first.

    :param one: fields of one batch.
    :param other: fields of another batch.
    :param path: path of the record that contains them.
    :raises SchemaError: no field holds both.
    """
    first, second = names_of(one), names_of(other)
    if first.keys() != second.keys():
        only = [
            f"{path}{each['name']}"
            for name, each in {**first, **second}.items()
            if name not in first or name not in second
        ]
        raise SchemaError(
            f"Only some batches have the columns {', '.join(sorted(only))}. Return the same columns for each."
        )
    # In an order that does not depend on the order of the batches.
    base = min((one, other), key=lambda fields: [str(field["name"]) for field in fields])
    return [_merged(first[name], second[name], f"{path}{field['name']}") for name, field in names_of(base).items()]


def _merged(one: Field, other: Field, path: str) -> Field:
    kinds, repeated = {kind_of(one), kind_of(other)}, {mode_of(one) == "REPEATED", mode_of(other) == "REPEATED"}
    known = [field for field in (one, other) if kind_of(field)]
    if len(known) < 2:
        found = dict(known[0] if known else one)
        # A column without any value may be an array as well.
        lists = [field for field in (one, other) if mode_of(field) == "REPEATED"]
        if lists and known and mode_of(known[0]) != "REPEATED":
            raise SchemaError(f"Column {path} is an array in some batches only. Set schema_fields.")
        return {**found, "name": min(str(one["name"]), str(other["name"])), "mode": "REPEATED" if lists else "NULLABLE"}
    if len(repeated) > 1:
        raise SchemaError(f"Column {path} is an array in some batches only. Set schema_fields.")
    kind = kinds.pop() if len(kinds) == 1 else _WIDER.get(frozenset(kinds))
    if kind is None:
        raise SchemaError(
            f"Column {path} is {' in some batches and '.join(sorted(kinds))} in others. Return one type, or set "
            "schema_fields."
        )
    found = {"name": min(str(one["name"]), str(other["name"])), "type": kind, "mode": mode_of(one)}
    if kind == "RECORD":
        found["fields"] = merge_fields(one["fields"], other["fields"], f"{path}.")
    return found


def adopt_source_types(fields: Sequence[Field], source: Sequence[Field]) -> list[Field]:
    """Return the fields with the source's types where the values alone do not tell them.

    JSON travels as text, a column without values has no type, and decimals may need fewer digits than their column
    has: a column of that name in the source says what they are.

    :param fields: fields of the rows.
    :param source: fields of the source.
    """
    known = names_of(source)
    return [_adopted(field, known.get(str(field["name"]).lower())) for field in fields]


def _adopted(field: Field, source: Field | None) -> Field:
    if source is None or kind_of(source) not in CARRIED:
        return field
    lists, kinds = (mode_of(field) == "REPEATED", mode_of(source) == "REPEATED"), (kind_of(field), kind_of(source))
    if not kinds[0] and (lists[0] == lists[1] or not lists[0]):
        return nullable({**source, "name": field["name"]})
    if lists[0] != lists[1]:
        return field
    if kinds in (("STRING", "JSON"), ("NUMERIC", "BIGNUMERIC")):
        return {**field, "type": kinds[1]}
    if kinds == ("RECORD", "RECORD"):
        return {**field, "fields": adopt_source_types(field["fields"], source["fields"])}
    return field


def nullable(field: Field) -> Field:
    """Return a field that allows NULL, at every depth."""
    found = {**field, "mode": "REPEATED" if mode_of(field) == "REPEATED" else "NULLABLE"}
    if field.get("fields"):
        found["fields"] = [nullable(each) for each in field["fields"]]
    return found
