"""Patterns of ``excludes`` and ``.gitignore`` files, in the dialect of Ray 2.47.1.

Ray carries a version of pathspec of its own, older than today's, which judges a few patterns differently from git: for
example, a negated pattern re-includes what it names, but nothing below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["IgnorePatterns"]


class IgnorePatterns:
    """A list of patterns, of which the last one that matches a path decides.

    :param lines: the patterns; comments and blank lines are allowed
    :param field: name of the argument or file, for errors
    :raises InvalidArgumentError: a line is not a pattern
    """

    def __init__(self, lines: Iterable[str], field: str) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for line in lines:
            try:
                rule = _rule(line.strip())
            except (re.error, IndexError) as error:
                raise InvalidArgumentError(field, line, "Use patterns as in a .gitignore file.") from error
            if rule is not None:
                self._rules.append(rule)

    def __call__(self, path: str) -> bool:
        """Tell whether a path, relative to the folder of the patterns, is left out."""
        for regex, excludes in reversed(self._rules):
            if regex.match(path):
                return excludes
        return False


def _rule(line: str) -> tuple[re.Pattern[str], bool] | None:
    """Return the regular expression of a pattern, and whether it excludes; None for a comment or a blank line."""
    if not line or line == "/" or line.startswith("#"):
        return None
    excludes = not line.startswith("!")
    text = line if excludes else line[1:]
    parts = text.removeprefix("\\").split("/")
    if not parts[0]:
        # Anchored at the folder.
        parts = parts[1:]
    elif parts[0] != "**" and (len(parts) == 1 or (len(parts) == 2 and not parts[1])):
        # A single name counts at any depth.
        parts = ["**", *parts]
    if not parts[-1] and len(parts) > 1:
        # Everything below a folder, but not the folder itself.
        parts[-1] = "**"
    return re.compile(f"^{_joined(parts, excludes)}$"), excludes


def _joined(parts: list[str], excludes: bool) -> str:
    if parts == ["**"]:
        return ".+"
    regex, slash, last = "", "", len(parts) - 1
    for place, part in enumerate(parts):
        if part == "**" and place == 0:
            regex, slash = "(?:.+/)?", ""
        elif part == "**" and place == last:
            regex += "/.*"
        elif part == "**":
            regex, slash = regex + "(?:/.+)?", "/"
        elif part == "*":
            regex, slash = f"{regex}{slash}[^/]+", "/"
        else:
            below = "(?:/.*)?" if place == last and excludes else ""
            regex, slash = f"{regex}{slash}{_name(part)}{below}", "/"
    return regex


_NAME = re.compile(
    r"""\\(?P<escaped>.)        # a character that stands for itself
    |   (?P<backslash>\\)$      # a backslash that escapes nothing
    |   (?P<many>\*)
    |   (?P<one>\?)
    |   \[(?P<not>!?)(?P<set>\]?[^\]]*)\]
    |   (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def _name(part: str) -> str:
    """Return the regular expression of one part of a path."""
    found = []
    for match in _NAME.finditer(part):
        if match["escaped"]:
            found.append(re.escape(match["escaped"]))
        elif match["many"]:
            found.append("[^/]*")
        elif match["one"]:
            found.append("[^/]")
        elif match["set"] is not None:
            inner = match["set"].replace("\\", "\\\\")
            inner = f"\\{inner}" if inner.startswith("^") and not match["not"] else inner
            found.append(f"[{'^' if match['not'] else ''}{inner}]")
        elif match["other"]:
            found.append(re.escape(match["other"]))
    return "".join(found)
