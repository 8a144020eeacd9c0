"""Filters of Cloud Logging and Cloud Monitoring.

Supported are comparisons of a field with ``=``, ``!=``, ``:`` (contains), ``=~``, ``!~``, ``<``, ``<=``, ``>`` and
``>=``, joined by AND (or a line break), OR and NOT (or ``-``), with parentheses, also around values:
``severity=(ERROR OR WARNING)``. As in Cloud Logging, OR has a higher precedence than AND, and only regular expressions
are case-sensitive.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Any

from vertex_ray_emulator.google.filters import Grammar, Test
from vertex_ray_emulator.wire.errors import invalid

SEVERITIES = {
    "DEFAULT": 0, "DEBUG": 100, "INFO": 200, "NOTICE": 300, "WARNING": 400, "ERROR": 500, "CRITICAL": 600,
    "ALERT": 700, "EMERGENCY": 800,
}  # fmt: skip
Read = Callable[[Any], "str | float | None"]
"""Reads a field of a resource; returns None if the resource does not have it."""

# A field may have parts in quotes after a dot, such as labels."ml.googleapis.com/ray_cluster_id".
_TOKEN = re.compile(
    r'\s*(?:(?P<mark>[()]|>=|<=|!=|=~|!~|=|:|<|>)|"(?P<quoted>(?:[^"\\]|\\.)*)"'
    r'|(?P<bare>-(?=[\s(]|[A-Za-z])|(?:[^\s()"=:<>!]|(?<=\.)"(?:[^"\\]|\\.)*")+))'
)
_PART = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."]+)')
_ORDERS = (">", ">=", "<", "<=")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:?\d\d))?")


def parse_time(text: str) -> float | None:
    """Parse an RFC 3339 time to a Unix time, or return None if it is invalid. A date means its beginning in UTC."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    # Google's client for Cloud Logging omits the colon in a UTC offset.
    zone = "+00:00" if (zone or "Z") in "Zz" else f"{zone[:3]}:{zone[-2:]}"
    try:
        moment = datetime.datetime.fromisoformat(f"{day}T{clock or '00:00:00'}{zone}")
    except ValueError:
        return None
    return moment.timestamp() + float(f"0{fraction}" if fraction else 0)


def parse(text: str, fields: Callable[[tuple[str, ...]], Read | None], *, times: frozenset[str] = frozenset()) -> Test:
    """Compile a filter to a test of a resource.

    :param text: the filter; an empty one matches every resource.
    :param fields: returns the function that reads the field with a path, such as
        ``("resource", "labels", "location")``, or None for an unknown field.
    :param times: the fields with times; their functions return Unix times.
    :raises ApiError: INVALID_ARGUMENT for invalid syntax or an unknown field.
    """
    if not text.strip():
        return lambda resource: True
    return _Parser(text, fields, times).parse()


def read_path(path: tuple[str, ...]) -> Read:
    """Return a function that reads a field of a nested mapping."""

    def read(resource: Any) -> str | float | None:
        for part in path:
            if not isinstance(resource, Mapping) or part not in resource:
                return None
            resource = resource[part]
        return resource if isinstance(resource, (str, int, float)) else None

    return read


