"""A condition on a metric, such as "under 10 for 30 minutes", decided from samples: what is not known does not hold."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
"""Seconds for which a condition can be asked to hold, at most."""

SHORTEST_STEP, LONGEST_STEP = 1.0, 300.0
"""Seconds between two samples. PromQL fills gaps of up to 300 s by itself; a wider step would look over longer ones."""

STEPS = 60
"""Samples within the time for which the condition has to hold, unless that makes the steps too short or too long."""

SLACK = 0.5
"""Steps by which a sample may be off its time; beyond that one is missing."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Held:
    """That the condition holds.

    :param since: Unix time of the first sample from which on it has held, within what was looked at.
    :param value: The last value; of several series the first one's.
    """

    since: float
    value: float


@dataclass(frozen=True)
class ConditionResult:
    """What samples say of a condition.

    :param held: Since when it holds; None where it does not hold for long enough, or that is not known.
    :param value: The last value of the first series; None where nothing is known.
    :param reason: Why it does not hold, for a person; empty when it does.
    """

    held: Held | None
    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class MetricCondition:
    """A metric, compared with a number, for some time.

    :param comparison: One of ``<``, ``<=``, ``>``, ``>=``, ``==``, ``!=``.
    :param threshold: What it is compared with.
    :param for_seconds: Seconds for which every sample has to fit, up to now; 0: the last one alone.
    :raises InvalidArgumentError: One of them can not be.
    """

    comparison: str
    threshold: float
    for_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.comparison not in COMPARISONS:
            raise InvalidArgumentError("comparison", self.comparison, f"the comparisons are {' '.join(COMPARISONS)}")
        if not _is_number(self.threshold):
            raise InvalidArgumentError("threshold", self.threshold, "give a finite number")
        if not _is_number(self.for_seconds) or not 0 <= self.for_seconds <= MOST_SECONDS:
            raise InvalidArgumentError(
                "for_seconds", self.for_seconds, f"give seconds from 0 to {MOST_SECONDS:.0f}, a week"
            )

    def __str__(self) -> str:
        return f"{self.comparison} {self.threshold:g}" + (f" for {self.for_seconds:g} s" if self.for_seconds else "")

    @property
    def step(self) -> float:
        """Seconds between two samples that are asked for."""
        return min(max(self.for_seconds / STEPS, SHORTEST_STEP), LONGEST_STEP)

    def window(self, now: float) -> tuple[float, float]:
        """From when to when samples are wanted: twice the time, so that it can be told since when it holds."""
        steps = max(1, 2 * math.ceil(self.for_seconds / self.step))
        return now - steps * self.step, now

    def fits(self, value: float) -> bool:
        """Whether one value is as it should be; what is no number never is."""
        return math.isfinite(value) and COMPARISONS[self.comparison](value, self.threshold)

    def decide(self, series: Sequence[Points], now: float) -> ConditionResult:
        """Whether the condition holds, up to ``now``, for all series at once.

        A series that has no sample for a while within that time, the last moments included, counts as one that does not
        fit: a node that does not report may be busy.

        :param series: Time and value, the oldest first, ``step`` apart, the last one at ``now``.
        """
        last = next((points[-1][1] for points in series if points), None)
        if last is None or math.isnan(last):
            last = None
        if not series or not all(series):
            return ConditionResult(None, last, "there is no data")
        since = -math.inf
        for points in series:
            if now - points[-1][0] > SLACK * self.step:
                return ConditionResult(None, last, f"there is no data of the last {now - points[-1][0]:.0f} s")
            begin = self._run(points)
            if begin is None:
                return ConditionResult(None, last, f"the last value is {points[-1][1]:g}")
            since = max(since, begin)
        # A unix time as a float is exact to less than a microsecond, one in a request to a millisecond.
        if now - since < self.for_seconds - 1e-3:
            return ConditionResult(None, last, f"it has held for {max(0.0, now - since):.0f} s")
        return ConditionResult(Held(since, series[0][-1][1]), last)

    def _run(self, points: Points) -> float | None:
        """Since when all samples up to the last one fit, without a gap; None where the last one does not."""
        begin: float | None = None
        for at, value in reversed(points):
            if not self.fits(value) or (begin is not None and begin - at > (1 + SLACK) * self.step):
                break
            begin = at
        return begin


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
