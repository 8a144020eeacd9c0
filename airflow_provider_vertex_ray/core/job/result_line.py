"""The line of a job's output that carries its result. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_vertex_ray.core.job.log_lines import Line
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES, RESULT_MARKER
from airflow_provider_vertex_ray.core.storable import parse_json, storable
from airflow_provider_vertex_ray.errors import NotStorableError


def is_result(text: str) -> bool:
    """Tell whether a line carries a result."""
    return text.startswith(RESULT_MARKER)


def result_size(line: Line) -> int:
    """Return the size of a result in bytes, also of one that was not kept completely."""
    return len(line.text[len(RESULT_MARKER) :].encode("utf-8", "replace")) + line.dropped


def read_result(line: Line, notify: Callable[[str], None]) -> Any:
    """Return the result as Airflow can store it.

    :param line: a line for which ``is_result`` holds
    :param notify: receives a sentence for each value that had to be changed
    :raises ValueError: it is not JSON
    :raises NotStorableError: it is too large or too deep, or has a number that does not fit into 64 bits
    """
    size = result_size(line)
    if size > MAX_RESULT_BYTES:
        raise NotStorableError(
            f"The job's result has {size:,} bytes; the limit is {MAX_RESULT_BYTES:,} bytes. "
            "Write it to a file, and print the file's path.",
            {"path": "result"},
        )
    return storable(parse_json(line.text[len(RESULT_MARKER) :], "result"), "result", notify=notify)
