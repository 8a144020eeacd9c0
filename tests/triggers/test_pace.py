"""How often a job is asked for."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.triggers.polling import POLLS_PER_SECOND, SHORTEST, Pace, interval


@given(st.floats(0.01, 600), st.floats(0, 1e7), st.integers(1, 10_000))
def test_never_later_than_asked_for_and_never_too_often(poll: float, age: float, waits: int) -> None:
    found = interval(poll, age, waits)
    assert 0 < found <= poll
    assert found >= min(poll, SHORTEST)
    # What goes beyond the poll interval's own requests stays within the share of all.
    assert found == poll or waits / found <= POLLS_PER_SECOND + 1e-6


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_older_job_is_never_asked_for_more_often(one: float, other: float) -> None:
    assert interval(60, min(one, other), 1) <= interval(60, max(one, other), 1)


def test_the_end_of_a_short_job_is_noticed_soon_at_any_poll_interval() -> None:
    # On average after half the interval.
    assert interval(600, 30, 1) / 2 < 0.5


async def paused(pace: Pace, news: asyncio.Event | None, age: float = 1000.0, left: float = 1e9) -> float:
    log: Any = None if news is None else SimpleNamespace(news=news)
    begin = time.monotonic()
    await pace.pause(age, left, log)
    return time.monotonic() - begin


async def test_a_deadline_is_not_slept_over() -> None:
    with Pace(60) as pace:
        assert await paused(pace, None, left=0.1) < 5


async def test_output_after_a_silence_is_a_reason_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    news = asyncio.Event()
    with Pace(60) as pace:
        pace._last_news -= 10
        news.set()
        assert await paused(pace, news, age=20) < 20 * 0.03 + 0.3


async def test_a_stream_of_output_is_none() -> None:
    news = asyncio.Event()
    with Pace(1.0) as pace:
        chatter = asyncio.create_task(_chatter(news))
        assert await paused(pace, news) >= 0.99
        chatter.cancel()


async def _chatter(news: asyncio.Event) -> None:
    for _ in range(10_000):
        news.set()
        await asyncio.sleep(0.01)
