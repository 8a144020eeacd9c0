"""Text in pieces, again from its beginning with each connection, as lines: each once, in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES, RESULT_MARKER
from airflow_provider_vertex_ray.errors import ServiceError

LONGEST_LINE = 16_384
"""Characters of a line that are kept; a progress bar that never ends a line must not fill the memory."""

LONGEST_RESULT = len(RESULT_MARKER) + MAX_RESULT_BYTES
"""Characters of a result line that are kept: as many as the longest result can have."""

SHORTEST_HIDDEN = 5
"""Characters of a value that is worth hiding; a shorter one is in too many words."""


class Line(NamedTuple):
    """A line of a log.

    :param text: The line without its end, as far as it was kept.
    :param start: Characters of the log before it.
    :param dropped: Bytes of a result line that were not kept; 0 for other lines, which are given out before their end
        is known.
    """

    text: str
    start: int
    dropped: int = 0


class LineAssembler:
    """Cuts text into lines; text that a new connection repeats from the beginning is passed over.

    :param take: Gets each line.
    :param longest: Characters of a line that are kept, unless it is a result's.
    """

    def __init__(self, take: Callable[[Line], None], longest: int = LONGEST_LINE) -> None:
        self.delivered = 0
        """Characters that were taken so far, repetitions not counted."""
        self.complete = 0
        """As many of them as make whole lines."""
        self._take = take
        self._longest = longest
        self._to_skip = 0
        self._rest = ""
        self._dropped = 0
        self._given = False

    @property
    def caught_up(self) -> bool:
        """Whether this connection has repeated all that was taken before it."""
        return self._to_skip == 0

    def reconnected(self) -> None:
        """A new connection starts: it repeats everything that was delivered so far."""
        self._to_skip = self.delivered

    def feed(self, text: str) -> bool:
        """Take the next piece of the connection's text; whether any of it was new."""
        if self._to_skip:
            skipped = min(self._to_skip, len(text))
            self._to_skip -= skipped
            text = text[skipped:]
        if not text:
            return False
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
        return True

    def flush(self) -> None:
        """Give out an unfinished last line: the log has ended."""
        if self._rest:
            self._give()
            self._rest, self.complete = "", self.delivered

    def _grow(self, piece: str) -> None:
        """Add to the line that has not ended yet."""
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
            # First cut, then stripped: what is given out must not depend on how the text came in pieces.
            self._take(Line(self._rest.rstrip("\r"), self.complete, self._dropped))
            self._given = True


class Hiding:
    """Puts ``***`` in the place of values that nobody shall read in a log.

    :param values: The values; those of several lines are hidden line by line, those that are too short not at all.
    """

    def __init__(self, values: Iterable[str]) -> None:
        parts = {part.strip() for value in values for part in value.splitlines()}
        # Longest first: one may begin as another does.
        hidden = sorted((part for part in parts if len(part) >= SHORTEST_HIDDEN), key=lambda part: (-len(part), part))
        self.longest = len(hidden[0]) if hidden else 0
        """Characters of the longest one."""
        self._pattern = re.compile("|".join(map(re.escape, hidden))) if hidden else None

    def __call__(self, text: str) -> str:
        """The text without the values."""
        return self._pattern.sub("***", text) if self._pattern else text


LONGEST_START = 1_000
"""Characters in which the log's beginning must be found; else the answer is something else."""

LONGEST_ESCAPE = 12
"""Characters of the longest escape: one outside the BMP, as two halves of six."""

START = re.compile(r'\s*\{\s*"logs"\s*:\s*(?:(")|(null))')


class LogAnswer:
    """Decodes the answer piece by piece."""

    def __init__(self) -> None:
        self.started = False
        """Whether the log's beginning has come."""
        self.complete = False
        """Whether the log's end has come."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._json = json.JSONDecoder(strict=False)
        self._held = ""

    def feed(self, data: bytes) -> str:
        """The log's text in the next piece of the answer; what can not be told yet comes with a later one.

        :raises ServiceError: This is not such an answer.
        """
        if self.complete:
            return ""
        self._held += self._decoder.decode(data)
        if not self.started and not self._start():
            return ""
        # A piece may end within an escape. "\" and "\\u" are not told apart by their looks, but by whether they decode.
        for missing in range(min(LONGEST_ESCAPE, len(self._held) + 1)):
            known = self._held[: len(self._held) - missing]
            try:
                text, end = self._json.raw_decode(f'"{known}"')
            except ValueError:
                continue
            if end < len(known) + 2:
                self.complete, self._held = True, ""
                return str(text)
            # Half of a character outside the BMP waits for its other half.
            if "\ud800" <= text[-1:] <= "\udbff":
                text, known = text[:-1], known[:-6]
            self._held = self._held[len(known) :]
            return str(text)
        raise ServiceError(f"A job's log is no JSON string: {self._held[:200]!r}")

    def _start(self) -> bool:
        start = START.match(self._held)
        if start is None:
            if len(self._held) > LONGEST_START:
                raise ServiceError(f"This is no job's log: {self._held[:200]!r}")
            return False
        self.started = True
        self.complete = start[2] is not None
        self._held = self._held[start.end() :]
        return not self.complete
