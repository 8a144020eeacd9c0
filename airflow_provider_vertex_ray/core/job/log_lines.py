"""Incremental decoding of a job's output, in bounded memory: its JSON answer, its file, its lines.

Each connection delivers the output again from its beginning, in pieces of any size.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Callable
from typing import NamedTuple

from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES, RESULT_MARKER
from airflow_provider_vertex_ray.errors import UnreadableAnswerError, storable_text

LONGEST_LINE = 16_384
"""Characters of a line that are kept; a progress bar that never ends its line must not fill the memory."""

LONGEST_RESULT = len(RESULT_MARKER) + MAX_RESULT_BYTES
"""Characters of a result line that are kept: as many as the longest result has."""

LONGEST_START = 1_000
"""Characters within which the log's beginning must be found; otherwise the answer is something else."""

LONGEST_ESCAPE = 12
"""Characters of the longest JSON escape: a character outside the BMP, as two halves of six."""

START = re.compile(r'\s*\{\s*"logs"\s*:\s*(?:(")|(null))')


class Line(NamedTuple):
    """A line of a log.

    :param text: the line without its end, as far as it was kept
    :param start: number of characters of the log before it
    :param dropped: bytes of a result line that were not kept; 0 for other lines, which are emitted before their end is
        known
    """

    text: str
    start: int
    dropped: int = 0


class LineAssembler:
    """Splits text into lines, and skips text that it has received before, from whichever connection.

    :param take: receives each line
    :param longest: characters of a line that are kept, unless it is a result line
    """

    def __init__(self, take: Callable[[Line], None], longest: int = LONGEST_LINE) -> None:
        self.delivered = 0
        """Characters received so far, without repetitions."""
        self.complete = 0
        """Those of them that make up complete lines."""
        self._take = take
        self._longest = longest
        self._rest = ""
        self._dropped = 0
        self._given = False

    def feed(self, text: str, at: int | None = None) -> str:
        """Process a piece of the log; return what of it is new.

        :param text: the piece
        :param at: number of characters of the log before it, at most ``delivered``; None for ``delivered``
        """
        if at is not None and at < self.delivered:
            text = text[self.delivered - at :]
        if not text:
            return ""
        self.delivered += len(text)
        *ends, rest = text.split("\n")
        end = self.delivered - len(text)
        for piece in ends:
            end += len(piece) + 1
            self._grow(piece)
            self._give()
            self._rest, self._dropped, self._given = "", 0, False
            self.complete = end
        self._grow(rest)
        return text

    def flush(self) -> None:
        """Emit an unfinished last line, at the end of the log."""
        if self._rest:
            self._give()
            self._rest, self.complete = "", self.delivered

    def _grow(self, piece: str) -> None:
        """Append to the current line."""
        if not piece or self._given:
            return
        line = self._rest + piece
        if line.startswith(RESULT_MARKER):
            self._rest = line[:LONGEST_RESULT]
            self._dropped += len(line[LONGEST_RESULT:].encode("utf-8", "replace"))
        else:
            self._rest = line[: self._longest]
            if len(line) > self._longest:
                self._give()

    def _give(self) -> None:
        if not self._given:
            # Truncated first, then stripped: the result must not depend on how the text is split into pieces.
            self._take(Line(self._rest.rstrip("\r"), self.complete, self._dropped))
            self._given = True


class LogAnswer:
    """Decodes the answer ``{"logs": "…"}`` piece by piece."""

    def __init__(self) -> None:
        self.started = False
        """Whether the log's beginning was received."""
        self.complete = False
        """Whether the log's end was received."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._json = json.JSONDecoder(strict=False)
        self._held = ""

    def feed(self, data: bytes) -> str:
        """Return the log's text in the next piece of the answer; what is still ambiguous is returned with a later one.

        :raises UnreadableAnswerError: the answer has another form
        """
        if self.complete:
            return ""
        self._held += self._decoder.decode(data)
        if not self.started and not self._start():
            return ""
        # A piece may end within an escape; whether "\" begins one is only known once the text before it decodes.
        for missing in range(min(LONGEST_ESCAPE, len(self._held) + 1)):
            known = self._held[: len(self._held) - missing]
            try:
                text, end = self._json.raw_decode(f'"{known}"')
            except ValueError:
                continue
            if end < len(known) + 2:
                self.complete, self._held = True, ""
                return str(text)
            # The first half of a character outside the BMP waits for its second half.
            if "\ud800" <= text[-1:] <= "\udbff":
                text, known = text[:-1], known[:-6]
            self._held = self._held[len(known) :]
            return str(text)
        raise UnreadableAnswerError("The log of a job is not a JSON string.")

    def _start(self) -> bool:
        start = START.match(self._held)
        if start is None:
            if len(self._held) > LONGEST_START:
                # Not quoted: it may be anything, such as a job's record with its environment.
                raise UnreadableAnswerError("The answer is not the log of a job.")
            return False
        self.started = True
        self.complete = start[2] is not None
        self._held = self._held[start.end() :]
        return not self.complete


class LogBytes:
    """Decodes a log file, or the end of one that begins with a line, as Ray's own log answers do.

    They read it as UTF-8, where this one replaces what is not UTF-8 or cannot be stored, and end lines with "\\n"
    instead of "\\r" and "\\r\\n". So a number of characters means the same place of the log in each kind of answer.
    """

    def __init__(self) -> None:
        self._decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)

    def feed(self, data: bytes) -> str:
        """Return the text of the next piece; what is still ambiguous is returned with a later one."""
        return storable_text(self._decoder.decode(data))

    def close(self) -> str:
        """Return the text that is still ambiguous, if the file has ended."""
        return self._decoder.decode(b"", final=True)
