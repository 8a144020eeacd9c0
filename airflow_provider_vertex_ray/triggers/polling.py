"""How often a job is asked for: soon after it began, seldom later, and never too often for all waits together."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.log_follower import JobLog

SHORTEST = 0.4
"""Seconds between two requests for one job, at least."""

SHARE_OF_AGE = 0.03
"""An end is noticed after half this share of the job's life, on average, within the other bounds."""

POLLS_PER_SECOND = 50.0
"""Requests of all waits of one event loop together, beyond those that ``poll_interval`` asks for."""

QUIET = 2.0
"""Seconds of silence after which new output, or the end of the log's connection, is a reason to ask at once."""

STARTS_AT_ONCE = 4
"""Waits that open their connections at one time: a triggerer hands over hundreds, which would block the loop."""

LONGEST_START = 0.5
"""Seconds after which a wait that is still opening its connections lets the next one begin."""

_starting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()
_waiting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, int] = weakref.WeakKeyDictionary()


def interval(poll_interval: float, age: float, waits: int) -> float:
    """Seconds until the next request.

    :param poll_interval: Seconds at most.
    :param age: Seconds since the job began.
    :param waits: How many waits share the event loop.
    """
    return min(poll_interval, max(SHORTEST, age * SHARE_OF_AGE, waits / POLLS_PER_SECOND))


async def take_turn() -> Callable[[], None]:
    """Return when it is this wait's turn to open its connections; what is returned is to be called when they are."""
    loop = asyncio.get_running_loop()
    gate = _starting.setdefault(loop, asyncio.Semaphore(STARTS_AT_ONCE))
    await gate.acquire()
    # Once by the wait and once by the clock: the first counts.
    held = [gate]

    def release() -> None:
        timer.cancel()
        while held:
            held.pop().release()

    timer = loop.call_later(LONGEST_START, release)
    return release


class Pace:
    """The pauses of one wait; a context manager, within which the wait counts.

    :param poll_interval: Seconds between two requests at most.
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
        """Return when it is time to ask again.

        :param age: Seconds since the job began.
        :param left: Seconds until a deadline, which is not slept over.
        :param log: The job's output, whose news may make it worth while to ask sooner.
        """
        length = interval(self._poll_interval, age, _waiting[self._loop])
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
