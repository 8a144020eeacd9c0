"""Continue a log with an answer that holds its last lines, and does not say which ones. Pure.

Ray's state API returns the last lines of a file without their place in it. The end of what is already known tells the
place: it is looked for in the answer. Where it fits in more than one place, because the log repeats itself, the whole
log must be read instead; no line is guessed.
"""

from __future__ import annotations

from collections import deque

WINDOW = 32_768
"""Characters of the known end that are kept for the comparison."""

SHORTEST_OVERLAP = 2_048
"""Minimum number of characters that must agree."""

PROBE = 256
"""Characters by which candidates are found before they are compared as a whole."""


class KnownEnd:
    """The last characters of a log that were received."""

    def __init__(self) -> None:
        self.lines = 0
        """Number of line ends received."""
        self._pieces: deque[str] = deque()
        self._size = 0

    def append(self, text: str) -> None:
        """Add the next characters of the log."""
        self.lines += text.count("\n")
        self._pieces.append(text[-WINDOW:])
        self._size += len(self._pieces[-1])
        while self._size - len(self._pieces[0]) >= WINDOW:
            self._size -= len(self._pieces.popleft())

    def text(self) -> str:
        """Return the last ``WINDOW`` characters."""
        return "".join(self._pieces)[-WINDOW:]


class Continuation:
    """Finds in an answer where a log continues.

    The answer begins with a line of the log, at an unknown place, and reaches to the log's end.

    :param known: the log's end so far, at least ``SHORTEST_OVERLAP`` characters
    """

    def __init__(self, known: str) -> None:
        self.found = False
        """Whether the place was found."""
        self.ambiguous = False
        """Whether the known end fits in several places."""
        self._known = known
        self._held = ""
        self._compared_start = False

    def feed(self, text: str) -> str:
        """Process the next piece of the answer; return what of it continues the log."""
        if self.found or self.ambiguous:
            return text if self.found else ""
        self._held += text
        if not self._compared_start:
            if len(self._held) < len(self._known):
                return ""
            self._compare_start()
        return self._find_inside()

    def close(self) -> str:
        """Process the end of the answer; return what continues the log."""
        if self.found or self.ambiguous or self._compared_start:
            return ""
        self._compare_start()
        return self._find_inside()

    def _compare_start(self) -> None:
        """Look for the answer's beginning within the known end."""
        self._compared_start = True
        known, held = self._known, self._held
        matches: list[int] = []
        place = known.find(held[:PROBE]) if held else -1
        while 0 <= place <= len(known) - SHORTEST_OVERLAP and len(matches) < 2:
            overlap = len(known) - place
            at_line_start = place == 0 or known[place - 1] == "\n"
            if at_line_start and overlap <= len(held) and held.startswith(known[place:]):
                matches.append(overlap)
            place = known.find(held[:PROBE], place + 1)
        if len(matches) > 1:
            self.ambiguous = True
        elif matches:
            self.found = True
            self._held = held[matches[0] :]

    def _find_inside(self) -> str:
        """Look for the whole known end within the answer, which begins before it."""
        if self.ambiguous:
            return ""
        if not self.found:
            place = self._held.find(self._known)
            if place < 0:
                keep = len(self._known) - 1
                self._held = self._held[-keep:]
                return ""
            if _repeats_itself(self._known):
                self.ambiguous = True
                return ""
            self.found = True
            self._held = self._held[place + len(self._known) :]
        held, self._held = self._held, ""
        return held


def _repeats_itself(text: str) -> bool:
    """Tell whether a text is the same after a shift by some lines of it, up to half of it."""
    place = text.find(text[:PROBE], 1)
    while 0 < place <= len(text) // 2:
        if text.startswith(text[place:]):
            return True
        place = text.find(text[:PROBE], place + 1)
    return False
