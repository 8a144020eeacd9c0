"""A job's output: each line once, in order, across reconnects, in bounded memory.

Ray sends a job's output over a websocket, ten lines a frame, and from the beginning with each connection. If
connections always end before they deliver anything new, the whole log is read with ``GET …/logs``, as a stream. For
each of these requests, Ray's head node reads the file into memory, so they are few, and none if the log is long.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.log_lines import LONGEST_LINE, Line, LineAssembler, SecretMask
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES, RESULT_MARKER
from airflow_provider_vertex_ray.errors import JobNotFoundError, NotAuthorisedError, VertexRayError

log = logging.getLogger(__name__)

KEPT_LINES = 50
"""Number of last lines that are kept."""

LONGEST_KEPT = 1_000
"""Characters of a kept last line, and of a result line in the log: they are part of the trigger's event, of errors and
of XCom."""

PIECE = 8_192
"""Characters of a log that are processed at a time, before other tasks of the event loop may run."""

LONGEST_CATCH_UP = 64 << 20
"""Maximum length in characters of a log that is read with GET; a longer one is only read from the websocket."""

FIRST_PAUSE = 0.5
"""Seconds before the first new connection; the pause doubles while connections deliver nothing new."""

BUSY_PAUSE = 15.0
"""Maximum number of seconds between two reads with GET, while they deliver something new."""

LONGEST_PAUSE = 60.0
"""Maximum number of seconds between two connections."""

CATCH_UP_RATE = 1 << 20
"""Characters per second that reads with GET may request on average, so that a long log is read less often."""

STEADY = 30.0
"""Seconds after which a connection counts as successful, even if it ended without output."""

DRAIN_QUIET = 4.0
"""Seconds of silence after which the websocket of an ended job has delivered everything: Ray checks the file every two
seconds, and holds back an unfinished frame for one more second."""

DRAIN_CLOSE = 2.0
"""Seconds after which the end of an ended job's websocket counts as the end of the log, if this cannot be verified: Ray
closes it more than three seconds after the job's end."""

DRAIN_LIMIT = 60.0
"""Seconds without new output after which reading the rest of an ended job's log is abandoned."""

DRAIN_LONGEST = 600.0
"""Maximum number of seconds for the rest of an ended job's log: processes that it left behind may print forever."""

DRAIN_READS = 3
"""Reads of an ended job's log that may fail before its websocket is used as well."""

CLOSING = 0.2
"""Seconds for the closing handshake of the websocket."""

GOES_ON = "--- output continues here after a restart of the triggerer; some of the lines above may be repeated ---"
BEGINS_ANEW = "--- the output is now shorter than what was already shown; showing it again from its beginning ---"


