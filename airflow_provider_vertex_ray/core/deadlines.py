"""Deadlines as Unix times, which stay valid when a trigger resumes on another machine, and durations as texts."""

from __future__ import annotations

import time


def deadline_after(seconds: float | None) -> float | None:
    """Return the Unix time that is ``seconds`` from now; None for no limit."""
    return None if seconds is None else time.time() + seconds


def seconds_left(deadline: float | None) -> float:
    """Return the seconds until ``deadline``: infinite for None, negative once it has passed."""
    return float("inf") if deadline is None else deadline - time.time()


def duration(seconds: float) -> str:
    """Return a readable duration, such as ``1 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{value} {unit}" for value, unit in parts if value]
    return " ".join(shown[:2]) or "0 s"


def span(seconds: float | None) -> str:
    """Format a duration in two units; a short one in tenths of a second."""
    if seconds is None:
        return "-"
    return f"{max(0.0, seconds):.1f} s" if seconds < 9.95 else duration(seconds)
