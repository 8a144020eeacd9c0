"""Series of a metric as a task returns them: few figures, and no more points than fit into an XCom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MOST_SERIES", "summarised", "thinned"]

MOST_SERIES = 20
"""Series of one metric that are returned with their points; all count in its figures."""

MOST_POINTS = 1_500
"""Points of all metrics together that are returned: some 40 KiB of JSON."""

Points = Sequence[tuple[float, float]]


def summarised(metrics: Mapping[str, Sequence[tuple[Mapping[str, str], Points]]]) -> dict[str, dict[str, Any]]:
    """By metric: ``min``, ``avg``, ``max``, ``last`` and ``count`` over all of its series, and its ``series``.

    Each series has its labels, the same figures, and ``points``: unix time and value, thinned out where there are many.
    Where nothing is known the figures are None. Values that are no finite number are left out. ``last`` is the sum of
    no series: of several it is the last value of the first one.

    :param metrics: The series of each metric, as labels and points.
    """
    shown = sum(min(len(series), MOST_SERIES) for series in metrics.values())
    most = max(2, MOST_POINTS // max(1, shown))
    return {name: _one(series, most) for name, series in metrics.items()}


def _one(series: Sequence[tuple[Mapping[str, str], Points]], most: int) -> dict[str, Any]:
    known = [(dict(labels), [point for point in points if math.isfinite(point[1])]) for labels, points in series]
    figures = _figures([value for _, points in known for _, value in points])
    figures["last"] = next((_rounded(points[-1][1]) for _, points in known if points), None)
    return {
        **figures,
        "series": [
            {
                "labels": labels,
                **_figures([value for _, value in points]),
                "points": [[round(at, 3), _rounded(value)] for at, value in thinned(points, most)],
            }
            for labels, points in known[:MOST_SERIES]
        ],
        "more_series": max(0, len(known) - MOST_SERIES),
    }


def thinned(points: Points, most: int) -> list[tuple[float, float]]:
    """At most so many of the points, evenly spread, the first and the last one among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]


def _figures(values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {"min": None, "avg": None, "max": None, "last": None, "count": 0}
    return {
        "min": _rounded(min(values)),
        "avg": _rounded(math.fsum(values) / len(values)),
        "max": _rounded(max(values)),
        "last": _rounded(values[-1]),
        "count": len(values),
    }


def _rounded(value: float) -> float:
    """Six significant digits: nothing that is measured here is known better."""
    return float(f"{value:.6g}")
