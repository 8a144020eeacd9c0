"""Skipping one element of a streamed list that is too large or too odd to be decoded, in bounded memory."""

from __future__ import annotations

import json
import re

LONGEST_NAME = 2_000
"""Characters of a string that are kept while it may be a key, or the value of the field that is looked for."""

SLICE = 1 << 14
"""Characters that are processed in one go, which bounds the memory of the regular expression."""

_MARK = re.compile(r'["{}\[\]:,]')
_DEEP_MARK = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


class ElementSkip:
    """Finds the end of a JSON object, and the string in one of its own fields, without decoding it.

    :param field: name of the field; those of objects inside the object do not count
    """

    def __init__(self, field: str) -> None:
        self.found: str | None = None
        """The string in the field, as far as the object was read; None if there is none."""
        self._field = field
        self._depth = 0
        self._in_string = False
        self._is_key = False
        self._key = ""
        self._kept = ""
        self._rest = ""

    def feed(self, text: str) -> int | None:
        """Process a piece of the object, from its first brace on.

        :return: the place in the piece after the end of the object; None if it has not ended yet
        """
        for begin in range(0, len(text), SLICE):
            before = len(self._rest)
            end = self._feed(self._rest + text[begin : begin + SLICE])
            if end is not None:
                return begin + end - before
        return None

    def _feed(self, text: str) -> int | None:
        # A backslash and what it escapes belong together.
        self._rest = "\\" if (len(text) - len(text.rstrip("\\"))) % 2 else ""
        length = len(text) - len(self._rest)
        at = 0
        while at < length:
            if self._in_string:
                end = _IN_STRING.match(text, at, length).end()  # type: ignore[union-attr]
                self._keep(text, at, end)
                if end == length:
                    break
                self._end_string()
                at = end + 1
                continue
            match = (_MARK if self._depth < 2 else _DEEP_MARK).search(text, at, length)
            if match is None:
                break
            mark, at = match[0], match.end()
            if mark == '"':
                self._in_string, self._kept = True, ""
            elif mark in "{[":
                self._depth += 1
                self._is_key = self._depth == 1
            elif mark in "}]":
                self._depth -= 1
                if not self._depth:
                    return at
            elif self._depth == 1:
                self._is_key = mark == ","
        return None

    def _keep(self, text: str, begin: int, end: int) -> None:
        if self._depth == 1:
            self._kept += text[begin : min(end, begin + LONGEST_NAME - len(self._kept))]

    def _end_string(self) -> None:
        self._in_string = False
        if self._depth != 1:
            return
        if self._is_key:
            self._key = _decoded(self._kept)
        elif self._key == self._field:
            self.found = _decoded(self._kept)


def _decoded(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text
