"""Limits on waits: their results, and cancellations that come as the work ends."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_vertex_ray.core.deadlines import set_within, within


async def test_work_in_time_gives_its_result_or_error() -> None:
    async def fail() -> None:
        raise KeyError("no")

    assert await within(240, asyncio.sleep(0, "done")) == "done"
    assert await within(None, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(KeyError):
        await within(240, fail())


async def test_late_work_is_cancelled_and_ended() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("yes")

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, work())
    assert ended == ["yes"]


@pytest.mark.parametrize("turns", range(6))
async def test_cancellation_is_never_swallowed(turns: int) -> None:
    """Whenever it comes, also in the turn of the event loop in which the work ends."""
    event = asyncio.Event()

    async def wait_for_ever() -> None:
        while True:
            await set_within(event, 30)
            event.clear()

    task = asyncio.create_task(wait_for_ever())
    await asyncio.sleep(0.01)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=240)
    assert task in done
    assert task.cancelled()


async def test_an_event_that_is_not_set_in_time() -> None:
    assert not await set_within(asyncio.Event(), 0.01)
