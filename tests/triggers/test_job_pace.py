"""How often a job is asked for."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.triggers import job_pace
from airflow_provider_vertex_ray.triggers.job_pace import POLLS_PER_SECOND, SHORTEST, Pace, interval


@given(st.floats(0.01, 600), st.floats(0, 1e7), st.integers(1, 10_000))
def test_job_interval_is_bounded(poll: float, age: float, waits: int) -> None:
    found = interval(poll, age, waits)
    assert 0 < found <= poll
    assert found >= min(poll, SHORTEST)
    # What goes beyond the poll interval's own requests stays within the share of all.
    assert found == poll or waits / found <= POLLS_PER_SECOND + 1e-6


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_older_job_is_not_polled_more_often(one: float, other: float) -> None:
    assert interval(60, min(one, other), 1) <= interval(60, max(one, other), 1)


def test_end_of_a_short_job_is_noticed_soon() -> None:
    # On average after half the interval.
    assert interval(600, 30, 1) / 2 < 0.5


class Clock:
    """Time that passes in pauses only, and output that comes every ``chatter`` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chatter: float = math.inf) -> None:
        self.now = 1e6
        self.chatter = chatter
        loop = SimpleNamespace(sleep=self.sleep, get_running_loop=asyncio.get_running_loop)
        monkeypatch.setattr(job_pace, "asyncio", loop)
        monkeypatch.setattr(job_pace, "time", self)
        monkeypatch.setattr(job_pace, "set_within", self.set_within)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def set_within(self, event: asyncio.Event, seconds: float) -> bool:
        if not event.is_set():
            self.now += min(seconds, self.chatter)
            if self.chatter < seconds:
                event.set()
        return event.is_set()


async def paused(
    clock: Clock, pace: Pace, news: asyncio.Event | None, left: float = 1e9, result_age: float = 1e9
) -> float:
    """The length of a pause in the wait for an old job."""
    log: Any = None if news is None else SimpleNamespace(news=news, result_time=clock.now - result_age)
    begin = clock.now
    await pace.pause(1000.0, left, log)
    return clock.now - begin


async def test_pause_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with Pace(60) as pace:
        assert await paused(clock, pace, None) == pytest.approx(30)
        assert await paused(clock, pace, None, left=0.1) == pytest.approx(0.1)


async def test_status_is_requested_soon_after_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with Pace(60) as pace:
        for age, expected in ((job_pace.LIKELY_END - 1, SHORTEST), (job_pace.LIKELY_END + 1, 30)):
            assert await paused(clock, pace, asyncio.Event(), result_age=age) == pytest.approx(expected)


async def test_output_after_a_silence_shortens_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    news = asyncio.Event()
    with Pace(60) as pace:
        clock.now += 10
        news.set()
        assert await paused(clock, pace, news) == pytest.approx(30 / 4)


async def test_continuous_output_does_not_shorten_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, chatter=0.01)
    with Pace(60) as pace:
        assert await paused(clock, pace, asyncio.Event()) == pytest.approx(30)