class JobLog:
    """Follows the output of one job until ``finish`` is called, after the job has ended.

    :param api: Jobs API of the cluster
    :param submission_id: the job
    :param emit: receives each line, for the task's log; None to keep only the last lines
    :param hidden: secret texts, which are replaced by ``***`` if they have five characters or more
    :param position: number of characters that an earlier process has shown (its ``position``); they are read but not
        shown again
    """

    def __init__(
        self,
        api: JobsApi,
        submission_id: str,
        emit: Callable[[str], None] | None,
        *,
        hidden: Sequence[str] = (),
        position: int = 0,
    ) -> None:
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        """The last lines as they are shown, truncated after ``LONGEST_KEPT`` characters."""
        self.result: Any = None
        """The value of the last result line."""
        self.news = asyncio.Event()
        """Set when new output arrives or a connection ends: a good time to read the job's status."""
        self._api = api
        self._submission_id = submission_id
        self._emit = emit
        self._mask = SecretMask(hidden)
        self._shown_before = position
        self._marker = GOES_ON if position else ""
        self._assembler = self._new_assembler()
        self._task: asyncio.Task[Any] | None = None
        self._heard = asyncio.Event()
        self._connected = False
        self._warned_too_long = False

    @property
    def position(self) -> int:
        """Return the number of characters of the output that were shown, up to the end of a line."""
        return max(self._shown_before, self._assembler.complete)

    def start(self) -> None:
        """Start to follow the output in the background."""
        self._task = asyncio.create_task(self._follow())

    async def finish(self) -> None:
        """Read the rest of the output of a job that has ended, then stop following."""
        begin = time.monotonic()
        reading = asyncio.create_task(self._read_rest())
        try:
            while not reading.done():
                known = self._assembler.delivered
                await asyncio.wait({reading}, timeout=DRAIN_LIMIT)
                late = self._assembler.delivered == known or time.monotonic() - begin > DRAIN_LONGEST
                if late and not reading.done():
                    log.warning(
                        "Reading the rest of the output of Ray job %s took too long; its last lines may be missing",
                        self._submission_id,
                    )
                    break
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            await self.cancel()
        self._assembler.flush()

    async def cancel(self) -> None:
        """Stop following at once."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        # Not "await task", which could not distinguish its cancellation from our own.
        await asyncio.wait({task}, timeout=CLOSING)
        # Ray does not answer the closing handshake of a websocket.
        task.cancel()
        await asyncio.wait({task})

    async def _follow(self) -> None:
        if self._shown_before:
            # Tells whether this is still the log that was shown; a websocket does not tell where the log ends.
            await self._read()
        fruitless, longest = 0, LONGEST_PAUSE
        while True:
            begin, known = time.monotonic(), self._assembler.delivered
            caught_up = await self._listen()
            self.news.set()
            if self._assembler.delivered > known or (caught_up and time.monotonic() - begin >= STEADY):
                fruitless, longest = 0, LONGEST_PAUSE
            else:
                fruitless += 1
                await self._read()
                longest = BUSY_PAUSE if self._assembler.delivered > known else LONGEST_PAUSE
            pause: float = min(FIRST_PAUSE * 2**fruitless, longest)
            await asyncio.sleep(max(pause, self._assembler.delivered / CATCH_UP_RATE if fruitless else 0))

    async def _listen(self) -> bool:
        """Process one connection to its end; return whether it got as far as those before."""
        opened = False
        self._assembler.reconnected()
        try:
            async with self._api.tail(self._submission_id) as frames:
                self._connected = opened = True
                self._heard.set()
                async for text in frames:
                    await self._feed(text)
                    self._heard.set()
        except VertexRayError as error:
            log.debug("Could not open the log stream of Ray job %s: %s", self._submission_id, error)
        except Exception:
            log.warning("The log stream of Ray job %s failed; reconnecting", self._submission_id, exc_info=True)
        finally:
            self._connected = False
            self._heard.set()
        return opened and self._assembler.caught_up

    async def _read(self) -> VertexRayError | None:
        """Process the whole log so far, unless it is too long; return the error if that fails."""
        if self.position > LONGEST_CATCH_UP:
            if not self._warned_too_long:
                log.warning(
                    "Ray job %s has a long log (more than %d MiB); lines may be missing if a connection ends early",
                    self._submission_id,
                    LONGEST_CATCH_UP >> 20,
                )
                self._warned_too_long = True
            return VertexRayError("The log is too long to be read again.")
        self._assembler.reconnected()
        length = 0
        try:
            async with self._api.log_so_far(self._submission_id) as pieces:
                async for text in pieces:
                    length += len(text)
                    await self._feed(text)
        except VertexRayError as error:
            log.debug("Could not read the log of Ray job %s: %s", self._submission_id, error)
            return error
        except Exception as error:
            log.warning("Could not read the log of Ray job %s", self._submission_id, exc_info=True)
            return VertexRayError(f"The log could not be read: {error!r}")
        if 0 < length < self._shown_before:
            # This is another log than the earlier process saw: repeated lines are better than missing ones.
            self._shown_before, self._marker = 0, BEGINS_ANEW
            self.last_lines.clear()
            self.result = None
            self._assembler = self._new_assembler()
            return await self._read()
        return None

    async def _read_rest(self) -> None:
        """Read the rest of the log of a job that has ended."""
        if self.position > LONGEST_CATCH_UP and await self._drain_connection():
            return
        if self._task is not None:
            # It delivers nothing more; its closing handshake continues meanwhile.
            self._task.cancel()
        failures, known = 0, -1
        while True:
            error = await self._read()
            if error is None:
                return
            failures += 1
            if failures >= DRAIN_READS and isinstance(error, (JobNotFoundError, NotAuthorisedError)):
                log.warning(
                    "Could not read the rest of the output of Ray job %s; its last lines may be missing: %s",
                    self._submission_id,
                    error,
                )
                return
            if failures >= DRAIN_READS or self.position > LONGEST_CATCH_UP:
                complete, caught_up = await self._listen_until_quiet()
                # Any connection may end early, but two that end at the same place probably reached the end.
                if complete or (caught_up and self._assembler.delivered == known):
                    return
                known = self._assembler.delivered
            await asyncio.sleep(min(0.1 * 2**failures, 5.0))

    async def _drain_connection(self) -> bool:
        """Wait for the open connection to go quiet; return whether it delivered everything.

        A new connection would repeat a very long log.
        """
        if not self._connected or not self._assembler.caught_up:
            return False
        begin = time.monotonic()
        while self._connected:
            self._heard.clear()
            try:
                await asyncio.wait_for(self._heard.wait(), DRAIN_QUIET)
            except asyncio.TimeoutError:
                return True
        return time.monotonic() - begin >= DRAIN_CLOSE

    async def _listen_until_quiet(self) -> tuple[bool, bool]:
        """Open a connection and process it until it goes quiet.

        :return: whether it repeated everything and then went quiet, and whether it repeated everything
        """
        await self.cancel()
        self._task = listening = asyncio.create_task(self._listen())
        try:
            while not listening.done():
                self._heard.clear()
                quiet = DRAIN_QUIET if self._connected and self._assembler.caught_up else None
                try:
                    await asyncio.wait_for(self._heard.wait(), quiet)
                except asyncio.TimeoutError:
                    return True, True
                # Let the task end after its last event.
                await asyncio.sleep(0)
            return False, listening.result()
        finally:
            await self.cancel()

    def _new_assembler(self) -> LineAssembler:
        # A secret may cross the place where a line is truncated: it is masked before that.
        return LineAssembler(self._take, LONGEST_LINE + self._mask.longest)

    async def _feed(self, text: str) -> None:
        for start in range(0, len(text), PIECE):
            if self._assembler.feed(text[start : start + PIECE]):
                self.news.set()
            # Also between frames: those that have already arrived are processed without a wait.
            await asyncio.sleep(0)

    def _take(self, line: Line) -> None:
        shown = self._mask(line.text)[:LONGEST_LINE]
        if line.text.startswith(RESULT_MARKER):
            size = len(line.text[len(RESULT_MARKER) :].encode("utf-8", "replace")) + line.dropped
            self.result = self._result(line.text[len(RESULT_MARKER) :], size)
            if len(shown) > LONGEST_KEPT:
                shown = f"{shown[:LONGEST_KEPT]}… ({size} bytes)"
        self.last_lines.append(shown[:LONGEST_KEPT])
        if line.start >= self._shown_before:
            self._show(shown)

    def _result(self, text: str, size: int) -> Any:
        if size > MAX_RESULT_BYTES:
            log.warning("Ignoring the job's result of %d bytes; the limit is %d bytes", size, MAX_RESULT_BYTES)
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            log.warning("Ignoring the job's result of %d bytes, which is not JSON: %s", size, error)
            return None

    def _show(self, line: str) -> None:
        if self._emit is None:
            return
        try:
            if self._marker:
                self._emit(self._marker)
                self._marker = ""
            self._emit(line)
        except Exception:
            # A problem with the task's log must not affect the job or its outcome.
            log.warning("No longer showing the output of Ray job %s", self._submission_id, exc_info=True)
            self._emit = None
