"""The polling loop of all waits, and its pauses."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from airflow_provider_vertex_ray.core import polling
from airflow_provider_vertex_ray.core.polling import Backoff, poll_until
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    LeaseStoreError,
    OperationTimeoutError,
    RateLimitedError,
    ServiceUnavailableError,
    VertexRayError,
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
    assert 0.15 < time.monotonic() - begin < 60


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
    polled = Polled(3600.0)
    begin = time.monotonic()
    with pytest.raises(OperationTimeoutError):
        await polled.poll(0.2)
    assert time.monotonic() - begin < 60
    assert polled.unreadable == [("no answer in time", 0.0)]


async def test_poll_that_creates_something_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "SHORTEST_LOOK", 0.05)
    polled = Polled(0.3)
    with pytest.raises(OperationTimeoutError):
        await polled.poll(0.1, cut_off=False)
    assert polled.finished == 1


async def test_cancelled_poll_cancels_what_it_waits_for() -> None:
    polled = Polled(3600.0)
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
