"""Summaries of metrics that a task returns: a few figures, and no more points than fit into an XCom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MOST_SERIES", "summarised", "thinned"]

MOST_SERIES = 20
"""Maximum number of series of a metric that are returned with their points; the figures include all series."""

MOST_POINTS = 1_500
"""Maximum number of returned points of all metrics together, about 40 KiB of JSON."""

Points = Sequence[tuple[float, float]]


def summarised(metrics: Mapping[str, Sequence[tuple[Mapping[str, str], Points]]]) -> dict[str, dict[str, Any]]:
    """Return ``min``, ``avg``, ``max``, ``last`` and ``count`` over all series of each metric, and its ``series``.

    Each series has its ``labels``, the same figures, and ``points``: Unix time and value, thinned out if there are
    many. Figures without any value are None. Values that are not finite are left out. ``last`` of a metric is the last
    value of its first series, not a sum.

    :param metrics: the series of each metric, as labels and points
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
    """Return at most ``most`` of the points, evenly spread, including the first and the last one."""
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
    """Round to six significant digits; no metric is more accurate."""
    return float(f"{value:.6g}")
