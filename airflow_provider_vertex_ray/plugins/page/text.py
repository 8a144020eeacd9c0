"""Figures as a person reads them. Pure."""

from __future__ import annotations

import math

from airflow_provider_vertex_ray.core.sharing.idle_policy import duration

ELLIPSIS = "…"


def span(seconds: float | None) -> str:
    """A length of time, in two units; of a short one also the tenths."""
    if seconds is None:
        return "-"
    return f"{max(0.0, seconds):.1f} s" if seconds < 9.95 else duration(seconds)


def ago(then: float | None, now: float) -> str:
    """How long ago; "just now" for less than two seconds."""
    if then is None:
        return "never"
    return "just now" if now - then < 2 else f"{duration(now - then)} ago"


def number(value: float | None) -> str:
    """A number without needless digits."""
    if value is None or not math.isfinite(value):
        return "?"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")


def money(amount: float | None, currency: str | None) -> str:
    """An amount with its currency."""
    if amount is None or currency is None:
        return ""
    sign = {"USD": "$", "EUR": "€", "GBP": "£"}.get(currency)
    text = f"{amount:,.2f}"
    return f"{sign}{text}" if sign else f"{text} {currency}"


def shortened(text: str, most: int) -> str:
    """A text on one line, cut in its middle: beginning and end tell most."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    head = (most - 1) * 2 // 3
    return line[:head].rstrip() + ELLIPSIS + line[len(line) - (most - 1 - head) :].lstrip()
