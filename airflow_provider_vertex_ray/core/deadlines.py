"""Deadlines as Unix times, which stay valid when a trigger resumes on another machine; limits; durations as texts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def deadline_after(seconds: float | None) -> float | None:
    """Return the Unix time that is ``seconds`` from now; None for no limit."""
    return None if seconds is None else time.time() + seconds


def seconds_left(deadline: float | None) -> float:
    """Return the seconds until ``deadline``: infinite for None, negative once it has passed."""
    return float("inf") if deadline is None else deadline - time.time()


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """Await work for some seconds at most.

    Unlike ``asyncio.wait_for`` before Python 3.12, this never swallows a cancellation that comes just as the work ends:
    a wait in a loop would go on after it (https://github.com/python/cpython/issues/86296).

    :raises asyncio.TimeoutError: the work did not end in time; it is cancelled.
    """
    if seconds is None:
        return await work
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        in_time = task.done()
    finally:
        await _end(task)
    if not in_time and task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


async def finishing(work: Awaitable[T], seconds: Callable[[], float]) -> T:
    """Await work that goes on for a while when the caller is cancelled, because to cancel it would undo nothing.

    :param work: the work.
    :param seconds: called when the caller is cancelled; returns the seconds after which the work is cancelled too.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=seconds())
        await _end(task)
        raise


async def _end(task: asyncio.Future[T]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        # Nobody else may ask for its error, which asyncio would log as never retrieved.
        task.exception()


async def set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for an event for some seconds at most; return whether it is set."""
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiter}, timeout=seconds)
    finally:
        waiter.cancel()
    return event.is_set()


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
