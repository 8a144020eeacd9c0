"""The few checks that all rules of a spec are made of. Each passes a value that Jinja has still to render."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, TypeGuard

from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    import re

__all__ = [
    "check_duration",
    "check_flag",
    "check_match",
    "check_text",
    "check_whole",
    "find_templates",
    "has_template",
    "is_number",
    "is_whole",
    "known_at_run_time",
    "refuse_templates",
]


def has_template(value: object) -> TypeGuard[str]:
    """Tell whether ``value`` is a string that Jinja has still to render, so that its format is unknown."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def find_templates(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and text of every string inside ``value`` that Jinja has still to render."""
    if has_template(value):
        yield path, value
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from find_templates(getattr(value, item.name), f"{path}.{item.name}" if path else item.name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from find_templates(key, f"{path}.{key}")
            yield from find_templates(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from find_templates(item, f"{path}[{place}]")


def refuse_templates(value: object, path: str = "") -> None:
    """Raise InvalidArgumentError if Jinja has still to render something inside ``value``."""
    for place, text in find_templates(value, path):
        raise InvalidArgumentError(place, text, "a template in it was not rendered")


def known_at_run_time(value: object) -> bool:
    """Tell whether ``value`` is known only when the task runs: it is a template, or refers to an XCom."""
    return has_template(value) or hasattr(value, "iter_references")


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether ``value`` is a finite number; a boolean is not one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether ``value`` is a whole number; a boolean is not one."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_duration(field: str, value: object, *, none_allowed: bool = True) -> None:
    """Validate that a duration in seconds is positive.

    :raises InvalidArgumentError: It is not; names the field and the value.
    """
    if (value is None and none_allowed) or (is_number(value) and value > 0):
        return
    raise InvalidArgumentError(
        field, value, "Use a positive number of seconds" + (" or None." if none_allowed else ".")
    )


def check_flag(field: str, value: object) -> None:
    """Refuse all but True and False."""
    if not isinstance(value, bool):
        raise InvalidArgumentError(field, value, "give True or False")


def check_whole(field: str, value: object, low: int, high: int | None, rule: str) -> None:
    """Refuse all but whole numbers from ``low`` to ``high``; True and False are no numbers."""
    if has_template(value):
        return
    if not is_whole(value):
        raise InvalidArgumentError(field, value, f"give a whole number: {rule}")
    if value < low or (high is not None and value > high):
        raise InvalidArgumentError(field, value, rule)


def check_text(field: str, value: object, *, required: bool = False) -> None:
    """Refuse all but texts with something in them, and None unless ``required``."""
    if value is None and not required:
        return
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgumentError(field, value, "give a text that is not empty")


def check_match(field: str, value: object, pattern: re.Pattern[str], rule: str, *, required: bool = False) -> None:
    """Refuse all but texts that match ``pattern`` as a whole, and None unless ``required``."""
    if has_template(value) or (value is None and not required):
        return
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidArgumentError(field, value, rule)
