"""A job's output: each line once, in order, over reconnects, in bounded memory.

Ray sends a job's output over a websocket, ten lines a frame, and from the beginning with each connection. Connections
that always end before they got past what is known would never show anything new; then the whole log is read with
``GET …/logs``, as a stream. For each of these Ray's head reads the file into its memory: they are few, and none when
the log is long.
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
from airflow_provider_vertex_ray.core.job.log_lines import LONGEST_LINE, Hiding, Line, LineAssembler
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES, RESULT_MARKER
from airflow_provider_vertex_ray.errors import JobNotFoundError, NotAuthorisedError, VertexRayError

log = logging.getLogger(__name__)

KEPT_LINES = 50
LONGEST_KEPT = 1_000
"""Characters of a kept last line, and of a result's line where it is shown: they travel in the trigger's event, in
errors and in XCom."""

PIECE = 8_192
"""Characters of a log that are taken at a time, between which other waits of the event loop have their turn."""

LONGEST_CATCH_UP = 64 << 20
"""Characters of a log that is read with GET; of a longer one only what the websocket says is shown."""

FIRST_PAUSE = 0.5
"""Seconds before the first new connection. The pause doubles while connections bring nothing new."""

BUSY_PAUSE = 15.0
"""Seconds between two reads with GET, at most, while they bring something new."""

LONGEST_PAUSE = 60.0
"""Seconds between two connections, at most."""

CATCH_UP_RATE = 1 << 20
"""Characters a second that reads with GET may ask for on average, so that a long log is read less often."""

STEADY = 30.0
"""Seconds after which a connection that ended was a good one, even without output."""

DRAIN_QUIET = 4.0
"""Seconds of silence after which an ended job's websocket has said everything: Ray looks at the file every two seconds,
and holds back an unfinished frame for one more."""

DRAIN_CLOSE = 2.0
"""Seconds after which the end of an ended job's websocket is taken for the end of the log, where this can not be
checked: Ray closes it more than three seconds after the job's end."""

DRAIN_LIMIT = 60.0
"""Seconds without anything new after which the rest of an ended job's log is given up."""

DRAIN_LONGEST = 600.0
"""Seconds at most for the rest of an ended job's log: what the job has left behind may print for ever."""

DRAIN_READS = 3
"""Reads of an ended job's log that may fail before its websocket is tried too."""

CLOSING = 0.2
"""Seconds for the websocket's goodbye."""

GOES_ON = "--- the output goes on here after a restart of the triggerer; some lines before may be shown twice ---"
BEGINS_ANEW = "--- the output is shorter than what was shown before; it is shown from its beginning ---"


