"""A condition on a metric, such as "below 10 for 30 minutes", evaluated on samples; missing samples do not meet it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.checks import check_choice, is_number
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["COMPARISONS", "ConditionResult", "Held", "MetricCondition"]

COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

MOST_SECONDS = 7 * 86_400.0
"""Maximum number of seconds for which a condition can be required to hold."""

SHORTEST_STEP, LONGEST_STEP = 1.0, 300.0
"""Seconds between two samples. PromQL itself fills gaps of up to 300 s; a longer step would miss longer gaps."""

STEPS = 60
"""Samples within the time for which the condition must hold, unless the steps become too short or too long."""

SLACK = 0.5
"""Steps by which the time of a sample may differ; with a larger difference, a sample is missing."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Held:
    """A condition that holds.

    :param since: Unix time of the first sample since which it has held, within the evaluated samples
    :param value: last value of the first series
    """

    since: float
    value: float


@dataclass(frozen=True)
class ConditionResult:
    """Result of evaluating a condition on samples.

    :param held: since when the condition holds; None if it does not, has not held long enough, or is unknown
    :param value: last value of the first series; None if unknown
    :param reason: why the condition does not hold, for the log; empty if it does
    """

    held: Held | None
    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class MetricCondition:
    """The comparison of a metric with a threshold, over some time.

    :param comparison: one of ``<``, ``<=``, ``>``, ``>=``, ``==``, ``!=``
    :param threshold: number to compare the metric with
    :param for_seconds: seconds, up to now, for which every sample must meet the condition; 0 for the last sample alone
    :raises InvalidArgumentError: one of them is not valid
    """

    comparison: str
    threshold: float
    for_seconds: float = 0.0

    def __post_init__(self) -> None:
        check_choice("comparison", self.comparison, COMPARISONS)
        if not is_number(self.threshold):
            raise InvalidArgumentError("threshold", self.threshold, "Use a finite number.")
        if not is_number(self.for_seconds) or not 0 <= self.for_seconds <= MOST_SECONDS:
            raise InvalidArgumentError(
                "for_seconds", self.for_seconds, f"Use a number of seconds from 0 to {MOST_SECONDS:.0f} (one week)."
            )

    def __str__(self) -> str:
        return f"{self.comparison} {self.threshold:g}" + (f" for {self.for_seconds:g} s" if self.for_seconds else "")

    @property
    def step(self) -> float:
        """Return the seconds between two requested samples."""
        return min(max(self.for_seconds / STEPS, SHORTEST_STEP), LONGEST_STEP)

    def window(self, now: float) -> tuple[float, float]:
        """Return start and end of the requested samples: twice the time, to tell since when the condition holds."""
        steps = max(1, 2 * math.ceil(self.for_seconds / self.step))
        return now - steps * self.step, now

    def fits(self, value: float) -> bool:
        """Tell whether a single value meets the condition; NaN and infinity never do."""
        return math.isfinite(value) and COMPARISONS[self.comparison](value, self.threshold)

    def decide(self, series: Sequence[Points], now: float) -> ConditionResult:
        """Evaluate whether the condition holds, up to ``now``, for all series at the same time.

        A series with a gap in that time, including its end, does not meet the condition: a node that does not report
        may be busy.

        :param series: the samples of each series, as (time, value), oldest first, ``step`` apart, the last one at
            ``now``
        :param now: Unix time
        """
        last = next((points[-1][1] for points in series if points), None)
        if last is None or math.isnan(last):
            last = None
        if not series or not all(series):
            return ConditionResult(None, last, "no data")
        since = -math.inf
        for points in series:
            if now - points[-1][0] > SLACK * self.step:
                return ConditionResult(None, last, f"no data for the last {now - points[-1][0]:.0f} s")
            begin = self._run(points)
            if begin is None:
                return ConditionResult(None, last, f"the last value is {points[-1][1]:g}")
            since = max(since, begin)
        # A Unix time is exact to less than a microsecond as a float, and to a millisecond in a request.
        if now - since < self.for_seconds - 1e-3:
            return ConditionResult(None, last, f"it has held for only {max(0.0, now - since):.0f} s")
        return ConditionResult(Held(since, series[0][-1][1]), last)

    def _run(self, points: Points) -> float | None:
        """Return the time since which all samples meet the condition, without a gap; None if the last one does not."""
        begin: float | None = None
        for at, value in reversed(points):
            if not self.fits(value) or (begin is not None and begin - at > (1 + SLACK) * self.step):
                break
            begin = at
        return begin
