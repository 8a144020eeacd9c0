"""How often the waits of a triggerer ask for their jobs, and how many of them open their connections at once."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.core.deadlines import set_within

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.log_follower import JobLog

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
            if await set_within(log.news, rest):
                log.news.clear()
                now = time.monotonic()
                quiet, self._last_news = now - self._last_news, now
                if quiet >= QUIET:
                    end = min(end, max(now, soonest))
                if now - log.result_time < LIKELY_END:
                    end = min(end, now + SHORTEST)
