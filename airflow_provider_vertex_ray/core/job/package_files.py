"""The files of a local folder that Ray would send: links, nested ignore files and empty folders as Ray treats them.

Source: Ray 2.47.1, python/ray/_private/runtime_env/packaging.py. It differs from git: ``excludes`` and each
``.gitignore`` are judged on their own, so a negated pattern re-includes only what the same file excludes, and nothing
below a folder that is excluded itself is looked at. Three things are better than there: version control data and
compiled Python files are left out, a link to a folder around it is not followed forever, and a ``.gitignore`` may have
any encoding.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from airflow_provider_vertex_ray.core.job.ignore_patterns import IgnorePatterns
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["ALWAYS_EXCLUDED", "packed_paths"]

log = logging.getLogger(__name__)

ALWAYS_EXCLUDED = (".git", "__pycache__", "*.pyc")

IGNORE_GITIGNORE = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"
"""Ray's environment variable; with the value 1, ``.gitignore`` files are not read."""

Rule = Callable[[Path], bool]


def packed_paths(root: Path, excludes: Sequence[str], field: str) -> Iterator[Path]:
    """Yield the files and empty folders below a folder that are sent.

    :param root: the folder, as an absolute path
    :param excludes: patterns as in a ``.gitignore`` file
    :param field: name of the argument, for errors
    :raises InvalidArgumentError: a pattern is not valid, a folder cannot be read, or a name is not valid UTF-8
    """
    rules: tuple[Rule, ...] = (_rule(root, ALWAYS_EXCLUDED, field), _rule(root, excludes, "excludes"))
    stack: list[tuple[Path, tuple[Rule, ...], tuple[Path, ...]]] = [(root, rules, ())]
    while stack:
        path, rules, around = stack.pop()
        try:
            path.relative_to(root).as_posix().encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(field, str(path), "Rename the file; its name must be valid UTF-8.") from error
        is_folder = path.is_dir()
        if is_folder and os.environ.get(IGNORE_GITIGNORE, "0") != "1":
            rules = (*rules, *_gitignore(path, field))
        if any(rule(path) for rule in rules):
            if path == root:
                log.warning("%s: a pattern excludes the whole folder %s; nothing of it is sent, as by Ray", field, root)
            continue
        if not is_folder:
            if path.is_file():
                yield path
            continue
        real = path.resolve()
        if real in around:
            log.warning("%s: %s is a link to a folder around it and is not followed", field, path)
            continue
        try:
            inside = list(path.iterdir())
        except OSError as error:
            raise InvalidArgumentError(field, str(path), f"The folder cannot be read: {error}.") from error
        if not inside and path != root:
            yield path
        stack += [(each, rules, (*around, real)) for each in inside]


def _gitignore(folder: Path, field: str) -> Iterator[Rule]:
    file = folder / ".gitignore"
    if not file.is_file():
        return
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise InvalidArgumentError(field, str(file), f"The file cannot be read: {error}.") from error
    yield _rule(folder, lines, str(file))


def _rule(folder: Path, patterns: Iterable[str], field: str) -> Rule:
    excluded = IgnorePatterns(patterns, field)

    def matches(path: Path) -> bool:
        return excluded(str(path.relative_to(folder)))

    return matches