class JobLog:
    """Follows one job's output until told that the job has ended.

    :param submission_id: The job.
    :param emit: Gets each line, for the task's log; None keeps the last lines only.
    :param hidden: Texts that are replaced by ``***`` in what is shown, if they have five characters or more.
    :param position: So many characters were shown by an earlier process (its ``position``); they are read, and not
        shown again.
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
        """As they are shown; cut at ``LONGEST_KEPT`` characters."""
        self.result: Any = None
        """What the last result line said."""
        self.news = asyncio.Event()
        """Set whenever new output came or a connection ended: a good moment to ask for the job's status."""
        self._api = api
        self._submission_id = submission_id
        self._emit = emit
        self._hide = Hiding(hidden)
        self._shown_before = position
        self._marker = GOES_ON if position else ""
        self._assembler = self._new_assembler()
        self._task: asyncio.Task[Any] | None = None
        self._heard = asyncio.Event()
        self._connected = False
        self._said_too_long = False

    @property
    def position(self) -> int:
        """Characters of the output that were shown, up to the end of a line."""
        return max(self._shown_before, self._assembler.complete)

    def start(self) -> None:
        """Begin to follow, in the background."""
        self._task = asyncio.create_task(self._follow())

    async def finish(self) -> None:
        """The job has ended: read what is left, then stop following."""
        begin = time.monotonic()
        reading = asyncio.create_task(self._read_rest())
        try:
            while not reading.done():
                known = self._assembler.delivered
                await asyncio.wait({reading}, timeout=DRAIN_LIMIT)
                late = self._assembler.delivered == known or time.monotonic() - begin > DRAIN_LONGEST
                if late and not reading.done():
                    log.warning("The output of %s was not read to its end; it took too long", self._submission_id)
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
        # Not "await task": that could not tell its cancellation from our own.
        await asyncio.wait({task}, timeout=CLOSING)
        # Ray does not answer a websocket's goodbye.
        task.cancel()
        await asyncio.wait({task})

    async def _follow(self) -> None:
        if self._shown_before:
            # Tells whether it is the log that was shown; a websocket can not, it does not say where the log ends.
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
        """Take what one connection says, to its end; whether it came as far as those before."""
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
            log.debug("The log tail of %s could not be opened: %s", self._submission_id, error)
        except Exception:
            log.warning("The log tail of %s broke", self._submission_id, exc_info=True)
        finally:
            self._connected = False
            self._heard.set()
        return opened and self._assembler.caught_up

    async def _read(self) -> VertexRayError | None:
        """Take the whole log so far, unless it is too long; gives why that failed."""
        if self.position > LONGEST_CATCH_UP:
            if not self._said_too_long:
                log.warning("%s has a long log: lines may be missing when connections end early", self._submission_id)
                self._said_too_long = True
            return VertexRayError("The log is too long to be read again.")
        self._assembler.reconnected()
        length = 0
        try:
            async with self._api.log_so_far(self._submission_id) as pieces:
                async for text in pieces:
                    length += len(text)
                    await self._feed(text)
        except VertexRayError as error:
            log.debug("The log of %s could not be read: %s", self._submission_id, error)
            return error
        except Exception as error:
            log.warning("The log of %s could not be read", self._submission_id, exc_info=True)
            return VertexRayError(f"The log could not be read: {error!r}")
        if 0 < length < self._shown_before:
            # Another log than the earlier process saw: better some lines twice than none.
            self._shown_before, self._marker = 0, BEGINS_ANEW
            self.last_lines.clear()
            self.result = None
            self._assembler = self._new_assembler()
            return await self._read()
        return None

    async def _read_rest(self) -> None:
        """Return when the log of a job that has ended was read."""
        if self.position > LONGEST_CATCH_UP and await self._hear_out():
            return
        if self._task is not None:
            # Nothing comes from it any more; its goodbye to the server goes on meanwhile.
            self._task.cancel()
        failures, known = 0, -1
        while True:
            error = await self._read()
            if error is None:
                return
            failures += 1
            if failures >= DRAIN_READS and isinstance(error, (JobNotFoundError, NotAuthorisedError)):
                log.warning("The output of %s was not read to its end: %s", self._submission_id, error)
                return
            if failures >= DRAIN_READS or self.position > LONGEST_CATCH_UP:
                said_all, caught_up = await self._listen_until_quiet()
                # Any connection may end early; two that end at the same place, probably at the end.
                if said_all or (caught_up and self._assembler.delivered == known):
                    return
                known = self._assembler.delivered
            await asyncio.sleep(min(0.1 * 2**failures, 5.0))

    async def _hear_out(self) -> bool:
        """Whether the connection that is open has said everything: another one would repeat a very long log."""
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
        """Whether a connection repeated all that is known and then was silent; and whether it got so far and ended."""
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
                # The last thing that it does is to say that it has ended.
                await asyncio.sleep(0)
            return False, listening.result()
        finally:
            await self.cancel()

    def _new_assembler(self) -> LineAssembler:
        # A value to hide may lie across the place where a line is cut: it is hidden before that.
        return LineAssembler(self._take, LONGEST_LINE + self._hide.longest)

    async def _feed(self, text: str) -> None:
        for start in range(0, len(text), PIECE):
            if self._assembler.feed(text[start : start + PIECE]):
                self.news.set()
            # Also between frames: those that have come already are taken without a wait.
            await asyncio.sleep(0)

    def _take(self, line: Line) -> None:
        shown = self._hide(line.text)[:LONGEST_LINE]
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
            log.warning("The job's result has %d bytes and is not taken: the limit is %d", size, MAX_RESULT_BYTES)
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            log.warning("The job's result (%d bytes; the limit is %d) is not JSON: %s", size, MAX_RESULT_BYTES, error)
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
            # The job goes on, and its outcome counts, whatever is wrong with the task's log.
            log.warning("The output of %s can not be shown", self._submission_id, exc_info=True)
            self._emit = None
