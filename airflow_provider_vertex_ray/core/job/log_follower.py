"""A job's output: each line once, in order, across connections and processes, in bounded memory.

There are three ways to it:

- Ray's state API returns the last lines of the log file, as bytes. Each read continues where the known output ends
  (``log_end``), so its cost does not grow with the log. It works without websockets and for output that is not UTF-8.
- ``GET …/logs`` returns the whole log as JSON, for which Ray's head node reads the file into memory. It is the way to
  clusters without the state API, used rarely while a job runs, and whatever the log's length once the job has ended.
- A websocket delivers lines as they are written, from the log's beginning. It is used where it proves to pass; reads
  check on one that is silent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_vertex_ray.core.deadlines import set_within
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.log_end import KnownEnd
from airflow_provider_vertex_ray.core.job.log_lines import LONGEST_LINE, Line, LineAssembler
from airflow_provider_vertex_ray.core.job.log_listener import Listener
from airflow_provider_vertex_ray.core.job.log_pace import ReadPace
from airflow_provider_vertex_ray.core.job.log_reader import LogReader
from airflow_provider_vertex_ray.core.job.log_tidy import LogTidy
from airflow_provider_vertex_ray.core.job.result_line import is_result, read_result, result_size
from airflow_provider_vertex_ray.core.job.secret_mask import SecretMask
from airflow_provider_vertex_ray.errors import JobNotFoundError, NotAuthorisedError, NotStorableError, storable_text

log = logging.getLogger(__name__)

KEPT_LINES = 50
"""Number of last lines that are kept."""

LONGEST_KEPT = 1_000
"""Characters of a kept last line, and of a result line in the log: they are part of the trigger's event, of errors and
of XCom."""

PIECE = 8_192
"""Characters of a log that are processed at a time, before other tasks of the event loop may run."""

HEAD_START = 1.0
"""Seconds that a new websocket has before the output is read in another way."""

LAG = 5.0
"""Seconds within which a websocket must deliver output that a read has found; otherwise it is closed as silent."""

LONGEST_REPLAY = 4 << 20
"""Characters of output after which no further websocket is opened, because it would repeat all of them."""

FIRST_PAUSE = 0.5
"""Seconds before another websocket of a job is opened; doubles while they deliver nothing new."""

LONGEST_PAUSE = 60.0
"""Maximum number of these seconds."""

SHORTEST_PAUSE = 0.1
"""Minimum number of seconds between two looks at what is due."""

NOTHING_DUE = (0, float("inf"))

DRAIN_QUIET = 4.0
"""Seconds of silence after which the websocket of an ended job has delivered everything: Ray checks the file every two
seconds, and holds back an unfinished frame for one more second."""

DRAIN_PAUSE = 0.1
"""Seconds before a failed read of an ended job's log is repeated; doubles with each failure, up to the 20-fold."""

DRAIN_LIMIT = 60.0
"""Seconds without new output after which reading the rest of an ended job's log is abandoned."""

DRAIN_LONGEST = 600.0
"""Maximum number of seconds for the rest of an ended job's log: processes that it left behind may print forever."""

DRAIN_READS = 4
"""Reads of an ended job's log that may fail before other ways are tried."""

GOES_ON = "--- output continues here after a restart of the triggerer; some of the lines above may be repeated ---"
BEGINS_ANEW = "--- the output is now shorter than what was already shown; showing it again from its beginning ---"
LEFT_OUT = "--- some of the output could not be read and is missing here ---"