class _Parser(Grammar):
    def __init__(
        self, text: str, fields: Callable[[tuple[str, ...]], Read | None], times: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(text, _TOKEN)
        self._fields, self._times = fields, times
        self._tokens = [("bare", "NOT") if token == ("bare", "-") else token for token in self._tokens]

    def _problem(self, reason: str) -> Exception:
        return invalid(f"Unparseable filter: {reason}; filter: {self._text!r}.")

    def _comparison(self) -> Test:
        kind, name = self._peek()
        if kind != "bare" or name in ("AND", "OR"):
            raise self._problem(f"expected a field, not {name!r}")
        self._tokens.pop(0)
        kind, operator = self._peek()
        if kind != "mark" or operator in ("(", ")"):
            raise self._problem(f"expected a comparison operator after {name!r}")
        self._tokens.pop(0)
        path = tuple(
            re.sub(r"\\(.)", r"\1", match[1]) if match[1] is not None else match[2] for match in _PART.finditer(name)
        )
        read = self._fields(path)
        if read is None:
            raise self._problem(f"the field {name!r} cannot be used in a filter")
        if self._take(("mark", "(")):
            return self._choice(path, read, operator)
        return self._one_value(path, read, operator)

    def _choice(self, path: tuple[str, ...], read: Read, operator: str) -> Test:
        """Parse values in parentheses, joined either all by OR or all by AND."""
        tests, words = [self._one_value(path, read, operator)], set()
        while not self._take(("mark", ")")):
            word = self._peek()[1]
            if self._peek() not in (("bare", "OR"), ("bare", "AND")):
                raise self._problem(f"expected OR, AND or ) between the values of {'.'.join(path)}")
            words.add(word)
            self._tokens.pop(0)
            tests.append(self._one_value(path, read, operator))
        if len(words) > 1:
            raise self._problem("AND and OR are mixed without parentheses")
        join = all if words == {"AND"} else any
        return lambda resource: join(test(resource) for test in tests)

    def _one_value(self, path: tuple[str, ...], read: Read, operator: str) -> Test:
        kind, value = self._peek()
        if kind not in ("bare", "quoted"):
            raise self._problem(f"expected a value after {'.'.join(path)}{operator}")
        self._tokens.pop(0)
        if path == ("severity",):
            return self._severity(read, operator, value)
        if ".".join(path) in self._times:
            return self._time(path, read, operator, value)
        if operator == ":" and (kind, value) == ("bare", "*"):
            return lambda resource: read(resource) is not None
        if operator in ("=~", "!~"):
            try:
                pattern = re.compile(value)
            except re.error as error:
                raise self._problem(f"{value!r} is not a regular expression ({error})") from error
            return lambda resource: (pattern.search(_text(read(resource))) is not None) == (operator == "=~")
        wanted = value.casefold()
        if operator == ":":
            return lambda resource: wanted in _text(read(resource)).casefold()
        if operator in ("=", "!="):

            def same(resource: Any) -> bool:
                found = read(resource)
                return (found is not None and _text(found).casefold() == wanted) == (operator == "=")

            return same
        try:
            number = float(value)
        except ValueError:
            raise self._problem(f"{'.'.join(path)} must be compared with a number, not {value!r}") from None

        def ordered(resource: Any) -> bool:
            found = read(resource)
            return isinstance(found, (int, float)) and _compare(float(found), operator, number)

        return ordered

    def _severity(self, read: Read, operator: str, value: str) -> Test:
        wanted = SEVERITIES.get(value.upper())
        if wanted is None:
            raise self._problem(f"{value!r} is not a severity; use one of {', '.join(SEVERITIES)}")
        if operator not in ("=", "!=", ":", *_ORDERS):
            raise self._problem(f"severity cannot be compared with {operator}")
        return lambda resource: _compare(SEVERITIES[_text(read(resource)) or "DEFAULT"], operator, wanted)

    def _time(self, path: tuple[str, ...], read: Read, operator: str, value: str) -> Test:
        wanted = parse_time(value)
        if wanted is None:
            raise self._problem(f"{value!r} is not a time such as 2026-01-31T12:00:00Z")
        if operator not in ("=", "!=", *_ORDERS):
            raise self._problem(f"{'.'.join(path)} cannot be compared with {operator}")

        def compare(resource: Any) -> bool:
            found = read(resource)
            return isinstance(found, (int, float)) and _compare(float(found), operator, wanted)

        return compare


def _text(value: str | float | None) -> str:
    return "" if value is None else str(value)


def _compare(found: float, operator: str, wanted: float) -> bool:
    # Times are written in microseconds, which is also the resolution of a float of the current Unix time.
    near = abs(found - wanted) < 5e-7
    if operator in ("=", ":"):
        return near
    if operator == "!=":
        return not near
    if near:
        return operator.endswith("=")
    return (found > wanted) == operator.startswith(">")
