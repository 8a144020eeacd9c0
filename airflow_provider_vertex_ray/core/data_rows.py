"""Rows of data that come with the package, and those that users add in an option of ``[vertex_ray]``."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from airflow_provider_vertex_ray.core.options import SECTION, option
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["NOTICE_DAYS", "added_text", "date_in", "read_rows", "rows_in"]

NOTICE_DAYS = 90
"""Days before something ends from which a warning tells."""


def added_text(name: str) -> str:
    """Return the JSON of the rows in an option: the option itself, or the content of the file that it names.

    :param name: name of the option
    :raises InvalidArgumentError: the file cannot be read
    """
    value = option(name)
    if not value or value.startswith("["):
        return value
    try:
        return _content(value, Path(value).stat().st_mtime_ns)
    except OSError as error:
        raise InvalidArgumentError(
            _field(name), value, f"Use a JSON list or the path of a JSON file: {error}."
        ) from None


@functools.lru_cache(maxsize=16)
def _content(path: str, changed: int) -> str:
    return Path(path).read_text("utf-8")


def rows_in(name: str, text: str, fields: Mapping[str, type], required: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows in the JSON of an option.

    :param name: name of the option
    :param text: the JSON; empty for no rows
    :param fields: type of each field
    :param required: fields that each row must have
    :raises InvalidArgumentError: it is not a list of such rows
    """
    if not text:
        return []
    rule = f"Use a JSON list of objects with {', '.join(required)}."
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(_field(name), text, f"{rule} The value is not valid JSON: {error}.") from None
    if not isinstance(found, list):
        raise InvalidArgumentError(_field(name), text, rule)
    for row in found:
        if not isinstance(row, dict) or any(key not in row for key in required):
            raise InvalidArgumentError(_field(name), row, rule)
        for key, value in row.items():
            if key not in fields:
                raise InvalidArgumentError(_field(name), row, f"The fields of a row are {', '.join(fields)}.")
            if value is not None and not isinstance(value, fields[key]):
                raise InvalidArgumentError(_field(name), row, f"The field {key} must be a {fields[key].__name__}.")
    return found


@functools.lru_cache(maxsize=4)
def read_rows(path: Path) -> tuple[dict[str, Any], ...]:
    """Return the rows of a file of this package."""
    return tuple(json.loads(path.read_text("utf-8")))


def date_in(name: str, row: Mapping[str, Any], key: str = "ends") -> date | None:
    """Return the day in a row, as ``2027-01-14``; None for none.

    :raises InvalidArgumentError: it is not a day
    """
    value = row.get(key)
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise InvalidArgumentError(_field(name), dict(row), f"Use a day such as 2027-01-14 for {key}.") from None


def _field(name: str) -> str:
    return f"[{SECTION}] {name}"
