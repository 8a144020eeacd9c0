"""A partition of a table as a target: ``project.dataset.table$20240501``."""

from __future__ import annotations

import datetime
from typing import Any

from .fields import SchemaError, kind_of, names_of

__all__ = ["check_rows", "delete_statement", "partition_of"]

_FORMATS = {"HOUR": "%Y%m%d%H", "DAY": "%Y%m%d", "MONTH": "%Y%m", "YEAR": "%Y"}
"""Partition ids of time-partitioned tables (https://cloud.google.com/bigquery/docs/partitioned-tables)."""


def partition_of(table: dict[str, Any], partition: str) -> dict[str, Any]:
    """Return a partition as part of a plan: ``id``, ``field``, ``kind``, ``low`` and ``high``.

    :param table: the table, as in the REST API.
    :param partition: the id after the ``$``.
    :raises SchemaError: the table has no such partition.
    """
    by_time, by_range = table.get("timePartitioning"), table.get("rangePartitioning")
    if not by_time and not by_range:
        raise SchemaError("The table is not partitioned.")
    name = (by_time or by_range or {}).get("field")
    column = names_of((table.get("schema") or {}).get("fields") or ()).get(str(name).lower())
    found: dict[str, Any] = {"id": partition, "field": name, "kind": kind_of(column) if column else "TIMESTAMP"}
    if partition == "__NULL__" and name:
        return {**found, "low": None, "high": None}
    if by_range:
        return {**found, **_range_bounds(by_range["range"], partition)}
    unit = str((by_time or {}).get("type") or "DAY").upper()
    try:
        low = datetime.datetime.strptime(partition, _FORMATS[unit])  # noqa: DTZ007 (a partition has no time zone)
        if low.strftime(_FORMATS[unit]) != partition:
            raise ValueError
    except ValueError:
        example = datetime.datetime(2024, 5, 1, 13).strftime(_FORMATS[unit])  # noqa: DTZ001
        raise SchemaError(
            f"The table is partitioned by {unit}, so that its partitions have ids like {example}."
        ) from None
    return {**found, "low": low.isoformat(" "), "high": _next(low, unit)}


def _next(low: datetime.datetime, unit: str) -> str:
    if unit in ("HOUR", "DAY"):
        step = datetime.timedelta(hours=1) if unit == "HOUR" else datetime.timedelta(days=1)
        last = low + step - datetime.timedelta(microseconds=1)
    elif unit == "MONTH":
        days = (low.replace(day=28) + datetime.timedelta(days=4)).replace(day=1) - datetime.timedelta(days=1)
        last = days.replace(hour=23, minute=59, second=59, microsecond=999999)
    else:
        last = datetime.datetime(low.year, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001
    # The last moment, because the first one after the year 9999 does not exist.
    return last.isoformat(" ")


def _range_bounds(wanted: dict[str, Any], partition: str) -> dict[str, Any]:
    start, end, step = (int(wanted[key]) for key in ("start", "end", "interval"))
    try:
        low = int(partition)
    except ValueError:
        low = start - 1
    if not start <= low < end or (low - start) % step:
        raise SchemaError(f"The table's partitions have the ids {start}, {start + step}, … below {end}.")
    return {"low": low, "high": min(low + step, end) - 1}


def _literal(partition: dict[str, Any], bound: Any) -> str:
    kind = partition["kind"]
    if isinstance(bound, int):
        return str(bound)
    if kind == "DATE":
        return f"DATE '{bound[:10]}'"
    return f"{kind} '{bound}{'+00' if kind == 'TIMESTAMP' else ''}'"


def delete_statement(table: str, partition: dict[str, Any]) -> str:
    """Return the statement that empties a partition.

    :param table: the table, without the partition.
    :param partition: from ``partition_of``.
    """
    column = f"`{partition['field']}`" if partition["field"] else "_PARTITIONTIME"
    if partition["low"] is None:
        return f"DELETE FROM `{table}` WHERE {column} IS NULL"  # noqa: S608 (names and literals of our own)
    low, high = _literal(partition, partition["low"]), _literal(partition, partition["high"])
    return f"DELETE FROM `{table}` WHERE {column} BETWEEN {low} AND {high}"  # noqa: S608


def check_rows(table: Any, partition: dict[str, Any]) -> None:
    """Validate that all rows belong to the partition; rows have no place of their own in a table by ingestion time.

    :param table: a ``pyarrow.Table`` that conforms to the target.
    :param partition: from ``partition_of``.
    :raises SchemaError: a row belongs to another partition; the error names it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not partition["field"] or not table.num_rows:
        return
    name = next(each for each in table.column_names if each.lower() == partition["field"].lower())
    column = table.column(name)
    if partition["low"] is None:
        inside = column.is_null()
    else:
        low, high = (_scalar(partition, partition[key], column.type) for key in ("low", "high"))
        inside = pc.fill_null(pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high)), False)
    if not pc.all(inside).as_py():
        place = pc.index(inside, pa.scalar(False)).as_py()
        raise SchemaError(
            f"Column {name!r} (row {place} of the batch, value {column[place].as_py()!r}) is outside of the partition "
            f"{partition['id']} of the target."
        )


def _scalar(partition: dict[str, Any], bound: Any, kind: Any) -> Any:
    import pyarrow as pa

    if isinstance(bound, int):
        return pa.scalar(bound, kind)
    moment = datetime.datetime.fromisoformat(bound)
    if partition["kind"] == "DATE":
        return pa.scalar(moment.date(), kind)
    return pa.scalar(moment.replace(tzinfo=datetime.timezone.utc if partition["kind"] == "TIMESTAMP" else None), kind)
