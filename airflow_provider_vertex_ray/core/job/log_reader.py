"""Reads of a job's output with single requests, each of which continues where the known output ends."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Protocol

from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.log_end import WINDOW, Continuation, KnownEnd
from airflow_provider_vertex_ray.core.job.log_lines import LogBytes
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    JobNotFoundError,
    ServiceUnavailableError,
    VertexRayError,
)

log = logging.getLogger(__name__)

ALL = -1
"""Number of lines that stands for the whole file."""

GROWTH = 4
"""Factor by which the number of lines grows when an answer begins after the end of what is known."""

MOST_SEARCHES = 200
"""Number of answers in which the end of what is known is looked for."""

SKIPPED_TO = 5_000
"""Number of last lines to read when the whole log cannot be read."""

SURE = 256 << 10
"""Characters up to which an answer with lines of a log file counts as complete: a proxy may cut a longer one, and
nothing in the answer tells."""

LONGEST_CATCH_UP = 64 << 20
"""Maximum length in characters of a log that is read as JSON while the job runs: Ray's head node keeps it in memory."""


class Output(Protocol):
    """What has been received of a job's output."""

    node_id: str | None

    @property
    def delivered(self) -> int:
        """Return the number of characters that were received."""

    @property
    def end(self) -> KnownEnd:
        """Return the last of them."""

    @property
    def shown_before(self) -> int:
        """Return the number of characters that an earlier process has shown."""

    async def feed(self, text: str, at: int) -> int:
        """Process a piece at a position; return the position after it."""

    def skip_gap(self) -> None:
        """Note that what is fed next does not follow what was received."""

    def begin_anew(self) -> None:
        """Forget everything: this is another log than an earlier process has shown."""


class _LastLines:
    """An answer with the last lines of a file.

    :param asked: number of lines
    :param known: the end of what is known
    """

    def __init__(self, asked: int, known: str) -> None:
        self.asked = asked
        self.received = 0
        """Number of line ends received."""
        self.fresh = 0
        """Those of them after what is known."""
        self.repeated = 0
        """Characters up to the end of what is known."""
        self.new = 0
        """Characters after it."""
        self._continuation = Continuation(known)

    @property
    def found(self) -> bool:
        """Whether it reaches back to what is known."""
        return self._continuation.found

    @property
    def goes_on(self) -> bool:
        """Whether it continues what is known, or is so short that it certainly is complete."""
        return self.found and (self.new > 0 or self.repeated <= SURE)

    @property
    def ambiguous(self) -> bool:
        """Whether its place cannot be told."""
        return self._continuation.ambiguous

    @property
    def unread(self) -> int:
        """Return the number of lines that are still missing if the answer was cut."""
        return max(0, self.asked - self.received) if self.found else 0

    def feed(self, text: str) -> str:
        """Process a piece; return what of it is new."""
        self.received += text.count("\n")
        return self._counted(self._continuation.feed(text), text)

    def close(self) -> str:
        """Process the end of the answer; return what of it is new."""
        return self._counted(self._continuation.close(), "")

    def _counted(self, new: str, text: str) -> str:
        self.fresh += new.count("\n")
        self.new += len(new)
        self.repeated += len(text) - len(new)
        return new


