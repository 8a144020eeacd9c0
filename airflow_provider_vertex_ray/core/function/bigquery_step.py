"""What a user says of a BigQuery step, judged before anything is asked, and the plan that the cluster gets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.core.function.class_source import class_payload
from airflow_provider_vertex_ray.core.function.source import function_source
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.remote.runner import NotPlainError, plain

__all__ = [
    "check_choice",
    "check_source",
    "check_table",
    "transform_payload",
]

BATCH_FORMATS = ("pandas", "pyarrow", "numpy")
WRITE_DISPOSITIONS = ("WRITE_EMPTY", "WRITE_TRUNCATE", "WRITE_APPEND")
CREATE_DISPOSITIONS = ("CREATE_IF_NEEDED", "CREATE_NEVER")

_TABLE = re.compile(r"(?:(?P<project>[a-z0-9.:-]+)\.)?(?P<dataset>[A-Za-z0-9_]+)\.(?P<table>[\w\- ]+)")
_DATASET = re.compile(r"(?:(?P<project>[a-z0-9.:-]+)\.)?(?P<dataset>[A-Za-z0-9_]+)")
_IMPORTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def check_table(field: str, value: Any, project: str | None = None) -> str:
    """The table as ``project.dataset.table``.

    :param project: The project of a table without one.
    :raises InvalidArgumentError: It is no name of a table.
    """
    rule = "give a table as project.dataset.table or dataset.table"
    found = _TABLE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidArgumentError(field, value, rule)
    return f"{found['project'] or project}.{found['dataset']}.{found['table']}"


def check_dataset(field: str, value: Any, project: str | None = None) -> str:
    """The dataset as ``project.dataset``.

    :raises InvalidArgumentError: It is no name of a dataset.
    """
    found = _DATASET.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidArgumentError(field, value, "give a dataset as project.dataset or dataset")
    return f"{found['project'] or project}.{found['dataset']}"


def check_source(source_table: Any, query: Any, columns: Any, row_filter: Any) -> None:
    """Refuse anything but one source.

    :raises InvalidArgumentError: Both or none are given, or columns of a query.
    """
    if query is not None and source_table is not None:
        raise InvalidArgumentError("query", query, "source_table is given too; a step reads one of them")
    if query is None and source_table is None:
        raise InvalidArgumentError("source_table", source_table, "give source_table, or query")
    if query is not None:
        if isinstance(query, str) and not query.strip():
            raise InvalidArgumentError("query", query, "give a SELECT statement")
        for field, value in (("columns", columns), ("row_filter", row_filter)):
            if value is not None:
                raise InvalidArgumentError(field, value, "it is for source_table; let the query select what is needed")
    if isinstance(columns, (list, tuple)) and not columns:
        raise InvalidArgumentError("columns", columns, "give the names of columns, or None for all")


def check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a word that is none of these; a template passes.

    :raises InvalidArgumentError: Names the choices.
    """
    if value not in choices and not has_template(value):
        raise InvalidArgumentError(field, value, f"give one of {', '.join(choices)}")


def check_count(field: str, value: Any) -> None:
    """Refuse what is neither None nor a whole number above 0.

    :raises InvalidArgumentError: Names the field.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidArgumentError(field, value, "give a whole number above 0, or None")


def transform_payload(transform: Any) -> tuple[dict[str, Any] | str | None, bool]:
    """What travels of a transform, and whether it is a class.

    :param transform: A function, a class, ``"module:name"`` of one that is in ``working_dir`` or ``py_modules``, or
        None. A name that begins with a capital letter is taken for a class.
    :raises InvalidArgumentError: It can not travel.
    """
    if transform is None:
        return None, False
    if isinstance(transform, str):
        if not _IMPORTED.fullmatch(transform):
            raise InvalidArgumentError("transform", transform, "give a function, a class, or 'module:name'")
        return transform, transform.rpartition(":")[2].rpartition(".")[2][:1].isupper()
    try:
        if isinstance(transform, type):
            if "__call__" not in vars(transform):
                raise InvalidArgumentError("transform", transform, "the class needs a method __call__(self, batch)")
            return class_payload(transform), True
        return function_source(transform, _nothing).payload(transform), False
    except InvalidArgumentError as error:
        if error.field == "transform":
            raise
        raise InvalidArgumentError(
            f"transform {error.field.removeprefix('@task.vertex_ray ')}", error.value, error.rule
        ) from None


def _nothing(value: Any) -> bool:
    return False


def map_arguments(given: Mapping[str, Any], *, is_class: bool) -> dict[str, Any]:
    """Arguments of ``ray.data.Dataset.map_batches``, as JSON; those that are None are left out.

    :raises InvalidArgumentError: One is no JSON, or an argument for a class without one.
    """
    found = {}
    for name, value in given.items():
        if value is None:
            continue
        if name == "fn_constructor_kwargs" and not is_class:
            raise InvalidArgumentError(name, value, "the transform is no class")
        try:
            found[name] = plain(value, name)
        except NotPlainError as error:
            raise InvalidArgumentError(error.path, error.kind, error.rule) from None
    if is_class and "concurrency" not in found:
        raise InvalidArgumentError("concurrency", None, "a class needs the number of its actors, or (fewest, most)")
    return found


def later(value: Any) -> bool:
    """Whether a value is known only when the task runs."""
    return has_template(value) or hasattr(value, "iter_references")


Transform = str | type | Callable[..., Any]