class JobLog:
    """Follows the output of one job until ``finish`` is called, after the job has ended.

    :param api: Jobs API of the cluster
    :param submission_id: the job
    :param emit: receives each line, for the task's log; None to keep only the last lines
    :param hidden: secret texts, which are replaced by ``***`` if they have five characters or more
    :param position: number of characters that an earlier process has shown (its ``position``); they are read but not
        shown again
    :param tidy: whether control sequences and redraws of progress bars are left out, see ``log_tidy``
    """

    def __init__(
        self,
        api: JobsApi,
        submission_id: str,
        emit: Callable[[str], None] | None,
        *,
        hidden: Sequence[str] = (),
        position: int = 0,
        tidy: bool = True,
    ) -> None:
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        """The last lines as they are shown, truncated after ``LONGEST_KEPT`` characters."""
        self.result: Any = None
        """The value of the last result line."""
        self.result_error: NotStorableError | None = None
        """Why the last result line has no value that Airflow can store."""
        self.result_time = float("-inf")
        """Monotonic time at which the last result line arrived: jobs often end soon after it."""
        self.problem = ""
        """Why the output could not be read to its end, once ``finish`` has returned; empty if it was."""
        self.news = asyncio.Event()
        """Set when new output arrives or a connection ends: a good time to read the job's status."""
        self.node_id: str | None = None
        """Ray's id of the node of the job's driver, once it is known; it makes reads cheaper for Ray."""
        self._api = api
        self._submission_id = submission_id
        self._emit = emit
        self._mask = SecretMask(hidden)
        self._tidies = tidy
        self._shown_before = position
        self._marker = GOES_ON if position else ""
        self._begin_anew()
        self._reader = LogReader(api, submission_id, self)
        self._task: asyncio.Task[Any] | None = None
        self._woken = asyncio.Event()
        self._listener: Listener | None = None
        self._next_listener = 0.0
        self._fruitless = 0
        # Position that the websocket must reach by a time, because a read has found that much.
        self._due = NOTHING_DUE

    @property
    def position(self) -> int:
        """Return the number of characters of the output that were shown, up to the end of a line."""
        return max(self._shown_before, self._assembler.complete)

    @property
    def delivered(self) -> int:
        """Return the number of characters of the output that were received."""
        return self._assembler.delivered

    @property
    def end(self) -> KnownEnd:
        """Return the last characters that were received."""
        return self._end

    @property
    def shown_before(self) -> int:
        """Return the number of characters that an earlier process has shown."""
        return self._shown_before

    def start(self) -> None:
        """Start to follow the output in the background."""
        self._task = asyncio.create_task(self._follow())

    async def finish(self) -> None:
        """Read the rest of the output of a job that has ended, then stop following."""
        begin = time.monotonic()
        reading = asyncio.create_task(self._read_rest())
        try:
            while not reading.done():
                known = self.delivered
                await asyncio.wait({reading}, timeout=DRAIN_LIMIT)
                late = self.delivered == known or time.monotonic() - begin > DRAIN_LONGEST
                if late and not reading.done():
                    self.problem = f"reading it took too long. {self.problem}".strip()
                    break
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            await self.cancel()
        if not reading.cancelled() and (failure := reading.exception()) is not None:
            self.problem = f"{type(failure).__name__}: {failure}"
        if self.problem:
            log.warning(
                "Could not read the rest of the output of Ray job %s; its last lines may be missing: %s",
                self._submission_id,
                self.problem,
            )
        self._assembler.flush()
        self._tidy.close()

    async def cancel(self) -> None:
        """Stop following at once."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})

    async def feed(self, text: str, at: int) -> int:
        """Process a piece of the output; what of it was received before is skipped.

        :param text: the piece
        :param at: number of characters of the output before it
        :return: number of characters of the output up to its end
        """
        text = storable_text(text)
        end = at + len(text)
        if end <= self.delivered:
            # Also between frames: those that have already arrived are processed without a wait.
            await asyncio.sleep(0)
            return end
        for start in range(max(0, self.delivered - at), len(text), PIECE):
            if new := self._assembler.feed(text[start : start + PIECE], at + start):
                self._end.append(new)
                self.news.set()
            await asyncio.sleep(0)
        return end

    def skip_gap(self) -> None:
        """Note that what is fed next does not follow what was received so far."""
        self._assembler.flush()
        self._tidy.close()
        self._shown_before, self._marker = min(self._shown_before, self.delivered), LEFT_OUT

    def begin_anew(self) -> None:
        """Forget everything: this is another log than an earlier process has shown."""
        # Repeated lines are better than missing ones.
        self._shown_before, self._marker = 0, BEGINS_ANEW
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.last_lines.clear()
        self.result, self.result_error = None, None
        # A secret may cross the place where a line is truncated: it is masked before that.
        self._assembler = LineAssembler(self._take, LONGEST_LINE + self._mask.longest)
        self._tidy = LogTidy(self._shown)
        self._end = KnownEnd()

    async def _follow(self) -> None:
        if self._shown_before:
            # Tells whether this is still the log that was shown.
            await self._reader.read()
        routes = self._api.log_routes
        with ReadPace(self._reader) as pace:
            try:
                while True:
                    self._woken.clear()
                    if self._listener is not None and (self._listener.ended or self._is_silent(self._listener)):
                        await self._end_listener(self._listener)
                        pace.read_now()
                    if self._listener is None and self._may_listen():
                        self._listener = self._new_listener()
                        pace.not_before(HEAD_START)
                    listener = self._listener
                    if listener is not None and listener.opened and listener.position >= self.delivered:
                        if listener.position:
                            routes.websocket_works()
                        if routes.websocket_passed:
                            pace.check_after(listener.last_frame)
                    if pace.seconds_left == 0:
                        new = await pace.read()
                        if listener is not None and new and self.delivered > listener.position:
                            self._due = self.delivered, time.monotonic() + LAG
                    # Not longer than until a websocket delivers something or ends.
                    await set_within(self._woken, self._pause(pace.seconds_left))
            finally:
                if self._listener is not None:
                    await self._listener.close()

    def _new_listener(self) -> Listener:
        return Listener(self._api, self._submission_id, self.feed, self._woken, known=self.delivered)

    def _may_listen(self) -> bool:
        """Tell whether to open a websocket now."""
        return (
            time.monotonic() >= self._next_listener
            and self._api.log_routes.websocket_due
            and self.delivered <= LONGEST_REPLAY
        )

    def _is_silent(self, listener: Listener) -> bool:
        """Tell whether a websocket has not delivered in time what a read has found."""
        position, by = self._due
        return listener.position < position and time.monotonic() >= by

    async def _end_listener(self, listener: Listener) -> None:
        """Close a websocket, and plan the next one."""
        routes = self._api.log_routes
        if not listener.position and not routes.websocket_passed:
            routes.websocket_failed()
        self._fruitless = 0 if listener.was_useful(self.delivered) else self._fruitless + 1
        self._next_listener = time.monotonic() + min(FIRST_PAUSE * 2**self._fruitless, LONGEST_PAUSE)
        self._listener, self._due = None, NOTHING_DUE
        self.news.set()
        await listener.close()

    def _pause(self, until_read: float) -> float:
        """Return the seconds until there is something to do."""
        now = time.monotonic()
        if self._listener is None:
            if self.delivered > LONGEST_REPLAY:
                return until_read
            return min(until_read, max(SHORTEST_PAUSE, self._next_listener - now))
        position, by = self._due
        return min(until_read, max(SHORTEST_PAUSE, by - now)) if self._listener.position < position else until_read

    async def _read_rest(self) -> None:
        """Read the rest of the log of a job that has ended."""
        if self._task is not None:
            # The closing handshake of its websocket continues meanwhile.
            self._task.cancel()
        failures, ended_at = 0, -1
        while True:
            known = self.delivered
            error = await self._reader.read(final=True)
            new = self.delivered - known
            if error is None and (self._reader.whole or new == 0):
                self.problem = ""
                return
            if error is None or new:
                failures = 0
                continue
            failures += 1
            self.problem = error.message
            if failures >= DRAIN_READS:
                if isinstance(error, (JobNotFoundError, NotAuthorisedError)):
                    return
                if await self._reader.skip_to_end():
                    self.problem = f"a part of it could not be read: {error.message}"
                    return
                complete, caught_up = await self._listen_until_quiet()
                # Any connection may end early, but two that end at the same place probably reached the end.
                if complete or (caught_up and self.delivered == ended_at):
                    self.problem = ""
                    return
                ended_at = self.delivered
            await asyncio.sleep(min(DRAIN_PAUSE * 2**failures, 20 * DRAIN_PAUSE))

    async def _listen_until_quiet(self) -> tuple[bool, bool]:
        """Process a websocket until it goes quiet or ends.

        :return: whether it repeated everything and then went quiet, and whether it repeated everything
        """
        listener = self._new_listener()
        try:
            while not listener.ended:
                caught_up = listener.opened and listener.position >= self.delivered
                self._woken.clear()
                if not await set_within(self._woken, DRAIN_QUIET if caught_up else None):
                    return True, True
                # Let the task end after its last event.
                await asyncio.sleep(0)
            return False, listener.opened and listener.position >= self.delivered
        finally:
            await listener.close()

    def _take(self, line: Line) -> None:
        if is_result(line.text):
            self._take_result(line)
            shown = self._mask(line.text)[:LONGEST_LINE]
            if len(shown) > LONGEST_KEPT:
                shown = f"{shown[:LONGEST_KEPT]}… ({result_size(line)} bytes)"
            self._tidy.take(shown, line.start)
        elif self._tidies:
            # Before the mask: a control sequence inside a secret would hide it from the mask.
            self._tidy.take(line.text, line.start)
        else:
            self._shown(line.text, line.start)

    def _shown(self, text: str, start: int) -> None:
        shown = self._mask(text)[:LONGEST_LINE]
        self.last_lines.append(shown[:LONGEST_KEPT])
        if start >= self._shown_before:
            self._show(shown)

    def _take_result(self, line: Line) -> None:
        self.result, self.result_error, self.result_time = None, None, time.monotonic()
        try:
            self.result = read_result(line, log.warning)
        except ValueError as error:
            log.warning("Ignoring the job's result of %d bytes, which is not JSON: %s", result_size(line), error)
        except NotStorableError as error:
            self.result_error = error

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
