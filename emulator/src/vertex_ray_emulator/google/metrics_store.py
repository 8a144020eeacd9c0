"""Metrics of clusters, kept like in Managed Service for Prometheus, with limits."""

from __future__ import annotations

import bisect
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

KEEP_SECONDS = 24 * 3600.0
MOST_SAMPLES = 3000
"""In a longer series every other sample of the older half is dropped: it still covers a day, in less detail."""
MOST_SERIES = 30_000
LOOKBACK_SECONDS = 300.0
"""How far back an instant query looks for the last sample of a series, as in Prometheus."""
STALE = math.nan
"""The sample that ends a series."""

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Mapping[str, str], float]


def label_key(labels: Mapping[str, str]) -> Labels:
    """Return labels as a key; empty labels count as absent."""
    return tuple(sorted((name, value) for name, value in labels.items() if value))


@dataclass
class Series:
    """A time series. A value that is not a number marks the end of the series until the next sample."""

    name: str
    labels: Labels
    times: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, at: float, value: float) -> None:
        """Add a sample, unless it is not later than the last one."""
        if self.times and at <= self.times[-1]:
            return
        self.times.append(at)
        self.values.append(value)
        if len(self.times) > MOST_SAMPLES:
            begin = bisect.bisect_right(self.times, at - KEEP_SECONDS)
            half = max(begin, len(self.times) // 2)
            kept = [*range(begin, half, 2), *range(half, len(self.times))]
            self.times = array("d", [self.times[k] for k in kept])
            self.values = array("d", [self.values[k] for k in kept])

    @property
    def last(self) -> float:
        """Return the time of the last sample."""
        return self.times[-1] if self.times else 0.0

    @property
    def stale(self) -> bool:
        """Return whether the series has ended."""
        return not self.values or math.isnan(self.values[-1])

    def at(self, moment: float) -> float | None:
        """Return the value at a time, or None if the series has no recent sample or had ended."""
        k = bisect.bisect_right(self.times, moment) - 1
        if k < 0 or self.times[k] <= moment - LOOKBACK_SECONDS or math.isnan(self.values[k]):
            return None
        return self.values[k]

    def within(self, begin: float, end: float) -> list[tuple[float, float]]:
        """Return the samples after ``begin``, up to and including ``end``."""
        a, b = bisect.bisect_right(self.times, begin), bisect.bisect_right(self.times, end)
        return [(self.times[k], self.values[k]) for k in range(a, b) if not math.isnan(self.values[k])]


class MetricsStore:
    """All series by name and labels."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[Labels, Series]] = {}
        self._present: dict[str, set[tuple[str, Labels]]] = {}

    def observe(self, key: str, at: float, samples: Iterable[Sample]) -> None:
        """Store all samples of a cluster at a time; series that the cluster no longer has are ended."""
        present: set[tuple[str, Labels]] = set()
        for name, labels, value in samples:
            if math.isnan(value):
                continue
            series = self._series(name, label_key(labels))
            series.add(at, value)
            present.add((name, series.labels))
        for name, found in self._present.get(key, set()) - present:
            if (gone := self._by_name.get(name, {}).get(found)) is not None:
                gone.add(at, STALE)
        self._present[key] = present

    def backfill(self, name: str, labels: Mapping[str, str], times: Iterable[float], value: float) -> None:
        """Replace the samples of a series with one value at the given times."""
        series = self._series(name, label_key(labels))
        series.times, series.values = array("d"), array("d")
        for moment in times:
            series.add(moment, value)

    def end(self, key: str, at: float) -> None:
        """End all series of a cluster that is deleted; their samples are kept."""
        self.observe(key, at, ())
        del self._present[key]

    def trim(self, now: float) -> None:
        """Drop ended series that are too old or beyond the limit."""
        gone = sorted((s for s in self.series() if s.stale), key=lambda series: series.last)
        excess = sum(map(len, self._by_name.values())) - MOST_SERIES
        for k, series in enumerate(gone):
            if k < excess or series.last < now - KEEP_SECONDS:
                del self._by_name[series.name][series.labels]

    def forget_gone(self) -> None:
        """Drop the series that have ended."""
        for series in list(self.series()):
            if series.stale:
                del self._by_name[series.name][series.labels]

    def series(self, name: str | None = None) -> Iterator[Series]:
        """Yield all series, or those with a name."""
        names = list(self._by_name) if name is None else [name]
        for each in names:
            yield from list(self._by_name.get(each, {}).values())

    def select(
        self, name: str | None, test: Callable[[Mapping[str, str]], bool]
    ) -> list[tuple[dict[str, str], Series]]:
        """Return the series with a name (or any) whose labels, including ``__name__``, pass a test."""
        found = []
        for series in self.series(name):
            labels = {"__name__": series.name, **dict(series.labels)}
            if test(labels):
                found.append((labels, series))
        return found

    def _series(self, name: str, labels: Labels) -> Series:
        by_labels = self._by_name.setdefault(name, {})
        if labels not in by_labels:
            by_labels[labels] = Series(name, labels)
        return by_labels[labels]
