"""Time windows as users give them: from start to end, or the last so many seconds."""

from __future__ import annotations

import datetime
import re
import time

from airflow_provider_vertex_ray.core.checks import is_number, known_at_run_time
from airflow_provider_vertex_ray.core.timestamps import parse_rfc3339
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["check_window", "moment", "span"]

LONGEST_WINDOW = 366 * 86_400
"""Seconds of a window, at most: one year."""


def moment(field: str, value: object) -> float | None:
    """Return the Unix time that a user's value stands for; None for None.

    :param field: name of the argument, for the error
    :param value: a ``datetime`` with or without a zone, an ISO string such as the one that
        ``{{ dag_run.start_date }}`` renders to, or Unix seconds; without a zone it is in UTC
    :raises InvalidArgumentError: it is none of these
    """
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return aware.timestamp()
    if is_number(value) and 0 <= value < 1e11:
        return float(value)
    found = _read(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise InvalidArgumentError(
            field, value, "Use a timestamp such as 2026-01-31T12:00:00Z, a datetime, or Unix seconds."
        )
    return found


def _read(text: str) -> float | None:
    # A template renders a number to a string.
    return float(text) if re.fullmatch(r"\d{1,11}(\.\d+)?", text) else parse_rfc3339(text)


def check_window(start: object, end: object, window: object) -> None:
    """Validate a time window at DAG parse time; values that are known only at run time pass.

    :param start: start, as for ``moment``
    :param end: end, as for ``moment``
    :param window: length in seconds, instead of ``start``
    :raises InvalidArgumentError: one of them is not valid, ``start`` and ``window`` are both given, or the end is not
        after the start
    """
    begin = None if known_at_run_time(start) else moment("start", start)
    finish = None if known_at_run_time(end) else moment("end", end)
    if window is not None:
        if not is_number(window) or not 0 < window <= LONGEST_WINDOW:
            raise InvalidArgumentError("window", window, "Use a positive number of seconds of at most a year, or None.")
        if start is not None:
            raise InvalidArgumentError("window", window, "Use either start or window, not both.")
    _check_order(begin, finish, end)


def _check_order(begin: float | None, finish: float | None, end: object) -> None:
    if begin is not None and finish is not None and finish <= begin:
        raise InvalidArgumentError("end", end, "The end must be after the start.")


def span(start: object, end: object, window: float | None, default: float) -> tuple[float, float]:
    """Return the start and the end of a time window as Unix times.

    :param start: start, as for ``moment``; None or an empty string for none
    :param end: end, as for ``moment``; None or an empty string for now
    :param window: seconds before the end, if there is no start
    :param default: seconds before the end, if there is neither a start nor a window
    :raises InvalidArgumentError: a value is not a time, or the end is not after the start
    """
    finish = moment("end", end or None)
    finish = time.time() if finish is None else finish
    begin = moment("start", start or None)
    if begin is None:
        begin = finish - (window or default)
    _check_order(begin, finish, end)
    return begin, finish
