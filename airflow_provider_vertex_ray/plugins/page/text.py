"""Format figures for people. Pure."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone

from airflow_provider_vertex_ray.core.deadlines import duration

ELLIPSIS = "…"
_LAST_MOMENT = 253_402_300_799.0
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible_controls(text: str) -> str:
    """Return a text with the controls of its direction as U+202E and the like, instead of obeying them.

    They could show one name as another, and the words around it in another order.
    """
    return _BIDI.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)


def has_words(text: str, words: list[str]) -> bool:
    """Check whether a text contains all of some words, or parts of words; both in ``casefold``."""
    return all(word in text for word in words)


def ago(then: float | None, now: float) -> str:
    """Format how long ago something was; "just now" for less than two seconds."""
    if then is None:
        return "never"
    return "just now" if now - then < 2 else f"{duration(now - then)} ago"


def moment(at: float) -> str:
    """Format a time for tooltips and machines; what no calendar has becomes the nearest time that one has."""
    known = min(max(at, 0.0), _LAST_MOMENT)
    return datetime.fromtimestamp(known, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def number(value: float | None) -> str:
    """Format a number without needless digits."""
    if value is None or not math.isfinite(value):
        return "?"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")


def money(amount: float | None, currency: str | None) -> str:
    """Format an amount with its currency."""
    if amount is None or currency is None:
        return ""
    sign = {"USD": "$", "EUR": "€", "GBP": "£"}.get(currency)
    text = f"{amount:,.2f}"
    return f"{sign}{text}" if sign else f"{text} {currency}"


def shortened(text: str, most: int) -> str:
    """Return a text on one line, shortened in its middle, because the start and the end say most."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    head = (most - 1) * 2 // 3
    return line[:head].rstrip() + ELLIPSIS + line[len(line) - (most - 1 - head) :].lstrip()
