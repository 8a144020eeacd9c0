"""A job's output as lines: each once, in order, over reconnects, in bounded memory."""

from __future__ import annotations

import asyncio
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
LONGEST_KEPT = 1_000
"""Characters of a kept last line: they travel in the trigger's event, in errors and in XCom."""

LONGEST_LINE = 16_384
"""Characters of a line that are kept; a progress bar that never ends a line must not fill the memory."""

LONGEST_WHOLE = 1 << 20
"""Characters of a log that is read in one piece at the job's end."""

DRAIN_QUIET = 2.0
"""Seconds without output after which an ended job's log counts as read: Ray's tail looks at the file once a second."""

DRAIN_LIMIT = 60.0
"""Seconds at most for the rest of an ended job's log."""

DRAIN_TRIES = 5
"""Connections at most for the rest of an ended job's log."""


class LineAssembler:
    """Cuts text into lines; text that a new connection repeats from the beginning is passed over.

    :param emit: Gets each complete line, without its end.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self.delivered = 0
        """Characters that were taken so far, repetitions not counted."""
        self._to_skip = 0
        self._rest = ""
        self._cut = False

    @property
    def caught_up(self) -> bool:
        """Whether this connection has repeated all that was taken before it."""
        return self._to_skip == 0

    def reconnected(self) -> None:
        """A new connection starts: it repeats everything that was delivered so far."""
        self._to_skip = self.delivered

    def feed(self, text: str) -> None:
        """Take the next piece of the connection's text."""
        if self._to_skip:
            skipped = min(self._to_skip, len(text))
            self._to_skip -= skipped
            text = text[skipped:]
        self.delivered += len(text)
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
            # First cut, then stripped: what is given out must not depend on how the text came in pieces.
            self._emit(line[:LONGEST_LINE].rstrip("\r"))


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
        self._connected = False
        self._read_all = False
        self.closed = asyncio.Event()
        """Set whenever a connection ended: a good moment to ask for the job's status."""

    def start(self) -> None:
        """Begin to follow, in the background."""
        self._task = asyncio.create_task(self._follow())

    async def finish(self) -> None:
        """The job has ended: read what is left, then stop following."""
        try:
            if not await self._take_whole():
                await asyncio.wait_for(self._read_rest(), DRAIN_LIMIT)
        except asyncio.TimeoutError:
            log.warning("The log of %s was not read to its end", self._submission_id)
        await self.cancel()
        self._assembler.flush()

    async def cancel(self) -> None:
        """Stop following at once."""
        if self._task is not None:
            self._task.cancel()
            # Not "await task": that could not tell its cancellation from our own.
            await asyncio.wait({self._task})
            self._task = None

    async def _take_whole(self) -> bool:
        """Compare with the whole log in one request, which is quicker and surer than any tail; not with a long one."""
        if self._assembler.delivered > LONGEST_WHOLE:
            return False
        # From here on the tail must not deliver anything between.
        await self.cancel()
        try:
            text = await self._api.whole_log(self._submission_id, longest=LONGEST_WHOLE)
        except VertexRayError as error:
            log.debug("The log of %s could not be read: %s", self._submission_id, error)
            return False
        if text is not None:
            self._assembler.reconnected()
            self._assembler.feed(text)
        return text is not None

    async def _read_rest(self) -> None:
        """Return when a connection repeated all that is known, and then ended or was quiet for a time."""
        if not self._connected:
            await self._restart()
        known = self._assembler.delivered
        for _ in range(DRAIN_TRIES):
            self.closed.clear()
            while not self.closed.is_set():
                self._heard.clear()
                quiet = DRAIN_QUIET if self._connected and self._assembler.caught_up else None
                try:
                    await asyncio.wait_for(self._heard.wait(), quiet)
                except asyncio.TimeoutError:
                    return
            if self._read_all and self._assembler.delivered == known:
                return
            known = self._assembler.delivered
            await self._restart()

    async def _restart(self) -> None:
        await self.cancel()
        self.start()

    async def _follow(self) -> None:
        failures = 0
        while True:
            self._read_all = False
            self._assembler.reconnected()
            try:
                async with self._api.tail(self._submission_id) as frames:
                    self._connected = True
                    self._heard.set()
                    async for text in frames:
                        failures = 0
                        self._assembler.feed(text)
                        self._heard.set()
                    self._read_all = self._assembler.caught_up
            except VertexRayError as error:
                log.debug("The log tail of %s could not be opened: %s", self._submission_id, error)
            except Exception:
                log.warning("The log tail of %s broke", self._submission_id, exc_info=True)
            finally:
                self._connected = False
            failures += 1
            self.closed.set()
            self._heard.set()
            await asyncio.sleep(min(0.5 * 2**failures, 30.0))

    def _take(self, line: str) -> None:
        self.last_lines.append(line[:LONGEST_KEPT])
        if line.startswith(RESULT_MARKER):
            try:
                self.result = json.loads(line[len(RESULT_MARKER) :])
            except ValueError:
                log.warning("The job's result line is not JSON: %.200s", line)
        if self._emit is not None:
            try:
                self._emit(line)
            except Exception:
                # The job goes on, and its outcome counts, whatever is wrong with the task's log.
                log.warning("The output of %s can not be shown", self._submission_id, exc_info=True)
                self._emit = None
