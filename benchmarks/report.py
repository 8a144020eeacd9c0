"""Print figures in a table, beside what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured figure, and the floor or peer that was measured in the same run.

    :param what: what was measured.
    :param value: our figure.
    :param unit: unit of ``value`` and ``other``.
    :param beside: the floor or the peer.
    :param other: its figure.
    :param goal: maximum ratio of ``value`` to ``other``; None for a figure without a goal.
    """

    what: str
    value: float
    unit: str
    beside: str
    other: float
    goal: float | None = None

    @property
    def ratio(self) -> float:
        """Our figure divided by the other."""
        return self.value / self.other

    @property
    def reached(self) -> bool:
        """Whether the goal is reached; always true for a figure without a goal."""
        return self.goal is None or self.ratio <= self.goal

    def cells(self) -> tuple[str, ...]:
        """Return the figure as a row of the table."""
        goal = "-" if self.goal is None else f"<= {self.goal:.2f}"
        verdict = "" if self.goal is None else ("reached" if self.reached else "MISSED")
        ours, other = (f"{_number(value)} {self.unit}".strip() for value in (self.value, self.other))
        return self.what, ours, self.beside, other, f"{self.ratio:.3f}", goal, verdict


def print_figures(figures: Sequence[Figure]) -> int:
    """Print the table; return 0 if every goal is reached, otherwise 1."""
    rows = [("what", "ours", "beside", "its figure", "ratio", "goal", ""), *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for place, row in enumerate(rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if place == 0:
            print("  ".join("-" * width for width in widths).rstrip())
    return 0 if all(figure.reached for figure in figures) else 1


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
