"""Deadlines as Unix times, which stay valid when a trigger resumes on another machine."""

from __future__ import annotations

import time


def deadline_after(seconds: float | None) -> float | None:
    """Return the Unix time that is ``seconds`` from now; None for no limit."""
    return None if seconds is None else time.time() + seconds


def seconds_left(deadline: float | None) -> float:
    """Return the seconds until ``deadline``: infinite for None, negative once it has passed."""
    return float("inf") if deadline is None else deadline - time.time()
