"""Plots of metrics over time as PNG or SVG files, drawn without a display."""

from __future__ import annotations

import datetime
import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_vertex_ray.errors import InvalidArgumentError

SUFFIXES = (".png", ".svg")
MOST_LINES = 20
"""Maximum number of series of one metric to draw; more would be illegible."""

MOST_NAMED = 8
"""Maximum number of series of one metric for which its plot has a legend."""

Points = Sequence[tuple[float, float]]


def check_can_draw(field: str, value: object) -> None:
    """Validate that matplotlib is installed, so that a task fails before its first request and not at the end.

    :param field: name of the argument with the file of the plot.
    :param value: value of that argument; None needs no matplotlib.
    :raises InvalidArgumentError: matplotlib is not installed.
    """
    if value is not None and importlib.util.find_spec("matplotlib") is None:
        raise InvalidArgumentError(
            field, value, "Install airflow-provider-vertex-ray[plots] where the task runs: a plot requires matplotlib."
        )


def draw(
    title: str,
    metrics: Mapping[str, Sequence[tuple[Mapping[str, str], Points]]],
    span: tuple[float, float],
    step: float,
    suffix: str,
    units: Mapping[str, str],
) -> bytes:
    """Draw one plot below the other, one for each metric, over the same time range; missing samples leave a gap.

    :param title: title of the figure.
    :param metrics: series of each metric, as labels and points.
    :param span: start and end of the time range in unix seconds.
    :param step: seconds between two points.
    :param suffix: ``.png`` or ``.svg``.
    :param units: unit of each metric, by name.
    :return: Content of the file.
    """
    # Not pyplot, which would look for a display and keep every figure in memory.
    import matplotlib.dates
    from matplotlib.figure import Figure

    dates: Any = matplotlib.dates
    figure: Any = Figure(figsize=(10, 1 + 2.2 * len(metrics)), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, series) in zip(axes, metrics.items(), strict=True):
        for labels, points in series[:MOST_LINES]:
            times, values = _with_gaps(points, step)
            label = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()) if key != "__name__")
            marker = "." if len(points) < 3 else ""
            # matplotlib leaves labels that start with an underscore out of the legend.
            axis.plot(times, values, linewidth=1.2, marker=marker, label=label.lstrip("_") or name)
        if not any(points for _, points in series):
            axis.text(0.5, 0.5, "no data", ha="center", va="center", transform=axis.transAxes, color="gray")
        if 1 < len(series) <= MOST_NAMED:
            axis.legend(fontsize="x-small", loc="upper left")
        unit = units.get(name, "")
        axis.set_ylabel(f"{name} ({unit})" if unit else name, parse_math=False)
        axis.grid(visible=True, alpha=0.3)
        if unit == "%":
            axis.set_ylim(0, max(100.0, axis.get_ylim()[1]))
        else:
            axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    locator = dates.AutoDateLocator(tz=datetime.timezone.utc)
    axes[-1].xaxis.set_major_locator(locator)
    axes[-1].xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=datetime.timezone.utc))
    axes[-1].set_xlim(_moment(span[0]), _moment(span[1]))
    axes[-1].set_xlabel("UTC")
    file = io.BytesIO()
    figure.savefig(file, format=suffix.removeprefix("."), dpi=110)
    return file.getvalue()


def _with_gaps(points: Points, step: float) -> tuple[list[datetime.datetime], list[float]]:
    """Return times and values, with a NaN wherever samples are missing, which breaks the line."""
    times: list[datetime.datetime] = []
    values: list[float] = []
    before = None
    for at, value in points:
        if before is not None and at - before > 1.5 * step:
            times.append(_moment((at + before) / 2))
            values.append(math.nan)
        times.append(_moment(at))
        values.append(value if math.isfinite(value) else math.nan)
        before = at
    return times, values


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
