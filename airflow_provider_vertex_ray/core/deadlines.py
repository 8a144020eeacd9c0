"""Deadlines as moments, so that they hold across processes: a trigger may be resumed on another machine."""

from __future__ import annotations

import time


def deadline_after(seconds: float | None) -> float | None:
    """The moment (unix seconds) so many seconds from now; None for no limit."""
    return None if seconds is None else time.time() + seconds


def seconds_left(deadline: float | None) -> float:
    """Seconds until a moment; infinite without one, negative once it passed."""
    return float("inf") if deadline is None else deadline - time.time()
