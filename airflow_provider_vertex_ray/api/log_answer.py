"""The answer ``{"logs": "…"}`` of Ray's Jobs API, read while it comes: a log may be longer than the memory."""

from __future__ import annotations

import codecs
import json
import re

from airflow_provider_vertex_ray.errors import ServiceError

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
