"""The channel through which Airflow 3 reads the lines that a trigger logs."""

from __future__ import annotations

import array
import asyncio
import os
import stat
import sys
import time

READ_SECONDS = 5.0
"""Longest wait for Airflow to read what was logged; the lines of all triggers share the channel."""

_PAUSE = 0.02


async def lines_are_read(seconds: float = READ_SECONDS) -> None:
    """Wait until Airflow has read all lines that were logged so far.

    The triggerer's process for the logs reads at most 4 KiB at a time, and closes a task's log as soon as it hears
    that the trigger has ended: what it has not read by then goes to the triggerer's own log, such as the error with
    which a task ends, or the last lines of its job. (Seen with Airflow 3.3.2; 3.1 and 3.2 have the same code.)

    :param seconds: longest wait
    """
    deadline = time.monotonic() + seconds
    while _unread_bytes() and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells when it was read
        await asyncio.sleep(_PAUSE)


def _unread_bytes() -> int:
    """Return how much the channel holds that was not read; 0 where there is no such channel."""
    # Airflow 2 need not have it.
    structlog = sys.modules.get("structlog")
    if structlog is None:
        return 0
    try:
        import fcntl
        import termios

        channel = structlog.get_config()["logger_factory"].io.fileno()
        if not stat.S_ISSOCK(os.fstat(channel).st_mode):
            return 0
        unread = array.array("i", [0])
        fcntl.ioctl(channel, termios.TIOCOUTQ, unread)
    except (ImportError, KeyError, AttributeError, OSError, ValueError):
        return 0
    return unread[0]
