"""The ways to the logs of one dashboard, and which of them were found to work.

Whether websockets pass the proxy in front of a dashboard is not documented, and probably they do not. So they are used
where they prove to pass, and all waits on one dashboard share what one of them has found out.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.http.transport import Transport

FIRST_PAUSE = 2.0
"""Seconds before another websocket is tried after the first one that failed; four times as many after each other."""

LONGEST_PAUSE = 600.0
"""Maximum number of these seconds."""


class LogRoutes:
    """What is known about one dashboard."""

    def __init__(self) -> None:
        self.websocket_passed = False
        """Whether a websocket has delivered output."""
        self.has_files: bool | None = None
        """Whether the state API returns log files as bytes; None if unknown."""
        self.asking: asyncio.Future[bool] | None = None
        """The question for that, while it is not answered."""
        self._files_again = 0.0
        self._failures = 0
        self._next_try = 0.0

    @property
    def websocket_due(self) -> bool:
        """Whether to try a websocket now."""
        return time.monotonic() >= self._next_try

    def websocket_works(self) -> None:
        """Note that a websocket has delivered output."""
        self.websocket_passed = True
        self._failures, self._next_try = 0, 0.0

    def websocket_failed(self) -> None:
        """Note that a websocket was refused, hung, or delivered nothing."""
        pause = min(FIRST_PAUSE * 4**self._failures, LONGEST_PAUSE)
        self._failures = min(self._failures + 1, 10)
        self._next_try = time.monotonic() + pause

    @property
    def files_due(self) -> bool:
        """Whether to try log files now."""
        return time.monotonic() >= self._files_again

    def files_failed(self) -> None:
        """Note that the dashboard, or the proxy in front of it, says that it has no log files."""
        # A single odd answer must not decide for as long as a triggerer runs.
        self.has_files, self._files_again = None, time.monotonic() + LONGEST_PAUSE


_known: weakref.WeakKeyDictionary[Transport, dict[str, LogRoutes]] = weakref.WeakKeyDictionary()


def routes_of(transport: Transport, dashboard: str) -> LogRoutes:
    """Return what is known about a dashboard, for as long as its transport is in use."""
    return _known.setdefault(transport, {}).setdefault(dashboard, LogRoutes())
