"""Incremental decoding of a job's output, in bounded memory: its JSON answer, its lines, and secrets to mask in them.

Each connection delivers the output again from its beginning, in pieces of any size.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES, RESULT_MARKER
from airflow_provider_vertex_ray.errors import ServiceError

LONGEST_LINE = 16_384
"""Characters of a line that are kept; a progress bar that never ends its line must not fill the memory."""

LONGEST_RESULT = len(RESULT_MARKER) + MAX_RESULT_BYTES
"""Characters of a result line that are kept: as many as the longest result has."""

SHORTEST_HIDDEN = 5
"""Minimum length of a value that is masked; a shorter one would be part of too many words."""

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
    """Splits text into lines, and skips text that a new connection repeats.

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
        self._to_skip = 0
        self._rest = ""
        self._dropped = 0
        self._given = False

    @property
    def caught_up(self) -> bool:
        """Tell whether this connection has repeated everything that was received before it."""
        return self._to_skip == 0

    def reconnected(self) -> None:
        """Start a new connection, which repeats everything that was received so far."""
        self._to_skip = self.delivered

    def feed(self, text: str) -> bool:
        """Process the next piece of the connection's text; return whether any of it was new."""
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


class SecretMask:
    """Replaces secret values in a log by ``***``.

    :param values: the values; those of several lines are masked line by line, and those that are too short are not
        masked
    """

    def __init__(self, values: Iterable[str]) -> None:
        parts = {part.strip() for value in values for part in value.splitlines()}
        # Longest first: one value may be a prefix of another.
        hidden = sorted((part for part in parts if len(part) >= SHORTEST_HIDDEN), key=lambda part: (-len(part), part))
        self.longest = len(hidden[0]) if hidden else 0
        """Characters of the longest value."""
        self._pattern = re.compile("|".join(map(re.escape, hidden))) if hidden else None

    def __call__(self, text: str) -> str:
        """Return the text with the values masked."""
        return self._pattern.sub("***", text) if self._pattern else text


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

        :raises ServiceError: the answer has another form
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
        raise ServiceError(f"The log of a job is not a JSON string: {self._held[:200]!r}")

    def _start(self) -> bool:
        start = START.match(self._held)
        if start is None:
            if len(self._held) > LONGEST_START:
                raise ServiceError(f"The answer is not the log of a job: {self._held[:200]!r}")
            return False
        self.started = True
        self.complete = start[2] is not None
        self._held = self._held[start.end() :]
        return not self.complete
