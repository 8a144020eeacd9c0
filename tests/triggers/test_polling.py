"""The polling loop of the triggers, and how often a job is asked for."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    LeaseStoreError,
    OperationTimeoutError,
    RateLimitedError,
    ServiceUnavailableError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers import polling
from airflow_provider_vertex_ray.triggers.polling import (
    POLLS_PER_SECOND,
    SHORTEST,
    Backoff,
    Pace,
    interval,
    poll_until,
)


class Polled:
    """Something to poll: each answer is a result, None, an exception, or a number of seconds that it takes."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.unreadable: list[tuple[str, float]] = []
        self.finished = 0

    async def look(self) -> str | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            self.finished += 1
            return None
        return None if answer is None else str(answer)

    async def poll(self, seconds: float | None = 30.0, **more: Any) -> str:
        return await poll_until(
            self.look,
            backoff=Backoff(0.01),
            deadline=None if seconds is None else time.time() + seconds,
            timed_out=lambda: OperationTimeoutError("too late"),
            on_unreadable=lambda error, pause: self.unreadable.append((error.message, pause)),
            **more,
        )


@pytest.mark.parametrize("seconds", [None, 30.0, 0.0])
async def test_poll_returns_the_first_result(seconds: float | None) -> None:
    assert await Polled("here").poll(seconds) == "here"


async def test_poll_repeats_until_there_is_a_result() -> None:
    polled = Polled(None, None, "here")
    assert await polled.poll() == "here"
    assert polled.unreadable == []


async def test_poll_ends_at_the_deadline() -> None:
    begin = time.monotonic()
    with pytest.raises(OperationTimeoutError, match="too late"):
        await Polled(None).poll(0.2)
    assert 0.15 < time.monotonic() - begin < 5


async def test_transient_errors_do_not_end_the_poll() -> None:
    polled = Polled(ServiceUnavailableError("503"), RateLimitedError("429"), "here")
    assert await polled.poll() == "here"
    assert [message for message, _ in polled.unreadable] == ["503", "429"]
    assert all(0 < pause <= 0.01 for _, pause in polled.unreadable)


async def test_transient_errors_end_at_the_deadline() -> None:
    polled = Polled(ServiceUnavailableError("503"))
    with pytest.raises(OperationTimeoutError):
        await polled.poll(0.0)
    assert polled.unreadable == [("503", 0.0)]


@pytest.mark.parametrize("error", [ClusterNotFoundError("404"), LeaseStoreError("no store"), ValueError("bug")])
async def test_other_errors_end_the_poll(error: Exception) -> None:
    with pytest.raises(type(error)):
        await Polled(error, "here").poll()


async def test_transient_errors_can_be_chosen() -> None:
    kinds: tuple[type[VertexRayError], ...] = (LeaseStoreError,)
    assert await Polled(LeaseStoreError("no store"), "here").poll(transient=kinds) == "here"


async def test_silent_service_does_not_delay_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "SHORTEST_LOOK", 0.1)
    polled = Polled(30.0)
    begin = time.monotonic()
    with pytest.raises(OperationTimeoutError):
        await polled.poll(0.2)
    assert time.monotonic() - begin < 10
    assert polled.unreadable == [("no answer in time", 0.0)]


async def test_poll_that_creates_something_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "SHORTEST_LOOK", 0.05)
    polled = Polled(0.3)
    with pytest.raises(OperationTimeoutError):
        await polled.poll(0.1, cut_off=False)
    assert polled.finished == 1


async def test_cancelled_poll_cancels_what_it_waits_for() -> None:
    polled = Polled(30.0)
    task = asyncio.create_task(polled.poll())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert polled.finished == 0


def test_pauses_grow_to_the_longest_and_start_again_after_a_reset() -> None:
    backoff = Backoff(3.0)
    assert [backoff.next() for _ in range(5)] == [1.0, 1.5, 2.25, 3.0, 3.0]
    backoff.reset()
    assert backoff.next() == 1.0
    assert [Backoff(0.5).next(), Backoff(60.0, first=0.5).next()] == [0.5, 0.5]
    constant = Backoff.constant(7.0)
    assert [constant.next(), constant.next()] == [7.0, 7.0]


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
        assert await paused(pace, asyncio.Event(), result_age=polling.LIKELY_END - 1) < polling.SHORTEST + 0.3


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
