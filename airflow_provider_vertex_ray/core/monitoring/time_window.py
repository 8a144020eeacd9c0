"""A span of time as a user gives it: from and to, or the last so many seconds."""

from __future__ import annotations

import datetime
import re
import time

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["check_window", "moment", "parse_rfc3339", "rfc3339", "span"]

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:?\d\d)?")


def rfc3339(seconds: float) -> str:
    """A unix time as Google's APIs take it: UTC, with microseconds."""
    found = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return found.isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> float | None:
    """The unix time of a time as Google's APIs give it, whose fraction may have nine digits; None for anything else.

    Without a zone it is UTC.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    offset = "+00:00" if (zone or "Z") in "Zz" else f"{zone[:3]}:{zone[-2:]}"
    try:
        whole = datetime.datetime.fromisoformat(f"{day}T{clock}{offset}").timestamp()
    except (ValueError, OverflowError):
        return None
    return whole + float(f"0.{fraction}" if fraction else 0)


def moment(field: str, value: object) -> float | None:
    """The unix time that a user means; None for None.

    :param value: A ``datetime`` with or without a zone, an ISO text such as ``{{ dag_run.start_date }}`` gives, or
        unix seconds.
    :raises InvalidArgumentError: It is none of these.
    """
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return aware.timestamp()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e11:
        return float(value)
    found = _read(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise InvalidArgumentError(
            field, value, "give a time such as 2026-01-31T12:00:00Z, a datetime, or unix seconds"
        )
    return found


def _read(text: str) -> float | None:
    # A number becomes a text on its way through a template.
    return float(text) if re.fullmatch(r"\d{1,11}(\.\d+)?", text) else parse_rfc3339(text)


def check_window(start: object, end: object, window: object) -> None:
    """At DAG parse: refuse a span that can not be; what is a template passes.

    :raises InvalidArgumentError: Names the field and the value.
    """
    later = [has_template(value) or hasattr(value, "iter_references") for value in (start, end)]
    begin = None if later[0] else moment("start", start)
    finish = None if later[1] else moment("end", end)
    if window is not None:
        if isinstance(window, bool) or not isinstance(window, (int, float)) or not 0 < window <= 366 * 86_400:
            raise InvalidArgumentError("window", window, "give a number of seconds above 0, at most a year, or None")
        if start is not None:
            raise InvalidArgumentError("window", window, "give either start or window")
    if begin is not None and finish is not None and finish <= begin:
        raise InvalidArgumentError("end", end, "the end must be after the start")


def span(start: object, end: object, window: float | None, default: float) -> tuple[float, float]:
    """Begin and end as unix times.

    :param window: Seconds before the end, where there is no start.
    :param default: The window where there is neither.
    :raises InvalidArgumentError: The end is not after the start, or a value is no time.
    """
    finish = moment("end", end or None)
    finish = time.time() if finish is None else finish
    begin = moment("start", start or None)
    if begin is None:
        begin = finish - (window or default)
    if finish <= begin:
        raise InvalidArgumentError("end", end, "the end must be after the start")
    return begin, finish
