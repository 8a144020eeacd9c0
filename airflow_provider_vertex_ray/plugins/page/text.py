"""Format figures for people. Pure."""

from __future__ import annotations

import math

from airflow_provider_vertex_ray.core.deadlines import duration

ELLIPSIS = "…"


def ago(then: float | None, now: float) -> str:
    """Format how long ago something was; "just now" for less than two seconds."""
    if then is None:
        return "never"
    return "just now" if now - then < 2 else f"{duration(now - then)} ago"


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
