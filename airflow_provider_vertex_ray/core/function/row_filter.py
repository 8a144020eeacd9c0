"""Which SQL conditions the Storage Read API takes as a row restriction.

Its grammar is smaller than SQL's: comparisons of columns with constants, combined
(``row_restriction`` in https://cloud.google.com/bigquery/docs/reference/storage/rpc/google.cloud.bigquery.storage.v1).
What is not recognised here runs as a query, which takes every condition.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["needs_query"]

_TOKEN = re.compile(
    r"""\s+
    | (?P<string>[bB]?[rR]?(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<name>(?:`[^`]+`|[A-Za-z_]\w*)(?:\.(?:`[^`]+`|[A-Za-z_]\w*))*)
    | (?P<operator><=|>=|<>|!=|[<>=+\-*/(),])
    """,
    re.VERBOSE,
)
_WORDS = frozenset({"AND", "OR", "NOT", "IS", "NULL", "TRUE", "FALSE", "IN", "BETWEEN", "LIKE"})
_LITERALS = frozenset({"DATE", "DATETIME", "TIME", "TIMESTAMP", "NUMERIC", "BIGNUMERIC"})
"""Words before a string that make it a constant of a type."""


def needs_query(row_filter: str, fields: Sequence[dict[str, Any]]) -> str | None:
    """Return what in a condition the Storage Read API may not take; None if it takes all of it.

    :param row_filter: the condition
    :param fields: columns of the table
    """
    tokens: list[tuple[str, str]] = []
    place = 0
    while place < len(row_filter):
        found = _TOKEN.match(row_filter, place)
        if found is None or row_filter.startswith(("--", "/*"), place):
            return row_filter[place : place + 2]
        if found.lastgroup:
            tokens.append((found.lastgroup, found.group()))
        place = found.end()
    for index, (kind, text) in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else ("", "")
        if kind != "name" or text.upper() in _WORDS:
            if text.upper() == "IN" and following[1] != "(":
                return f"IN {following[1]}"
        elif following[1] == "(" or not (
            _is_column(text, fields) or (text.upper() in _LITERALS and following[0] == "string")
        ):
            return text
    return None


def _is_column(name: str, fields: Sequence[dict[str, Any]]) -> bool:
    inside: Sequence[dict[str, Any]] = fields
    for part in re.findall(r"`[^`]+`|\w+", name):
        found = next((each for each in inside if str(each["name"]).lower() == part.strip("`").lower()), None)
        if found is None or str(found.get("mode") or "").upper() == "REPEATED":
            return False
        inside = found.get("fields") or ()
    return True
