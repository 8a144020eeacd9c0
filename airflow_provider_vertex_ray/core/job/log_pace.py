"""When to read a job's output, where no websocket delivers it."""

from __future__ import annotations

import asyncio
import time
import weakref
from types import TracebackType

from airflow_provider_vertex_ray.core.job.log_reader import LogReader

SHORTEST = 0.5
"""Minimum number of seconds between two reads of one job."""

SHARE_OF_AGE = 0.03
"""Share of the time since the first read that is used as the pause, within the other bounds; half of it while the job
prints."""

LONGEST = 6.0
"""Maximum number of seconds between two reads of a job that prints nothing; half of it while it prints."""

LONGEST_AFTER_ERROR = 15.0
"""Maximum number of seconds between two reads that fail."""

READS_PER_SECOND = 50.0
"""Reads per second of all jobs in one event loop together."""

CATCH_UP_RATE = 1 << 20
"""Characters per second that reads may repeat on average, so that a long log is read as a whole less often."""

FIRST_CHECK = 30.0
"""Seconds of silence of a websocket before a read checks on it; doubles with each check that finds nothing."""

LONGEST_CHECK = 480.0
"""Maximum number of these seconds."""

_reading: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, int] = weakref.WeakKeyDictionary()


def read_pause(age: float, new: bool, jobs: int) -> float:
    """Return the seconds until the next read of a job's output.

    :param age: seconds since the first read
    :param new: whether the last read found new output
    :param jobs: number of jobs that are read in this event loop
    """
    pause = min(max(age * SHARE_OF_AGE, SHORTEST), LONGEST)
    return max(pause / 2 if new else pause, jobs / READS_PER_SECOND)


class ReadPace:
    """The reads of one job; a context manager, inside which they count.

    :param reader: what reads
    """

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._begin = self._next = time.monotonic()
        self._last_frame = 0.0
        self._check = FIRST_CHECK

    def __enter__(self) -> ReadPace:
        self._loop = asyncio.get_running_loop()
        _reading[self._loop] = _reading.get(self._loop, 0) + 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _reading[self._loop] -= 1

    @property
    def seconds_left(self) -> float:
        """Return the seconds until the next read; 0 if it is due."""
        return max(0.0, self._next - time.monotonic())

    def read_now(self) -> None:
        """Make the next read due, because a websocket has ended."""
        self._next = time.monotonic()

    def not_before(self, seconds: float) -> None:
        """Give a new websocket some seconds before the next read."""
        self._next = max(self._next, time.monotonic() + seconds)

    def check_after(self, last_frame: float) -> None:
        """Postpone the next read, because a websocket delivers the output.

        :param last_frame: monotonic time at which it last delivered something
        """
        if last_frame > self._last_frame:
            self._last_frame, self._check = last_frame, FIRST_CHECK
        self._next = max(self._next, last_frame + self._check)

    async def read(self) -> bool:
        """Read, and plan the next read; return whether there was new output."""
        new = await self._reader.read_new()
        self._check = min(self._check * 2, LONGEST_CHECK)
        now = time.monotonic()
        if self._reader.failures:
            pause = min(SHORTEST * 2**self._reader.failures, LONGEST_AFTER_ERROR)
        else:
            pause = read_pause(now - self._begin, new, _reading[self._loop])
        self._next = now + max(pause, self._reader.repeated / CATCH_UP_RATE)
        return new
