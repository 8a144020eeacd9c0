"""A job's output as lines: each once, in order, over reconnects, in bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from airflow_provider_vertex_ray.api.jobs import JobsApi
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.job_state import RESULT_MARKER

log = logging.getLogger(__name__)

KEPT_LINES = 50
LONGEST_LINE = 16_384
"""Characters of a line that are kept; a progress bar that never ends a line must not fill the memory."""

DRAIN_QUIET = 2.0
"""Seconds without output after which an ended job's log counts as read: Ray's tail looks at the file once a second."""

DRAIN_LIMIT = 60.0
"""Seconds at most for the rest of an ended job's log."""


class LineAssembler:
    """Cuts text into lines; text that a new connection repeats from the beginning is passed over.

    :param emit: Gets each complete line, without its end.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._delivered = 0
        self._to_skip = 0
        self._rest = ""
        self._cut = False

    def reconnected(self) -> None:
        """A new connection starts: it repeats everything that was delivered so far."""
        self._to_skip = self._delivered

    def feed(self, text: str) -> None:
        """Take the next piece of the connection's text."""
        if self._to_skip:
            skipped = min(self._to_skip, len(text))
            self._to_skip -= skipped
            text = text[skipped:]
        self._delivered += len(text)
        *lines, rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)
            self._cut = False
        if len(rest) > LONGEST_LINE:
            self._line(rest)
            self._cut = True
            rest = ""
        self._rest = rest

    def flush(self) -> None:
        """Give out an unfinished last line."""
        if self._rest:
            self._line(self._rest)
        self._rest = ""

    def _line(self, line: str) -> None:
        # The rest of a line whose beginning was given out already is dropped, but for its end.
        if not self._cut:
            self._emit(line.rstrip("\r")[:LONGEST_LINE])


class JobLog:
    """Follows one job's output until told that the job has ended.

    :param submission_id: The job.
    :param emit: Gets each line, for the task's log; None keeps the last lines only.
    """

    def __init__(self, api: JobsApi, submission_id: str, emit: Callable[[str], None] | None) -> None:
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.result: Any = None
        self._api = api
        self._submission_id = submission_id
        self._emit = emit
        self._assembler = LineAssembler(self._take)
        self._task: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        self.closed = asyncio.Event()
        """Set whenever a connection ended: a good moment to ask for the job's status."""

    def start(self) -> None:
        """Begin to follow, in the background."""
        self._task = asyncio.create_task(self._follow())

    async def finish(self) -> None:
        """The job has ended: read what is left, then stop following."""
        if self.closed.is_set():
            # The connection ended by itself, maybe before the job did: another one tells whether a rest is missing.
            await self.cancel()
        if self._task is None:
            self.start()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until_quiet(), DRAIN_LIMIT)
        await self.cancel()
        self._assembler.flush()

    async def cancel(self) -> None:
        """Stop following at once."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _until_quiet(self) -> None:
        self.closed.clear()
        while not self.closed.is_set():
            self._heard.clear()
            try:
                await asyncio.wait_for(self._heard.wait(), DRAIN_QUIET)
            except asyncio.TimeoutError:
                return

    async def _follow(self) -> None:
        failures = 0
        while True:
            self._assembler.reconnected()
            try:
                async for text in self._api.tail(self._submission_id):
                    failures = 0
                    self._assembler.feed(text)
                    self._heard.set()
            except VertexRayError as error:
                log.debug("The log tail of %s could not be opened: %s", self._submission_id, error)
            failures += 1
            self.closed.set()
            self._heard.set()
            await asyncio.sleep(min(0.5 * 2**failures, 30.0))

    def _take(self, line: str) -> None:
        self.last_lines.append(line)
        if line.startswith(RESULT_MARKER):
            try:
                self.result = json.loads(line[len(RESULT_MARKER) :])
            except ValueError:
                log.warning("The job's result line is not JSON: %.200s", line)
        if self._emit is not None:
            self._emit(line)
