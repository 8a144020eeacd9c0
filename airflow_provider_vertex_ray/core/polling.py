"""Polling: the one loop behind the waits on clusters, operations, endpoints, metrics and quotas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from airflow_provider_vertex_ray.core.deadlines import seconds_left, within
from airflow_provider_vertex_ray.errors import RateLimitedError, ServiceUnavailableError, VertexRayError

T = TypeVar("T")

TRANSIENT_ERRORS: tuple[type[VertexRayError], ...] = (ServiceUnavailableError, RateLimitedError)
"""Errors that say nothing about the state of what is waited for, so that polling continues."""

GROWTH = 1.5
"""Factor by which the pause between two polls grows."""

SHORTEST_LOOK = 1.0
"""Minimum number of seconds for a poll that is in flight when the deadline passes."""


class Backoff:
    """Pauses between polls, which grow from ``first`` to ``longest`` seconds.

    :param longest: seconds between two polls at most; the user's ``poll_interval``.
    :param first: seconds before the second poll; ``longest`` where that is shorter.
    """

    def __init__(self, longest: float, first: float = 1.0) -> None:
        self._longest = longest
        self._first = min(first, longest)
        self._next = self._first

    @classmethod
    def constant(cls, seconds: float) -> Backoff:
        """Return pauses that do not grow."""
        return cls(seconds, first=seconds)

    def reset(self) -> None:
        """Start again with the first pause, because something has changed."""
        self._next = self._first

    def next(self) -> float:
        """Return the seconds to pause now."""
        seconds, self._next = self._next, min(self._next * GROWTH, self._longest)
        return seconds


async def poll_until(
    look: Callable[[], Awaitable[T | None]],
    *,
    backoff: Backoff,
    deadline: float | None,
    timed_out: Callable[[], VertexRayError],
    on_unreadable: Callable[[VertexRayError, float], None],
    transient: tuple[type[VertexRayError], ...] = TRANSIENT_ERRORS,
    cut_off: bool = True,
) -> T:
    """Call ``look`` until it returns something other than None, at least once.

    :param look: a single poll: the result, or None while the condition is not met. Its other errors end the wait.
    :param backoff: the pauses between polls.
    :param deadline: Unix time after which the wait fails; None for no limit.
    :param timed_out: makes the error to raise when the deadline has passed.
    :param on_unreadable: called after a transient error, or a poll that was cut off, with the error and the seconds
        until the next poll (0 when the deadline has passed).
    :param transient: types of errors that do not end the wait.
    :param cut_off: whether a poll is cancelled at the deadline (after ``SHORTEST_LOOK`` seconds at least). Use False
        for one that creates something, which would be lost track of.
    :return: what ``look`` returned.
    :raises VertexRayError: the deadline passed, or ``look`` failed for good.
    """
    while True:
        failure: VertexRayError | None = None
        limit = max(SHORTEST_LOOK, seconds_left(deadline)) if cut_off and deadline is not None else None
        try:
            found = await within(limit, look())
            if found is not None:
                return found
        except asyncio.TimeoutError:
            failure = ServiceUnavailableError("no answer in time")
        except transient as error:
            failure = error
        left = seconds_left(deadline)
        seconds = max(0.0, min(backoff.next(), left))
        if failure is not None:
            on_unreadable(failure, seconds)
        if left <= 0:
            raise timed_out()
        await asyncio.sleep(seconds)


async def pause(interval: float, deadline: float | None) -> None:
    """Sleep for an interval, but not past a deadline."""
    await asyncio.sleep(max(0.0, min(interval, seconds_left(deadline))))
