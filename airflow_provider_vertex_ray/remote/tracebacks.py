"""What went wrong on the cluster, told as if it had happened in the DAG file. Part of the program that runs there."""

from __future__ import annotations

import json
import linecache
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

__all__ = ["ResultError", "explain", "show_in_tracebacks"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OWN_FILES = {__file__, *(str(Path(__file__).with_name(f"{name}.py")) for name in ("job", "runner", "values"))}
_FRAME = re.compile(r'^( *)File "(.+)", line (\d+), in ')


class ResultError(Exception):
    """The function's result cannot be returned to Airflow."""


def show_in_tracebacks(payload: dict[str, Any]) -> None:
    """Add the function's lines to this process's tracebacks, although its file does not exist here."""
    filename, source = payload["filename"], payload["source"]
    lines = ["\n"] * (payload["first_line"] - 1) + source.splitlines(keepends=True)
    # Without a modification time, the entry is never compared with a file.
    linecache.cache[filename] = (len(source), None, lines, filename)


def explain(error: BaseException, limit: int) -> dict[str, str]:
    """Describe an exception for Airflow: type, message, and the traceback without frames of this module and of Ray.

    :param error: the exception.
    :param limit: maximum number of bytes as JSON; longer texts are shortened in their middle.
    """
    # Ray wraps what a remote function raised; the original type and message are more useful.
    cause = getattr(error, "cause", None)
    told = cause if isinstance(cause, BaseException) else error
    found = traceback.TracebackException(type(error), error, error.__traceback__)
    if isinstance(error, ResultError):
        text = f"{type(error).__name__}: {error}\n"
    else:
        _clean(found, set())
        text = _with_source(_COLOURS.sub("", "".join(found.format())))
    return {
        "type": type(told).__name__,
        "message": _shortened(_COLOURS.sub("", str(told)), limit // 4),
        "traceback": _shortened(text, limit // 2),
    }


def _clean(found: traceback.TracebackException, seen: set[int]) -> None:
    if id(found) in seen:
        return
    seen.add(id(found))
    ray = sys.modules.get("ray")
    folder = os.path.dirname(getattr(ray, "__file__", None) or "") + os.sep  # noqa: PTH120 (a text to compare with)
    found.stack = traceback.StackSummary.from_list(
        [
            frame
            for frame in found.stack
            if frame.filename not in _OWN_FILES and (ray is None or not frame.filename.startswith(folder))
        ]
    )
    for other in (found.__cause__, found.__context__, *(getattr(found, "exceptions", None) or ())):
        if other is not None:
            _clean(other, seen)


def _with_source(text: str) -> str:
    """Add the DAG's own lines to the frames of a worker, which does not have the file."""
    lines = text.splitlines()
    shown = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        shown.append(line)
        frame = _FRAME.match(line)
        if frame and not following.startswith(frame[1] + "  "):
            source = linecache.getline(frame[2], int(frame[3])).strip() if frame[2] in linecache.cache else ""
            if source:
                shown.append(f"{frame[1]}  {source}")
    return "\n".join(shown) + "\n"


def _shortened(text: str, limit: int) -> str:
    """Shorten a text in its middle if it has more than ``limit`` bytes as JSON; lone surrogates are replaced."""
    text = text.encode("utf-8", "replace").decode()
    short, keep = text, min(len(text), limit) // 2
    while len(json.dumps(short)) > limit and keep:
        keep = keep * 4 // 5
        left_out = f"\n... {len(text) - 2 * keep:,} characters omitted ...\n"
        short = text[:keep] + left_out + text[len(text) - keep :]
    return short
