"""JSON columns: BigQuery loads none from Parquet, so they are staged as texts, and parsed into a second table."""

from __future__ import annotations

from collections.abc import Sequence

from .fields import Field, kind_of, mode_of

__all__ = ["has_json", "insert_statement", "loaded_fields"]


def has_json(fields: Sequence[Field]) -> bool:
    """Return whether a field is JSON, at any depth."""
    return any(kind_of(field) == "JSON" or has_json(field.get("fields") or ()) for field in fields)


def loaded_fields(fields: Sequence[Field]) -> list[Field]:
    """Return the fields as they are loaded: JSON as STRING."""
    found = []
    for field in fields:
        loaded = {**field, "type": "STRING"} if kind_of(field) == "JSON" else dict(field)
        if field.get("fields"):
            loaded["fields"] = loaded_fields(field["fields"])
        found.append(loaded)
    return found


def insert_statement(source: str, target: str, fields: Sequence[Field]) -> str:
    """Return the statement that copies loaded rows into a table with the fields themselves.

    :param source: the table that was loaded.
    :param target: an empty table with ``fields``.
    :param fields: the fields.
    """
    names = ", ".join(f"`{field['name']}`" for field in fields)
    values = ", ".join(_parsed(field, f"loaded.`{field['name']}`", 0) for field in fields)
    return f"INSERT INTO `{target}` ({names})\nSELECT {values}\nFROM `{source}` AS loaded"


def _parsed(field: Field, value: str, depth: int) -> str:
    if not has_json([field]):
        return value
    if mode_of(field) == "REPEATED":
        item = f"item{depth}"
        inner = _parsed({**field, "mode": "NULLABLE"}, item, depth + 1)
        return f"ARRAY(SELECT {inner} FROM UNNEST({value}) AS {item} WITH OFFSET AS place{depth} ORDER BY place{depth})"  # noqa: S608
    if kind_of(field) == "JSON":
        # Numbers that JSON columns cannot hold exactly are errors.
        return f"PARSE_JSON({value}, wide_number_mode => 'exact')"
    parsed = {each["name"]: _parsed(each, f"{value}.`{each['name']}`", depth) for each in field["fields"]}
    parts = ", ".join(f"{text} AS `{name}`" for name, text in parsed.items())
    return f"IF({value} IS NULL, NULL, STRUCT({parts}))"
