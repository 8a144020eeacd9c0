"""The page's cache: one reader for each thing, what is known at once, and an end to every wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from emulator_support.process import PATIENCE

from airflow_provider_vertex_ray.errors import (
    InvalidArgumentError,
    NotAuthorisedError,
    ServiceUnavailableError,
    VertexRayError,
)
from airflow_provider_vertex_ray.plugins.page.cache import Cache


def patient(**more: Any) -> Cache:
    """Return a cache whose reads do not meet their deadline, even on a busy machine."""
    return Cache(deadline=PATIENCE, **more)


class Service:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.calls = 0
        self.at_once = 0
        self.most_at_once = 0
        self.open = asyncio.Event()
        self.busy = asyncio.Semaphore(0)

    async def read(self) -> int:
        self.calls += 1
        number = self.calls
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.busy.release()
        try:
            await self.open.wait()
        finally:
            self.at_once -= 1
        return number


def _now(value: int) -> Callable[[], Awaitable[int]]:
    async def read() -> int:
        return value

    return read


async def test_concurrent_requests_share_one_read() -> None:
    cache, service = patient(), Service()
    asking = [asyncio.create_task(cache.get("k", service.read, fresh=PATIENCE, wait=PATIENCE)) for _ in range(20)]
    await service.busy.acquire()
    service.open.set()
    assert {seen.value for seen in await asyncio.gather(*asking)} == {1}
    assert service.calls == 1


async def test_wait_is_bounded_and_the_read_continues() -> None:
    cache, service = patient(), Service()
    seen = await cache.get("k", service.read, fresh=PATIENCE, wait=0.01)
    assert (seen.value, seen.known, seen.reading) == (None, False, True)
    service.open.set()
    assert (await cache.get("k", service.read, fresh=PATIENCE, wait=PATIENCE)).value == 1
    assert service.calls == 1


async def test_stale_value_is_returned_during_a_new_read() -> None:
    cache, service = patient(), Service()
    await cache.get("k", _now(0), fresh=PATIENCE, wait=PATIENCE)
    seen = await cache.get("k", service.read, fresh=0, wait=PATIENCE)
    assert (seen.value, seen.reading) == (0, True)
    service.open.set()
    newer = await cache.get("k", service.read, fresh=PATIENCE, wait=PATIENCE, patient=True)
    assert (newer.value, newer.reading) == (1, False)
    assert (newer.at or 0) >= (seen.at or 1)


async def test_earlier_read_does_not_satisfy_since() -> None:
    cache = patient()
    await cache.get("k", _now(0), fresh=PATIENCE, wait=PATIENCE)
    assert (await cache.get("k", _now(1), fresh=PATIENCE, wait=PATIENCE, patient=True)).value == 0
    now = time.monotonic()
    assert (await cache.get("k", _now(2), fresh=PATIENCE, wait=PATIENCE, patient=True, since=now)).value == 2
    assert (await cache.get("k", _now(3), fresh=PATIENCE, wait=PATIENCE, patient=True, since=now)).value == 2


async def test_since_waits_for_a_running_read_and_starts_another() -> None:
    cache, service = patient(), Service()
    first = asyncio.create_task(cache.get("k", service.read, fresh=PATIENCE, wait=PATIENCE))
    await service.busy.acquire()
    now = time.monotonic()
    late = await cache.get("k", service.read, fresh=PATIENCE, wait=0.01, patient=True, since=now)
    assert (late.known, late.reading) == (False, True)
    second = asyncio.create_task(cache.get("k", service.read, fresh=PATIENCE, wait=PATIENCE, patient=True, since=now))
    await asyncio.sleep(0)
    service.open.set()
    assert (await first).value == 1
    assert (await second).value == 2


async def test_read_ends_at_its_deadline_and_the_last_value_stays() -> None:
    cache, service = patient(), Service()
    await cache.get("k", _now(7), fresh=PATIENCE, wait=PATIENCE)
    cache._deadline = 0.02
    cache.outdate("k", "another")
    seen = await cache.get("k", service.read, fresh=PATIENCE, wait=PATIENCE, patient=True)
    assert seen.value == 7
    assert isinstance(seen.error, ServiceUnavailableError)
    assert service.at_once == 0


async def test_failure_is_cached() -> None:
    cache = patient()
    calls = []

    async def fail() -> int:
        calls.append(1)
        raise NotAuthorisedError("no")

    for _ in range(3):
        seen = await cache.get("k", fail, fresh=PATIENCE, wait=PATIENCE)
        assert isinstance(seen.error, NotAuthorisedError)
    assert len(calls) == 1
    assert (await cache.get("k", _now(1), fresh=0, wait=PATIENCE, patient=True)).error is None


async def test_every_exception_becomes_a_typed_error() -> None:
    for place, error in enumerate((InvalidArgumentError("location", None, "give one"), KeyError("x"), ValueError("y"))):

        async def fail(error: Exception = error) -> int:
            raise error

        seen = await patient().get(place, fail, fresh=PATIENCE, wait=PATIENCE)
        assert isinstance(seen.error, VertexRayError)
        assert str(error) in seen.error.message


async def test_number_of_concurrent_reads_is_bounded() -> None:
    cache, service = patient(concurrency=3), Service()
    asking = [asyncio.create_task(cache.get(key, service.read, fresh=PATIENCE, wait=PATIENCE)) for key in range(10)]
    for _ in range(3):
        await service.busy.acquire()
    service.open.set()
    await asyncio.gather(*asking)
    assert service.most_at_once == 3
    assert service.calls == 10


async def test_number_of_values_is_bounded_and_running_reads_stay() -> None:
    cache, service = patient(most=2), Service()
    waiting = asyncio.create_task(cache.get("slow", service.read, fresh=PATIENCE, wait=PATIENCE))
    await asyncio.sleep(0)
    for key in range(5):
        await cache.get(key, _now(key), fresh=PATIENCE, wait=PATIENCE)
    service.open.set()
    assert (await waiting).value == 1
    again = await cache.get(0, _now(100), fresh=PATIENCE, wait=PATIENCE)
    assert again.value == 100, "the oldest was forgotten"


async def test_new_value_is_kept_while_all_others_are_being_read() -> None:
    cache, service = patient(most=2), Service()
    asking = [asyncio.create_task(cache.get(key, service.read, fresh=PATIENCE, wait=PATIENCE)) for key in range(3)]
    await asyncio.sleep(0)
    service.open.set()
    assert {seen.value for seen in await asyncio.gather(*asking)} == {1, 2, 3}
    for key in range(2):
        await cache.get(key, _now(100), fresh=PATIENCE, wait=PATIENCE)
    # There were too many for a while only.
    assert (await cache.get("new", _now(4), fresh=PATIENCE, wait=PATIENCE)).value == 4
    assert len(cache._entries) == 2


async def test_close_cancels_reads() -> None:
    cache, service = patient(), Service()
    await cache.get("k", service.read, fresh=PATIENCE, wait=0.01)
    await cache.close()
    assert service.at_once == 0
