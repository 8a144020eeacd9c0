"""Polling: the one loop behind the waits on clusters, endpoints, metrics and quotas, and the pacing of job requests."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.errors import RateLimitedError, ServiceUnavailableError, VertexRayError

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.log_follower import JobLog

T = TypeVar("T")

TRANSIENT_ERRORS: tuple[type[VertexRayError], ...] = (ServiceUnavailableError, RateLimitedError)
"""Errors that say nothing about the state of what is waited for, so that polling continues."""

GROWTH = 1.5
"""Factor by which the pause between two polls grows."""

SHORTEST_LOOK = 1.0
"""Minimum number of seconds for a poll that is in flight when the deadline passes."""

SHORTEST = 0.4
"""Minimum number of seconds between two requests for one job."""

SHARE_OF_AGE = 0.03
"""Share of a job's age that is used as its poll interval, within the other bounds.

On average, the end of a job is noticed after half of it."""

POLLS_PER_SECOND = 50.0
"""Requests per second of all waits in one event loop together, beyond those that ``poll_interval`` asks for."""

LIKELY_END = 5.0
"""Seconds after a job's result in which its end is likely, so that its status is requested every ``SHORTEST``."""

QUIET = 2.0
"""Seconds of silence after which new output, or the end of the log connection, triggers a status request at once."""

STARTS_AT_ONCE = 4
"""Number of waits that open their connections concurrently.

A triggerer starts hundreds of triggers at a time, which would block its event loop."""

LONGEST_START = 0.5
"""Seconds after which a wait that is still opening its connections lets the next one start."""

_starting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()
_waiting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, int] = weakref.WeakKeyDictionary()


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
            found = await asyncio.wait_for(look(), limit)
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


def interval(poll_interval: float, age: float, waits: int) -> float:
    """Return the seconds until the next request for a job.

    :param poll_interval: seconds at most.
    :param age: seconds since the job started.
    :param waits: number of waits that share the event loop.
    """
    return min(poll_interval, max(SHORTEST, age * SHARE_OF_AGE, waits / POLLS_PER_SECOND))


async def take_turn() -> Callable[[], None]:
    """Wait until this wait may open its connections.

    :return: a function to call once they are open; it is called after ``LONGEST_START`` seconds in any case.
    """
    loop = asyncio.get_running_loop()
    gate = _starting.setdefault(loop, asyncio.Semaphore(STARTS_AT_ONCE))
    await gate.acquire()
    # Released by the wait or by the timer, whichever comes first.
    held = [gate]

    def release() -> None:
        timer.cancel()
        while held:
            held.pop().release()

    timer = loop.call_later(LONGEST_START, release)
    return release


class Pace:
    """Pauses between the status requests of one wait; a context manager, inside which the wait counts.

    :param poll_interval: seconds between two requests at most.
    """

    def __init__(self, poll_interval: float) -> None:
        self._poll_interval = poll_interval
        self._last_news = time.monotonic()

    def __enter__(self) -> Pace:
        self._loop = asyncio.get_running_loop()
        _waiting[self._loop] = _waiting.get(self._loop, 0) + 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _waiting[self._loop] -= 1

    async def pause(self, age: float, left: float, log: JobLog | None) -> None:
        """Sleep until the next request is due.

        :param age: seconds since the job started.
        :param left: seconds until a deadline; the sleep ends there.
        :param log: the job's output; news in it may make an earlier request worthwhile.
        """
        length = interval(self._poll_interval, age, _waiting[self._loop])
        if log is not None and time.monotonic() - log.result_time < LIKELY_END:
            length = min(length, SHORTEST)
        end = time.monotonic() + max(0.05, min(length, left))
        soonest = time.monotonic() + min(length, max(SHORTEST, length / 4))
        while (rest := end - time.monotonic()) > 0:
            if log is None:
                await asyncio.sleep(rest)
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(log.news.wait(), rest)
                log.news.clear()
                now = time.monotonic()
                quiet, self._last_news = now - self._last_news, now
                if quiet >= QUIET:
                    end = min(end, max(now, soonest))
                if now - log.result_time < LIKELY_END:
                    end = min(end, now + SHORTEST)