class LogReader:
    """Reads the output of one job.

    :param api: Jobs API of the cluster
    :param submission_id: the job
    :param output: receives what is read
    """

    def __init__(self, api: JobsApi, submission_id: str, output: Output) -> None:
        self.failures = 0
        """Number of reads that failed since the last one that did not."""
        self.repeated = 0
        """Characters of the last read that were known before it."""
        self.whole = False
        """Whether the last read certainly reached the end of the log."""
        self._api = api
        self._submission_id = submission_id
        self._output = output
        # Number of lines that are expected after what is known.
        self._unread = 0
        self._warned_too_long = False

    async def read_new(self) -> bool:
        """Read while the job runs; return whether there was new output."""
        known = self._output.delivered
        await self.read()
        return self._output.delivered > known

    async def read(self, *, final: bool = False) -> VertexRayError | None:
        """Read from the end of what is known to what is written by now.

        :param final: whether the job has ended, so that an unfinished character is its last one
        :return: the error if that fails; what was read before it is not lost
        """
        self.repeated, self.whole = 0, False
        known = self._output.delivered
        try:
            # The ways take turns, because either may fail where the other does not.
            if self.failures % 2 == 0 and await self._api.has_log_files():
                await self._read_file(final)
                self.whole = self.repeated + self._output.delivered - known <= SURE
            else:
                await self._read_answer(final)
                self.whole = True
        except (JobNotFoundError, InvalidRequestError) as error:
            if self.failures % 2 == 0:
                self._api.log_routes.files_failed()
            return self._failed(error, known)
        except VertexRayError as error:
            return self._failed(error, known)
        except Exception as error:
            log.warning("Could not read the log of Ray job %s", self._submission_id, exc_info=True)
            return self._failed(VertexRayError(f"The log could not be read: {type(error).__name__}: {error}"), known)
        self.failures = 0
        return None

    async def skip_to_end(self) -> bool:
        """Read the last lines of the file although they may not follow what is known; return whether there are any."""
        text = LogBytes()
        skipped = False
        try:
            async with self._file(SKIPPED_TO) as pieces:
                async for data in pieces:
                    if not skipped:
                        self._output.skip_gap()
                        skipped = True
                    await self._output.feed(text.feed(data), self._output.delivered)
            await self._output.feed(text.close(), self._output.delivered)
        except VertexRayError as error:
            log.debug("Could not read the last lines of Ray job %s: %s", self._submission_id, error)
        return skipped

    def _failed(self, error: VertexRayError, known: int) -> VertexRayError:
        # An answer that was cut is continued in the same way.
        self.failures = 0 if self._output.delivered > known else self.failures + 1
        log.debug("Could not read the log of Ray job %s: %s", self._submission_id, error)
        return error

    def _file(self, lines: int) -> contextlib.AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._api.log_file(self._submission_id, lines=lines, node_id=self._output.node_id)

    async def _read_file(self, final: bool) -> None:
        """Read the log file from the end of what is known.

        All of it while it is short, and if its last lines cannot be told to follow what is known.
        """
        output = self._output
        if output.delivered <= WINDOW or not await self._read_on(final):
            await self._read_whole_file(final)
        if 0 < output.delivered < output.shown_before:
            output.begin_anew()
            await self._read_whole_file(final)

    async def _read_on(self, final: bool) -> bool:
        """Read the last lines, as many as reach back to what is known.

        How many these are is not known: a proxy may have cut earlier answers, and the job goes on printing.

        :return: False if the place of the lines cannot be told, because they repeat themselves
        :raises ServiceUnavailableError: there is no answer, or only a part of it
        """
        known = self._output.end.text()
        half = max(known.count("\n", len(known) // 2), 1)
        lines, too_few, step = half + self._unread, 0, 0
        for _ in range(MOST_SEARCHES):
            # Again for each answer, because a websocket may deliver output meanwhile.
            end = _LastLines(lines, self._output.end.text())
            await self._read_last_lines(end, final)
            if end.ambiguous or end.goes_on:
                return end.goes_on
            if end.found:
                # It may be cut just where the known output ends, as two answers from the log's beginning are. A short
                # answer tells. Where one begins after what is known, there is more, and the next one is shorter.
                step = max(step // 2 or end.received * 3 // 4, 1) if too_few else 0
                lines = too_few + step if too_few else half
            elif end.received >= lines - 1:
                # It is complete, so it begins after what is known.
                too_few, lines = lines, lines + step if step else lines * GROWTH
            elif step:
                lines += step
            else:
                # It was cut before it reached what is known, or begins after it. From now on, answers overlap.
                step = max(end.received * 3 // 4, 1)
                lines = too_few + step
        raise ServiceUnavailableError("The log has too many lines that were not read yet.")

    async def _read_last_lines(self, end: _LastLines, final: bool) -> None:
        """Read the last lines, and process them if they follow what is known.

        :raises ServiceUnavailableError: nothing was received, or what was processed is not all
        """
        output, text = self._output, LogBytes()
        at = output.delivered
        try:
            async with self._file(end.asked) as pieces:
                async for data in pieces:
                    at = await output.feed(end.feed(text.feed(data)), at)
                    if end.ambiguous:
                        return
            if final:
                at = await output.feed(end.feed(text.close()), at)
            await output.feed(end.close(), at)
        except ServiceUnavailableError:
            self._unread = end.unread
            if end.goes_on or not end.received:
                raise
            return
        self.repeated += end.repeated
        if end.found:
            # As many new lines as this time and a half are expected next time.
            self._unread = end.fresh + end.fresh // 2

    async def _read_whole_file(self, final: bool) -> None:
        at, known, lines = 0, self._output.delivered, self._output.end.lines
        text = LogBytes()
        async with self._file(ALL) as pieces:
            async for data in pieces:
                at = await self._output.feed(text.feed(data), at)
        if final:
            at = await self._output.feed(text.close(), at)
        self._unread = self._output.end.lines - lines if known else 0
        self.repeated += min(at, known)

    async def _read_answer(self, final: bool) -> None:
        """Read the whole log as JSON."""
        known = self._output.delivered
        if not final and max(known, self._output.shown_before) > LONGEST_CATCH_UP:
            if not self._warned_too_long:
                log.warning(
                    "Ray job %s has a long log (more than %d MiB); its further lines are shown when the job has ended",
                    self._submission_id,
                    LONGEST_CATCH_UP >> 20,
                )
                self._warned_too_long = True
            raise VertexRayError("The log is too long to be read again while the job runs.")
        at = 0
        async with self._api.log_so_far(self._submission_id) as pieces:
            async for text in pieces:
                at = await self._output.feed(text, at)
        self.repeated += min(at, known)
        if 0 < at < self._output.shown_before:
            self._output.begin_anew()
            await self._read_answer(final)
