"""Figures: what was measured, beside the floor or the peer that was measured in the same run."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

HEADERS = ("what", "ours", "beside", "its figure", "ratio", "goal", "")
_WIDTHS = (62, 14, 30, 14, 9, 9, 0)


@dataclass(frozen=True)
class Figure:
    """One measured figure, and the floor or peer that was measured in the same run.

    :param what: what was measured.
    :param value: our figure.
    :param unit: unit of ``value`` and ``other``.
    :param beside: the floor, the peer, or ``goal`` for a figure whose goal is absolute.
    :param other: its figure.
    :param goal: maximum ratio of ``value`` to ``other``, or the minimum if more is better; None for a figure without a
        goal.
    :param more_is_better: whether a higher figure is the better one, as with a throughput.
    """

    what: str
    value: float
    unit: str
    beside: str
    other: float
    goal: float | None = None
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Our figure divided by the other; infinite beside 0."""
        if self.other == 0:
            return 1.0 if self.value == 0 else float("inf")
        return self.value / self.other

    @property
    def reached(self) -> bool:
        """Whether the goal is reached; always true for a figure without a goal."""
        if self.goal is None:
            return True
        return self.ratio >= self.goal if self.more_is_better else self.ratio <= self.goal

    @property
    def behind(self) -> bool:
        """Whether the other figure is the better one."""
        return self.ratio < 1 if self.more_is_better else self.ratio > 1

    @property
    def verdict(self) -> str:
        """What the figure says: the goal, and whether we are behind what it is beside."""
        words = [] if self.goal is None else ["reached" if self.reached else "MISSED"]
        if self.behind and self.beside != "goal":
            words.append("behind")
        return ", ".join(words)

    def cells(self) -> tuple[str, ...]:
        """Return the figure as a row of the table."""
        sign = ">=" if self.more_is_better else "<="
        goal = "-" if self.goal is None else f"{sign} {self.goal:.2f}"
        ours, other = (f"{_number(value)} {self.unit}".strip() for value in (self.value, self.other))
        return self.what, ours, self.beside, other, f"{self.ratio:.3f}", goal, self.verdict

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as JSON has it."""
        return asdict(self)


def line(cells: Iterable[str]) -> str:
    """Return a row as a line of text; its columns are aligned unless a cell is too long."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def print_figures(figures: Iterable[Figure]) -> int:
    """Print each figure as soon as it is there; return 0 if every goal is reached, otherwise 1."""
    print(line(HEADERS), flush=True)
    reached = True
    for figure in figures:
        print(line(figure.cells()), flush=True)
        reached = reached and figure.reached
    sys.stdout.flush()
    return 0 if reached else 1


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
