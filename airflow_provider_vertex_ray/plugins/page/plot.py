"""Curves of the utilisation of the last hour. Pure; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 600.0, 100.0


@dataclass(frozen=True)
class Curve:
    """A curve in a box of ``WIDTH`` by ``HEIGHT``, with 100 % at its top.

    :param line: the ``d`` attribute of an SVG path, with gaps where values are missing.
    :param area: the same path, closed at the bottom.
    :param last: the last value; None if there is no curve.
    :param least: the smallest value.
    :param most: the largest value.
    """

    line: str = ""
    area: str = ""
    last: float | None = None
    least: float | None = None
    most: float | None = None


def curve(points: Sequence[tuple[float, float]], start: float, end: float, step: float) -> Curve:
    """Return the curve of percentages over a period of time.

    :param points: Unix times and values, in order; values that are not finite, or outside the period, are ignored.
    :param start: Unix time at which the period starts.
    :param end: Unix time at which the period ends.
    :param step: seconds between two points; a longer interval is a gap.
    """
    known = [(at, value) for at, value in points if math.isfinite(value) and start <= at <= end]
    if not known or end <= start:
        return Curve()
    pieces: list[list[tuple[float, float]]] = []
    before = -math.inf
    for at, value in known:
        if at - before > 1.5 * step:
            pieces.append([])
        pieces[-1].append((at, value))
        before = at
    lines: list[str] = []
    areas: list[str] = []
    for piece in pieces:
        if len(piece) == 1:
            # A line needs two ends; the value holds for the step before it.
            piece = [(max(start, piece[0][0] - step / 2), piece[0][1]), *piece]
        places = [_place(at, value, start, end) for at, value in piece]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        lines.append(f"M{line}")
        areas.append(f"M{places[0][0]:.1f} {HEIGHT:.1f}L{line}L{places[-1][0]:.1f} {HEIGHT:.1f}Z")
    values = [value for _, value in known]
    return Curve("".join(lines), "".join(areas), values[-1], min(values), max(values))


def _place(at: float, value: float, start: float, end: float) -> tuple[float, float]:
    return WIDTH * (at - start) / (end - start), HEIGHT - HEIGHT * min(100.0, max(0.0, value)) / 100
