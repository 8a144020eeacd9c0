"""Filters of list requests for models and endpoints (https://google.aip.dev/160).

Supported are comparisons of a field or a label with ``=``, ``!=`` and ``:``, joined by AND, OR and NOT, with
parentheses. As in the specification, OR has a higher precedence than AND. Values may be in double quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from vertex_ray_emulator.wire.errors import invalid

Test = Callable[[Any], bool]

_TOKEN = re.compile(r'\s*(?:(?P<mark>[()]|!=|=|:)|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s()=:!"]+))')


def parse(text: str, fields: dict[str, Callable[[Any], str]], describe: str) -> Test:
    """Compile a filter to a test of a resource.

    :param text: the filter; an empty one matches every resource.
    :param fields: functions that read the fields other than ``labels.<key>``, by names in snake case.
    :param describe: the kind of resource, for error messages.
    :raises ApiError: INVALID_ARGUMENT for invalid syntax or an unknown field.
    """
    if not text.strip():
        return lambda resource: True
    return _Parser(text, fields, describe).parse()


class Grammar:
    """The common part of the filters of Google's APIs: AND, OR, NOT and parentheses around comparisons.

    :param text: the filter.
    :param token: pattern of a token, with the groups ``mark``, ``quoted`` and ``bare``.
    :raises ApiError: INVALID_ARGUMENT if the text does not consist of such tokens.
    """

    def __init__(self, text: str, token: re.Pattern[str]) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            match = token.match(stripped, position)
            if match is None:
                raise self._error()
            kind = match.lastgroup or ""
            value = match.group(kind)
            self._tokens.append((kind, re.sub(r"\\(.)", r"\1", value) if kind == "quoted" else value))
            position = match.end()

    def _error(self) -> Exception:
        return invalid(f"Invalid filter: {self._text!r}.")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[0] if self._tokens else ("end", "")

    def _take(self, *wanted: tuple[str, str]) -> bool:
        if self._peek() in wanted:
            self._tokens.pop(0)
            return True
        return False

    def parse(self) -> Test:
        """Compile the filter to a test of a resource.

        :raises ApiError: INVALID_ARGUMENT for invalid syntax.
        """
        try:
            test = self._all_of()
        except RecursionError:
            raise self._error() from None
        if self._tokens:
            raise self._error()
        return test

    def _all_of(self) -> Test:
        tests = [self._any_of()]
        while self._peek() not in (("end", ""), ("mark", ")")):
            self._take(("bare", "AND"))  # optional between two comparisons
            tests.append(self._any_of())
        return lambda resource: all(test(resource) for test in tests)

    def _any_of(self) -> Test:
        tests = [self._one()]
        while self._take(("bare", "OR")):
            tests.append(self._one())
        return lambda resource: any(test(resource) for test in tests)

    def _one(self) -> Test:
        if self._take(("bare", "NOT")):
            inner = self._one()
            return lambda resource: not inner(resource)
        if self._take(("mark", "(")):
            inner = self._all_of()
            if not self._take(("mark", ")")):
                raise self._error()
            return inner
        return self._comparison()

    def _comparison(self) -> Test:
        raise NotImplementedError


class _Parser(Grammar):
    def __init__(self, text: str, fields: dict[str, Callable[[Any], str]], describe: str) -> None:
        super().__init__(text, _TOKEN)
        self._fields, self._describe = fields, describe

    def _comparison(self) -> Test:
        kind, name = self._peek()
        if kind != "bare" or name in ("AND", "OR"):
            raise self._error()
        self._tokens.pop(0)
        operator = self._peek()[1] if self._peek()[0] == "mark" else ""
        if operator not in ("=", "!=", ":"):
            raise self._error()
        self._tokens.pop(0)
        kind, value = self._peek()
        if kind not in ("bare", "quoted"):
            raise self._error()
        self._tokens.pop(0)
        if name.startswith("labels."):
            return _label(name.removeprefix("labels."), operator, value, any_value=(kind, value) == ("bare", "*"))
        return self._field(name, operator, value)

    def _field(self, name: str, operator: str, value: str) -> Test:
        snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m.group(1).lower(), name)
        read = self._fields.get(snake)
        if read is None:
            raise invalid(
                f"Invalid filter: {self._text!r}. The field {name!r} of {self._describe} cannot be used in a filter."
            )
        if operator == ":":
            return lambda resource: value in read(resource)
        return lambda resource: (read(resource) == value) == (operator == "=")


def _label(key: str, operator: str, value: str, *, any_value: bool) -> Test:
    if operator == ":" and any_value:
        return lambda resource: key in resource.labels
    if operator == "!=":
        return lambda resource: resource.labels.get(key) != value
    return lambda resource: resource.labels.get(key) == value
