"""How a new table is partitioned and clustered: what BigQuery would refuse is refused before the job.

The rules are those of BigQuery's REST API (tables, ``TimePartitioning``, ``RangePartitioning``, ``Clustering``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from airflow_provider_vertex_ray.core.checks import did_you_mean, has_template, is_whole, known_at_run_time
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.remote.bigquery.fields import Field, kind_of, mode_of, names_of

__all__ = ["check_layout", "check_layout_columns"]

PERIODS = ("HOUR", "DAY", "MONTH", "YEAR")
MOST_CLUSTER_FIELDS = 4
_TIMES = ("DATE", "DATETIME", "TIMESTAMP")
_CLUSTERED = (*_TIMES, "BIGNUMERIC", "BOOL", "GEOGRAPHY", "INT64", "NUMERIC", "RANGE", "STRING")


def check_layout(time_partitioning: Any, range_partitioning: Any, cluster_fields: Any) -> None:
    """Validate what can be validated without the table's columns; templates are left for later.

    :raises InvalidArgumentError: a key, a value or the number of columns is not one that BigQuery has
    """
    if isinstance(time_partitioning, Mapping):
        field = "time_partitioning"
        _check_keys(field, time_partitioning, ("type", "field", "expirationMs", "requirePartitionFilter"))
        _check_name(field, time_partitioning, required=False)
        period = time_partitioning.get("type")
        if not has_template(period) and period not in PERIODS:
            raise InvalidArgumentError(f"{field}['type']", period, f"Use one of {', '.join(PERIODS)}.")
        _check_whole(f"{field}['expirationMs']", time_partitioning.get("expirationMs"))
    if isinstance(range_partitioning, Mapping):
        field = "range_partitioning"
        _check_keys(field, range_partitioning, ("field", "range"))
        _check_name(field, range_partitioning, required=True)
        bounds = range_partitioning.get("range")
        if not isinstance(bounds, Mapping):
            raise InvalidArgumentError(f"{field}['range']", bounds, "Use a dict with start, end and interval.")
        _check_keys(f"{field}['range']", bounds, ("start", "end", "interval"))
        for key in ("start", "end", "interval"):
            _check_whole(f"{field}['range'][{key!r}]", bounds.get(key), required=True)
    if isinstance(cluster_fields, (list, tuple)):
        if len(cluster_fields) > MOST_CLUSTER_FIELDS:
            raise InvalidArgumentError(
                "cluster_fields", cluster_fields, f"Use at most {MOST_CLUSTER_FIELDS} columns, as BigQuery does."
            )
        for place, name in enumerate(cluster_fields):
            if not known_at_run_time(name) and not (isinstance(name, str) and name):
                raise InvalidArgumentError(f"cluster_fields[{place}]", name, "Use the name of a column.")


def _check_keys(field: str, given: Mapping[Any, Any], known: Collection[str]) -> None:
    for key in given:
        if key not in known:
            raise InvalidArgumentError(field, key, f"Use only the keys {', '.join(known)}.{did_you_mean(key, known)}")


def _check_name(field: str, given: Mapping[Any, Any], *, required: bool) -> None:
    name = given.get("field")
    if (name is not None or required) and not (isinstance(name, str) and name):
        raise InvalidArgumentError(f"{field}['field']", name, "Use the name of a column.")


def _check_whole(field: str, value: Any, *, required: bool = False) -> None:
    if (value is None and not required) or has_template(value) or is_whole(value):
        return
    # BigQuery's API writes 64-bit numbers as texts.
    if not (isinstance(value, str) and value.removeprefix("-").isdecimal() and value.isascii()):
        raise InvalidArgumentError(field, value, "Use a whole number.")


def check_layout_columns(layout: Mapping[str, Any], fields: Sequence[Field]) -> None:
    """Validate the columns of a new table's layout.

    :param layout: ``timePartitioning``, ``rangePartitioning`` and ``clustering``, as in the REST API
    :raises InvalidArgumentError: a column is missing, or BigQuery cannot partition or cluster by its type
    """
    time = layout.get("timePartitioning") or {}
    if time.get("field"):
        hourly = time.get("type") == "HOUR"
        kinds = [kind for kind in _TIMES if not (hourly and kind == "DATE")]
        _check_column("time_partitioning['field']", time["field"], fields, kinds)
    if (ranged := layout.get("rangePartitioning") or {}).get("field"):
        _check_column("range_partitioning['field']", ranged["field"], fields, ["INT64"])
    for place, name in enumerate((layout.get("clustering") or {}).get("fields") or ()):
        _check_column(f"cluster_fields[{place}]", name, fields, _CLUSTERED)


def _check_column(field: str, name: str, fields: Sequence[Field], kinds: Collection[str]) -> None:
    known = names_of(fields)
    column = known.get(str(name).lower())
    if column is None:
        names = [str(each["name"]) for each in fields]
        raise InvalidArgumentError(
            field, name, f"The table has no such column, but {', '.join(names)}.{did_you_mean(name, names)}"
        )
    if kind_of(column) not in kinds or mode_of(column) == "REPEATED":
        found = f"{mode_of(column)} {kind_of(column)}"
        raise InvalidArgumentError(
            field, name, f"Use a column of one of the types {', '.join(kinds)}, not REPEATED; this one is {found}."
        )
