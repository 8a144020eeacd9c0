"""Validate the parameters of a BigQuery step before any request is made, and prepare its transform for the cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_vertex_ray.core.function.class_source import class_payload
from airflow_provider_vertex_ray.core.function.source import function_source
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.remote.values import NotPlainError, encode

__all__ = [
    "check_source",
    "check_table",
    "check_target",
    "transform_payload",
]

BATCH_FORMATS = ("pandas", "pyarrow", "numpy")
WRITE_DISPOSITIONS = ("WRITE_EMPTY", "WRITE_TRUNCATE", "WRITE_APPEND")
CREATE_DISPOSITIONS = ("CREATE_IF_NEEDED", "CREATE_NEVER")

_TABLE = re.compile(r"(?:(?P<project>[a-z0-9.:-]+)\.)?(?P<dataset>[A-Za-z0-9_]+)\.(?P<table>[\w\- ]+)")
_DATASET = re.compile(r"(?:(?P<project>[a-z0-9.:-]+)\.)?(?P<dataset>[A-Za-z0-9_]+)")
_IMPORTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def check_table(field: str, value: Any, project: str | None = None) -> str:
    """Return the name of a table as ``project.dataset.table``.

    :param field: name of the argument, for the error
    :param value: name of the table
    :param project: project of a name without one
    :raises InvalidArgumentError: it is not the name of a table
    """
    rule = "Use the name of a table, as project.dataset.table or dataset.table."
    found = _TABLE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidArgumentError(field, value, rule)
    return f"{found['project'] or project}.{found['dataset']}.{found['table']}"


def check_target(field: str, value: Any, project: str | None = None) -> tuple[str, str | None]:
    """Return the name of a target table as ``project.dataset.table``, and the id of its partition.

    :param field: name of the argument, for the error
    :param value: name of the table, or of a partition of it (``dataset.table$20240501``)
    :param project: project of a name without one
    :raises InvalidArgumentError: it is not the name of a table or of a partition
    """
    name, dollar, partition = value.partition("$") if isinstance(value, str) else (value, "", "")
    if dollar and not re.fullmatch(r"\d+|__NULL__", partition):
        raise InvalidArgumentError(field, value, "Use a partition like dataset.table$20240501.")
    return check_table(field, name, project), partition or None


def check_dataset(field: str, value: Any, project: str | None = None) -> str:
    """Return the name of a dataset as ``project.dataset``.

    :param field: name of the argument, for the error
    :param value: name of the dataset
    :param project: project of a name without one
    :raises InvalidArgumentError: it is not the name of a dataset
    """
    found = _DATASET.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidArgumentError(field, value, "Use the name of a dataset, as project.dataset or dataset.")
    return f"{found['project'] or project}.{found['dataset']}"


def check_source(source_table: Any, query: Any, columns: Any, row_filter: Any) -> None:
    """Validate that a step has exactly one source.

    :param source_table: name of the source table
    :param query: the query
    :param columns: columns of the source table
    :param row_filter: filter of the source table
    :raises InvalidArgumentError: both sources or none are set, or columns or a filter are combined with a query
    """
    if query is not None and source_table is not None:
        raise InvalidArgumentError("query", query, "Set either query or source_table, not both.")
    if query is None and source_table is None:
        raise InvalidArgumentError("source_table", source_table, "Set either source_table or query.")
    if query is not None:
        if isinstance(query, str) and not query.strip():
            raise InvalidArgumentError("query", query, "Use a SELECT statement.")
        for field, value in (("columns", columns), ("row_filter", row_filter)):
            if value is not None:
                raise InvalidArgumentError(
                    field, value, "Use it with source_table only; select columns and rows in the query itself."
                )
    if isinstance(columns, (list, tuple)) and not columns:
        raise InvalidArgumentError("columns", columns, "Use the names of columns, or None for all columns.")


def transform_payload(transform: Any) -> tuple[dict[str, Any] | str | None, bool]:
    """Return what is sent to the cluster for a transform, and whether it is a class.

    :param transform: a function, a class, ``"module:name"`` of one in ``working_dir`` or ``py_modules``, or None. A
        name that begins with a capital letter counts as a class.
    :raises InvalidArgumentError: it cannot be sent to the cluster
    """
    if transform is None:
        return None, False
    if isinstance(transform, str):
        if not _IMPORTED.fullmatch(transform):
            raise InvalidArgumentError("transform", transform, "Use a function, a class, or 'module:name'.")
        return transform, transform.rpartition(":")[2].rpartition(".")[2][:1].isupper()
    try:
        if isinstance(transform, type):
            if "__call__" not in vars(transform):
                raise InvalidArgumentError("transform", transform, "Use a class with a method __call__(self, batch).")
            return class_payload(transform), True
        return function_source(transform, _no_decorator).payload(transform), False
    except InvalidArgumentError as error:
        if error.field == "transform":
            raise
        raise InvalidArgumentError(
            f"transform {error.field.removeprefix('@task.vertex_ray ')}", error.value, error.rule
        ) from None


def _no_decorator(value: Any) -> bool:
    return False


def map_arguments(given: Mapping[str, Any], *, is_class: bool) -> dict[str, Any]:
    """Return the arguments of ``ray.data.Dataset.map_batches`` as JSON, without those that are None.

    :param given: the arguments, by name
    :param is_class: whether the transform is a class
    :raises InvalidArgumentError: an argument is not JSON-serialisable, or does not fit the kind of transform
    """
    found = {}
    for name, value in given.items():
        if value is None:
            continue
        if name == "fn_constructor_kwargs" and not is_class:
            raise InvalidArgumentError(name, value, "Use it with a class only; the transform is not a class.")
        try:
            found[name] = encode(value, name)
        except NotPlainError as error:
            raise InvalidArgumentError(error.path, error.kind, error.rule) from None
    if is_class and "concurrency" not in found:
        raise InvalidArgumentError(
            "concurrency", None, "Set the number of actors of the class, as a number or as (minimum, maximum)."
        )
    return found
