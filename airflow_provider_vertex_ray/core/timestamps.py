"""Timestamps of Google's APIs (RFC 3339): one reader and one writer."""

from __future__ import annotations

import datetime
import re

__all__ = ["parse_rfc3339", "rfc3339"]

# Not datetime.fromisoformat alone: in Python 3.10 it accepts neither "Z" nor nanoseconds.
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:?\d\d)?")


def rfc3339(seconds: float) -> str:
    """Return a Unix time as an RFC 3339 timestamp in UTC, with microseconds."""
    found = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return found.isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str | None) -> float | None:
    """Return the Unix time of an RFC 3339 timestamp; None for None and for any other text.

    :param text: a timestamp such as ``2026-11-24T03:48:00.123456789Z``; up to nine digits of the fraction are read, and
        a timestamp without an offset is in UTC
    """
    match = _RFC3339.fullmatch(text or "")
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    offset = "+00:00" if (zone or "Z") in "Zz" else f"{zone[:3]}:{zone[-2:]}"
    try:
        whole = datetime.datetime.fromisoformat(f"{day}T{clock}{offset}").timestamp()
    except (ValueError, OverflowError):
        return None
    return whole + float(f"0.{fraction}" if fraction else 0)
