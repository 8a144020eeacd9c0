"""How often a job is asked for."""

from __future__ import annotations

import asyncio
import time
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


async def paused(
    pace: Pace, news: asyncio.Event | None, age: float = 1000.0, left: float = 1e9, result_age: float = 1e9
) -> float:
    log: Any = None if news is None else SimpleNamespace(news=news, result_time=time.monotonic() - result_age)
    begin = time.monotonic()
    await pace.pause(age, left, log)
    return time.monotonic() - begin


async def test_pause_ends_at_the_deadline() -> None:
    with Pace(60) as pace:
        assert await paused(pace, None, left=0.1) < 5


async def test_status_is_requested_soon_after_a_result() -> None:
    with Pace(60) as pace:
        assert await paused(pace, asyncio.Event(), result_age=job_pace.LIKELY_END - 1) < job_pace.SHORTEST + 0.3


async def test_output_after_a_silence_shortens_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    news = asyncio.Event()
    with Pace(60) as pace:
        pace._last_news -= 10
        news.set()
        assert await paused(pace, news, age=20) < 20 * 0.03 + 0.3


async def test_continuous_output_does_not_shorten_the_pause() -> None:
    news = asyncio.Event()
    with Pace(1.0) as pace:
        chatter = asyncio.create_task(_chatter(news))
        assert await paused(pace, news) >= 0.99
        chatter.cancel()


async def _chatter(news: asyncio.Event) -> None:
    for _ in range(10_000):
        news.set()
        await asyncio.sleep(0.01)
