"""A job's output as a log shows it: without a terminal's control sequences, and progress bars by their last state.

In a log, each redraw of a progress bar is a line of its own, dozens a second with Ray Data. A redraw is left out if
another one of the same bar follows; every other line is shown, as it is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

SHOWN_SECONDS = 10.0
"""Minimum number of seconds between two states of a progress bar that are shown while it moves."""

LONGEST_BAR = 500
"""Characters of a line that may be a progress bar."""

_CONTROL = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]"  # colours and movements of the cursor, such as ESC [ A
    "|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)"  # titles and hyperlinks
    "|\x1b[ -/]*[0-Z\\\\^_`a-z{|}~]"  # sequences of two characters
    "|\x1b\\[?[0-?]*[ -/]*$"  # one that is cut off at the end
)
"""Control sequences (https://ecma-international.org/publications-and-standards/standards/ecma-48/)."""

_TIME = r"(?:\d+:)?\d\d:\d\d"
_BAR = re.compile(
    # 40%|████      | 4/10, or 4it where the total is not known; then [00:02<00:03, 1.9it/s].
    rf"(?P<name>.*?)(?P<done>\d{{1,3}})?(?:%\|[^|]*\|\s*\S+|(?<![\w.])[\d.]+[kMGTP]?\s?[^\s\[\]]{{0,40}}) "
    rf"\[{_TIME}(?:<(?:{_TIME}|\?|\d+ days?, {_TIME}))?, *[^\[\]]*(?:/s|s/)[^\[\]]*\].{{0,200}}"
)
"""A state of tqdm's progress bar, which Ray Data's are too (https://tqdm.github.io/docs/tqdm/)."""

_NUMBER = re.compile(r"\d[\d.,/]*")


def without_control(text: str) -> str:
    """Return a line without a terminal's control sequences."""
    return _CONTROL.sub("", text) if "\x1b" in text else text


def bar_of(text: str) -> tuple[str, bool] | None:
    """Return what distinguishes a progress bar from others, and whether it is complete; None if the line is none."""
    # Each state has its rate; without this, a line of many numbers would cost the event loop a hundred times as much.
    if "[" not in text or len(text) > LONGEST_BAR or not ("/s" in text or "s/" in text):
        return None
    found = _BAR.fullmatch(text)
    return None if found is None else (_NUMBER.sub("#", found["name"]).strip(), found["done"] == "100")


class LogTidy:
    """Shows the lines of a log, and of each progress bar the first state, one now and then, and the last.

    :param show: receives each line that is shown, with its place in the log
    :param clock: returns the time in seconds; for tests
    """

    def __init__(self, show: Callable[[str, int], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock = clock
        self._shown_at: dict[str, float] = {}
        self._waiting: dict[str, tuple[str, int]] = {}
        self._blank: list[int] = []
        self._drawing = False

    def take(self, text: str, start: int) -> None:
        """Process a line.

        :param text: the line, without its end
        :param start: its place in the log
        """
        plain = without_control(text)
        if not plain.strip():
            # While bars are drawn, empty lines only move the cursor to the next bar.
            if plain != text:
                return
            if self._drawing:
                self._blank.append(start)
                return
        bar = bar_of(plain)
        if bar is None:
            self._text(plain, start)
        else:
            self._bar(*bar, plain, start)

    def close(self) -> None:
        """Show the last states of all bars, at the end of the log."""
        self._draw(lambda name: True)
        for place in self._blank:
            self._show("", place)
        self._blank.clear()

    def _text(self, plain: str, start: int) -> None:
        now = self._clock()
        self._draw(lambda name: now - self._shown_at[name] >= SHOWN_SECONDS)
        for place in self._blank:
            self._show("", place)
        self._blank.clear()
        self._drawing = False
        self._show(plain, start)

    def _bar(self, name: str, complete: bool, plain: str, start: int) -> None:
        self._blank.clear()
        self._drawing = True
        self._waiting[name] = plain, start
        now = self._clock()
        if complete or now - self._shown_at.get(name, float("-inf")) >= SHOWN_SECONDS:
            self._draw(lambda each: each == name)

    def _draw(self, due: Callable[[str], bool]) -> None:
        """Show the waiting states of those bars for which ``due`` holds."""
        for name in [name for name in self._waiting if due(name)]:
            self._show(*self._waiting.pop(name))
            self._shown_at[name] = self._clock()
