"""The checks of arguments that all validation is built from.

A value that is not known at DAG parse time, because Jinja renders it later or another task returns it, passes a check
only if its docstring says so.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    import re

T = TypeVar("T")

__all__ = [
    "LONGEST_SECONDS",
    "MISSING_RULE",
    "check_choice",
    "check_duration",
    "check_flag",
    "check_match",
    "check_text",
    "check_whole",
    "everything_known",
    "find_templates",
    "has_template",
    "is_carried",
    "is_everything_known",
    "is_number",
    "is_one_of",
    "is_whole",
    "known_at_run_time",
    "refuse_templates",
    "unless_empty",
]

MISSING_RULE = (
    "The template was rendered to None: the XCom, parameter or variable that it names does not exist. Check the "
    "task_ids and the key of xcom_pull, and that the task that pushes it has run."
)
"""Rule for a value that is the text of a missing one."""


LONGEST_SECONDS = 10**9
"""Longest duration, about 30 years; the end of a much longer one is no date."""


def has_template(value: object) -> TypeGuard[str]:
    """Tell whether ``value`` is a string that Jinja has still to render, so that its format is unknown.

    While the task runs, none is: what a template was rendered to is the value, even if it contains braces.
    """
    return not _all_known.get() and _has_braces(value)


def _has_braces(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def find_templates(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and text of every string inside ``value`` that looks as if Jinja had still to render it."""
    if _has_braces(value):
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
    """Validate that nothing inside ``value`` has still to be rendered.

    :raises InvalidArgumentError: ``value`` contains a template
    """
    for place, text in find_templates(value, path):
        raise InvalidArgumentError(place, text, "The value contains a template that was not rendered.")


_all_known: ContextVar[bool] = ContextVar("vertex_ray_all_known", default=False)


@contextmanager
def everything_known() -> Iterator[None]:
    """While a task runs, its arguments are rendered: braces in a string are no template any longer."""
    token = _all_known.set(True)
    try:
        yield
    finally:
        _all_known.reset(token)


def is_everything_known() -> bool:
    """Tell whether the arguments of the current task are rendered."""
    return _all_known.get()


def known_at_run_time(value: object) -> bool:
    """Tell whether ``value`` is known only when the task runs: it contains a template, or refers to an XCom."""
    return has_template(value) or (not _all_known.get() and hasattr(value, "iter_references"))


def is_carried(value: object) -> TypeGuard[str]:
    """Tell whether ``value`` is a string that a command, a variable or a request can carry: no NUL, valid Unicode."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether ``value`` is a finite number; a boolean is not one."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def is_one_of(value: object, choices: Container[str]) -> bool:
    """Tell whether ``value`` is one of several strings; it may be anything, such as a list, which has no hash."""
    return isinstance(value, str) and value in choices


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether ``value`` is a whole number that 64 bits hold; a boolean is not one.

    No event, database or request carries larger ones.
    """
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def unless_empty(value: T) -> T | None:
    """Return the value, and None instead of an empty string, list, tuple or dict.

    An argument may be anything, such as an array, which refuses to be tested with ``or``.
    """
    return None if isinstance(value, (str, list, tuple, Mapping)) and not value else value


def check_choice(field: str, value: object, choices: Collection[str]) -> None:
    """Validate that a value is one of several strings.

    :param field: name of the argument, for the error
    :param value: the value
    :param choices: the strings
    :raises InvalidArgumentError: it is not one of them
    """
    if not is_one_of(value, choices):
        raise InvalidArgumentError(field, value, f"Use one of {', '.join(choices)}.")


def check_duration(field: str, value: object, *, none_allowed: bool = True) -> None:
    """Validate that a duration in seconds is positive, and not longer than any clock can add.

    :param field: name of the argument, for the error
    :param value: the duration
    :param none_allowed: whether None passes
    :raises InvalidArgumentError: the duration is not a number above 0 and up to ``LONGEST_SECONDS``
    """
    if (value is None and none_allowed) or (is_number(value) and 0 < value <= LONGEST_SECONDS):
        return
    rule = f"Use a positive number of seconds up to {LONGEST_SECONDS:,}"
    raise InvalidArgumentError(field, value, f"{rule}, or None." if none_allowed else f"{rule}.")


def check_flag(field: str, value: object) -> None:
    """Validate that ``value`` is True or False.

    :raises InvalidArgumentError: it is anything else, such as 1 or None
    """
    if not isinstance(value, bool):
        raise InvalidArgumentError(field, value, "Use True or False.")


def check_whole(field: str, value: object, low: int, high: int | None, rule: str) -> None:
    """Validate that ``value`` is a whole number within bounds; a template passes.

    :param field: name of the argument, for the error
    :param value: the number; a boolean is not one
    :param low: the smallest number that passes
    :param high: the largest number that passes; None for no limit
    :param rule: what to use instead, for the error; states both the kind of number and the bounds
    :raises InvalidArgumentError: it is not a whole number, or it is out of bounds
    """
    if has_template(value):
        return
    if not is_whole(value) or value < low or (high is not None and value > high):
        raise InvalidArgumentError(field, value, rule)


def check_text(field: str, value: object, *, required: bool = False) -> None:
    """Validate that ``value`` is a non-empty string; a template passes.

    :param field: name of the argument, for the error
    :param value: the string; one of white space only counts as empty
    :param required: whether None fails
    :raises InvalidArgumentError: it is not a string, or it is empty
    """
    if value is None and not required:
        return
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgumentError(field, value, "Use a non-empty string.")


def check_match(field: str, value: object, pattern: re.Pattern[str], rule: str, *, required: bool = False) -> None:
    """Validate that a string matches ``pattern`` as a whole; a template passes.

    :param field: name of the argument, for the error
    :param value: the string
    :param pattern: the pattern
    :param rule: what to use instead, for the error
    :param required: whether None fails
    :raises InvalidArgumentError: it is not a string, or it does not match
    """
    if has_template(value) or (value is None and not required):
        return
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidArgumentError(field, value, rule)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a question for the end of an error about an unknown name, with a space before it; empty if none is close.

    :param name: the unknown name
    :param known: the names that are known, in the order of preference
    """
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f" Did you mean {close[0]}?" if close else ""
