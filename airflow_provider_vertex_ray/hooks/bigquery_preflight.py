"""Checks of a BigQuery step before its job is started: of the source, of the target, and of both together.

They look at what will run: a table is read by the Storage Read API, which has a grammar of its own, and a query fills a
table, so that its dry run is that of the very statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.function.bigquery_layout import check_layout_columns
from airflow_provider_vertex_ray.core.function.row_filter import needs_query
from airflow_provider_vertex_ray.errors import BigQueryTableError, InvalidArgumentError
from airflow_provider_vertex_ray.remote.bigquery.fields import (
    Field,
    SchemaError,
    check_carried,
    kind_of,
    mode_of,
    names_of,
    unfit,
)
from airflow_provider_vertex_ray.remote.bigquery.json_columns import has_json
from airflow_provider_vertex_ray.remote.bigquery.names import create_as, staging_prefix
from airflow_provider_vertex_ray.remote.bigquery.partition import partition_of

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.bigquery import VertexRayBigQueryHook

__all__ = ["check_source", "check_target"]

READ_DIRECTLY = ("TABLE", "SNAPSHOT")
"""Types of tables that the Storage Read API reads; views, for example, it does not."""

QUERIED = ("VIEW", "MATERIALIZED_VIEW", "EXTERNAL")

_COLUMN = re.compile(r"[^\W\d][\w &%=+:'<>#|-]*")
"""Names of columns, the flexible ones included (https://cloud.google.com/bigquery/docs/schemas#flexible-column-names)."""


@dataclass(frozen=True)
class _Source:
    """How a source is read.

    :param sql: the SELECT statement whose dry run says what reading bills.
    :param query: the statement that is run; None if the table is read directly.
    :param fields: columns that are read, if the table says so; else those of the dry run.
    """

    sql: str
    query: str | None
    columns: list[str] | None = None
    fields: list[Field] = field(default_factory=list)


def check_source(hook: VertexRayBigQueryHook, plan: dict[str, Any], notify: Callable[[str], None]) -> None:
    """Check the source, and add to the plan how it is read: ``query``, ``columns``, ``source_fields`` and ``told``.

    :param hook: the hook.
    :param plan: the plan of the step.
    :param notify: receives log lines for the user.
    :raises InvalidArgumentError: the query is not one SELECT statement with named columns, or a column does not exist.
    :raises BigQueryTableError: BigQuery rejects the source, or it has a type that the step does not carry.
    :raises BytesBilledLimitError: reading would bill too many bytes.
    """
    source = _table_source(hook, plan, notify) if plan["source_table"] else _Source(plan["query"], plan["query"])
    found = hook.source(source.sql, plan["location"], plan["maximum_bytes_billed"])
    given = ("row_filter", plan["row_filter"]) if plan["source_table"] else ("query", plan["query"])
    if found.statement_type not in (None, "SELECT"):
        raise InvalidArgumentError(*given, f"Use one SELECT statement; this is {found.statement_type}.")
    if source.query is not None:
        names = [str(each["name"]) for each in found.fields]
        for name in names:
            unnamed = re.fullmatch(r"f\d+_", name) and name not in source.query
            if unnamed or not _COLUMN.fullmatch(name) or [each.lower() for each in names].count(name.lower()) > 1:
                raise InvalidArgumentError(*given, f"Give each column a name of its own with AS; one is {name!r}.")
        scratch = f"{plan['staging_dataset']}.{staging_prefix('')}dry_run"
        # The statement that will run: what it says of its columns or its rights is known before the job starts.
        hook.source(create_as(scratch, source.query, "9999-12-31 00:00:00+00"), plan["location"], None)
    fields = source.fields or found.fields
    _carried(fields, f"the source {plan['source_table'] or 'query'}")
    tables = [plan["source_table"]] if plan["source_table"] and not found.tables else found.tables
    plan["told"] = {"bytes_processed": found.bytes_processed, "source_tables": tables}
    plan["source_fields"] = fields
    plan["query"], plan["columns"] = source.query, source.columns


def _table_source(hook: VertexRayBigQueryHook, plan: dict[str, Any], notify: Callable[[str], None]) -> _Source:
    name, row_filter = plan["source_table"], plan["row_filter"]
    table = hook.table(name)
    if table is None:
        raise BigQueryTableError(f"BigQuery rejected the source: Table {name} does not exist.")
    kind = str(table.get("type") or "TABLE")
    if kind not in (*READ_DIRECTLY, *QUERIED):
        raise BigQueryTableError(f"source_table: {name} is a {kind}, which has no rows to read.")
    if table.get("requirePartitionFilter") and not row_filter:
        raise InvalidArgumentError(
            "row_filter", row_filter, f"Set it to a condition on the partitions of {name}, which requires one."
        )
    fields = (table.get("schema") or {}).get("fields") or []
    if not fields:
        raise BigQueryTableError(f"source_table: {name} has no columns.")
    columns = _columns(plan["columns"], fields)
    selected = ", ".join(".".join(f"`{part}`" for part in column.split(".")) for column in columns or ()) or "*"
    where = f" WHERE (\n{row_filter}\n)" if row_filter else ""
    sql = f"SELECT {selected} FROM `{name}`{where}"  # noqa: S608 (the user's own condition)
    reason = None if kind in READ_DIRECTLY else f"is a {kind}"
    if reason is None and row_filter:
        beyond = needs_query(row_filter, fields)
        reason = f"is filtered with {beyond!r}, which the Storage Read API may not take" if beyond else None
    if reason is None:
        return _Source(sql, None, columns, _selected(columns, fields))
    if any("." in column for column in columns or ()):
        raise InvalidArgumentError(
            "columns", plan["columns"], f"Use whole columns: {name} {reason}, so that a query reads it."
        )
    notify(f"Reading {name} through a query, because it {reason}")
    return _Source(sql, sql)


def _columns(columns: Sequence[str] | None, fields: Sequence[Field]) -> list[str] | None:
    """Return the columns to read by their own names."""
    if not columns:
        return None
    found = []
    for column in columns:
        inside, parts = fields, []
        for part in str(column).split("."):
            each = names_of(inside).get(part.lower())
            if each is None:
                known = ", ".join(str(other["name"]) for other in inside)
                raise InvalidArgumentError("columns", column, f"The source has no column {part!r}, but {known}.")
            parts.append(str(each["name"]))
            inside = each.get("fields") or ()
        found.append(".".join(parts))
    if len(set(found)) < len(found):
        raise InvalidArgumentError("columns", columns, "Name each column once.")
    return found


def _selected(columns: Sequence[str] | None, fields: Sequence[Field]) -> list[Field]:
    """Return the fields that the Storage Read API returns for the selected columns."""
    if columns is None:
        return list(fields)
    found = []
    for each in fields:
        name = str(each["name"])
        inner = [column.partition(".")[2] for column in columns if column.partition(".")[0] == name]
        if not inner:
            continue
        found.append(each if "" in inner else {**each, "fields": _selected(inner, each.get("fields") or ())})
    return found


def _carried(fields: Sequence[Field], what: str) -> None:
    try:
        check_carried(fields)
    except SchemaError as error:
        raise BigQueryTableError(f"{what}: {error}") from None


def check_target(
    hook: VertexRayBigQueryHook, plan: dict[str, Any], partition: str | None, given: dict[str, tuple[str, Any]]
) -> None:
    """Check the target, and add its properties to the plan: ``fields``, ``layout`` and ``partition``.

    :param hook: the hook.
    :param plan: the plan of the step, after ``check_source``.
    :param partition: id of the partition that is the target; None for the whole table.
    :param given: ``schema``, ``timePartitioning``, ``rangePartitioning`` and ``clustering``, each with the name of the
        operator's parameter and its value.
    :raises InvalidArgumentError: the target has other columns, or another layout, than the given ones.
    :raises BigQueryTableError: the target is not as the step needs it.
    """
    name, disposition = plan["target"], plan["write_disposition"]
    target = hook.table(name)
    if target is None and (plan["create_disposition"] == "CREATE_NEVER" or partition):
        reason = (
            "a partition can only be written in an existing table"
            if partition
            else "create_disposition is CREATE_NEVER"
        )
        raise BigQueryTableError(f"target_table: {name} does not exist, and {reason}.")
    if target is not None and str(target.get("type") or "TABLE") != "TABLE":
        raise BigQueryTableError(f"target_table: {name} is a {target['type']}, which cannot be written.")
    filled = target is not None and not partition and int(target.get("numRows") or 0) > 0
    # The job of an earlier try may still run and have published its rows meanwhile.
    if filled and disposition == "WRITE_EMPTY" and not hook.published(plan["publish_id"], plan["location"]):
        raise BigQueryTableError(f"target_table: {name} has rows, and write_disposition is WRITE_EMPTY.")
    plan["layout"] = _layout(target, given)
    if partition:
        try:
            plan["partition"] = partition_of(target or {}, partition)
        except SchemaError as error:
            raise InvalidArgumentError("target_table", f"{name}${partition}", str(error)) from None
    own = ((target or {}).get("schema") or {}).get("fields") or []
    _, declared = given["schema"]
    replaced = disposition == "WRITE_TRUNCATE" and not partition
    if declared and (replaced or not own):
        plan["fields"], plan["fields_said_by"] = [dict(each) for each in declared], "schema_fields"
    elif own:
        if declared and (other := _differing(declared, own, "")):
            raise InvalidArgumentError("schema_fields", declared, f"Use the columns of {name}, which exists: {other}.")
        plan["fields"], plan["fields_said_by"] = own, f"the table {name}"
    elif plan["transform"] is None:
        plan["fields"], plan["fields_said_by"] = plan["source_fields"], "the source"
    if plan["fields"] is None:
        return
    if target is None:
        check_layout_columns(plan["layout"], plan["fields"])
    _carried(plan["fields"], plan["fields_said_by"])
    if plan["partition"] and not plan["partition"]["field"] and has_json(plan["fields"]):
        raise InvalidArgumentError(
            "target_table",
            f"{name}${partition}",
            "Use a table that is partitioned by a column: JSON cannot be loaded into a partition by ingestion time.",
        )
    misfit = plan["transform"] is None and unfit(plan["source_fields"], plan["fields"])
    if misfit:
        raise BigQueryTableError(
            f"target_table: the rows of the source do not fit {plan['fields_said_by']}: {misfit}. Use a transform, a "
            "query that converts the columns, or schema_fields."
        )


def _differing(declared: Sequence[Field], own: Sequence[Field], path: str) -> str | None:
    """Return in what declared fields differ from those of a table; None if in nothing."""
    given, there = names_of(declared), names_of(own)
    for name in [*there, *given]:
        full = f"{path}{name}"
        if name not in given or name not in there:
            return f"it has {'no' if name not in there else 'a'} column {full}"
        one, other = given[name], there[name]
        if kind_of(one) != kind_of(other) or (mode_of(one) == "REPEATED") != (mode_of(other) == "REPEATED"):
            return f"{full} is {mode_of(other)} {kind_of(other)} there"
        inner = _differing(one.get("fields") or (), other.get("fields") or (), f"{full}.")
        if inner:
            return inner
    return None


def _layout(target: dict[str, Any] | None, given: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """Return partitioning and clustering: as given, else those of the target."""
    found = {}
    for key in ("timePartitioning", "rangePartitioning", "clustering"):
        name, value = given[key]
        there = (target or {}).get(key)
        if value and target is not None and not _agrees(value, there):
            raise InvalidArgumentError(
                name, value, f"Remove it: the target table exists and has {there or 'none'}, which cannot change."
            )
        if value or there:
            found[key] = there or value
    if (target or {}).get("requirePartitionFilter"):
        found["requirePartitionFilter"] = True
    return found


def _agrees(wanted: Any, there: Any) -> bool:
    """Return whether a value is as wanted; the API returns whole numbers as texts."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_agrees(value, there.get(key)) for key, value in wanted.items())
    if isinstance(wanted, (list, tuple)):
        return isinstance(there, list) and len(wanted) == len(there) and all(map(_agrees, wanted, there))
    if wanted is None or wanted is False:
        return there is None or there is False
    return str(wanted).lower() == str(there).lower()
