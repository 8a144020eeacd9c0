"""Compare 3,000 leases on one cluster with one object for all of them, where each object takes one write a second.

Cloud Storage is simulated, in virtual time: a request takes 50 ms, and an object that was written less than a second
ago answers 429. First the tasks acquire their holds, as many at once as there are worker slots; then their triggers
renew them for a quarter of an hour. The other way is what this package did before: all holders in one object, which
each changes with the same precondition and the same pauses.
"""

from __future__ import annotations

import asyncio
import json
import logging
import selectors
import sys
import time
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.transport import Answer, Transport
from airflow_provider_vertex_ray.core.sharing import lease_store
from airflow_provider_vertex_ray.core.sharing.holding import SHARE_OF_TTL
from airflow_provider_vertex_ray.core.sharing.lease import HolderId
from airflow_provider_vertex_ray.core.sharing.lease_objects import LeaseObjects
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import VertexRayError
from benchmarks.report import Figure, print_figures

HOLDERS = 3000
BEFORE = 300
"""Holders of the other way, which fails with far fewer."""

SLOTS = 32
TTL = 900.0
RENEWED_FOR = 900.0
REQUEST_SECONDS = 0.05
NAME = ClusterName("123", "us-central1", "etl-g1")


class _Selector(selectors.SelectSelector):
    """Passes virtual time instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        # Small, so that the shortest pause is not lost in rounding.
        self.time = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.time += timeout or 0.0
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop in virtual time: exact, and the same on every machine."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual.time


@dataclass
class Storage:
    """Cloud Storage behind the package's transport, with one write a second for each object."""

    addresses: Addresses = field(default_factory=lambda: Addresses("service:1", storage_emulator="storage:1"))
    requests: Counter[str] = field(default_factory=Counter)
    objects: dict[str, tuple[dict[str, str], int, float]] = field(default_factory=dict)
    """Metadata, generation and time of the last write, by name."""

    async def request(self, method: str, url: str, **more: Any) -> Answer:
        """Answer a request of ``LeaseObjects``."""
        await asyncio.sleep(REQUEST_SECONDS)
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        now = asyncio.get_running_loop().time()
        if method == "POST":
            lines = more["data"]().split(b"\r\n")
            resource = json.loads(lines[3])
            _, generation, written = self.objects.get(resource["name"], ({}, 0, 0.0))
            status = 412 if generation != int(query["ifGenerationMatch"][0]) else 429 if now - written < 1 else 200
            self.requests[{200: "writes"}.get(status, str(status))] += 1
            if status != 200:
                raise more["error_from"](status, "no")
            self.objects[resource["name"]] = (resource["metadata"], generation + 1, now)
            return Answer(200, "{}")
        self.requests["reads"] += 1
        if parts.path.endswith("/o"):
            prefix = query["prefix"][0]
            items = [self._item(name) for name in list(self.objects) if name.startswith(prefix)]
            return Answer(200, json.dumps({"kind": "storage#objects", "items": items}))
        name = unquote(parts.path.split("/o/", 1)[1])
        if name not in self.objects:
            raise more["error_from"](404, "No such object")
        return Answer(200, json.dumps(self._item(name)))

    async def back_off(self, failures: int) -> None:
        """Wait as the transport does."""
        await asyncio.sleep(0.5 * 2.0**failures)

    def _item(self, name: str) -> dict[str, Any]:
        metadata, generation, _ = self.objects[name]
        return {"name": name, "generation": str(generation), "metadata": metadata}


@dataclass
class Herd:
    """What became of the holders.

    :param failed: tasks that could not acquire their hold.
    :param lost: renewals that failed.
    :param waits: seconds that each task waited for its hold.
    :param requests: number of requests by kind.
    """

    failed: int = 0
    lost: int = 0
    waits: list[float] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)


Step = Callable[[HolderId], Awaitable[object]]


def herd(holders: int, *, shared: bool = False, before: bool = False) -> Herd:
    """Let many tasks acquire holds on one cluster, and renew them.

    :param holders: number of tasks.
    :param shared: whether they share one hold, as the tasks of a task group; otherwise each has its own.
    :param before: whether all holds are in one object.
    """
    found, storage, loop = Herd(), Storage(), VirtualLoop()
    transport = cast("Transport", storage)
    store, single = LeaseStore(transport, "gs://bucket/leases"), LeaseObjects(transport, "gs://bucket/leases")

    async def in_one_object(who: HolderId) -> None:
        def hold(content: Any) -> Any:
            return {**(content or {}), who.owner: loop.time() + TTL}

        await single.update("lease.json", hold)

    acquire: Step = in_one_object if before else lambda who: store.acquire(NAME, who, TTL)
    renew: Step = in_one_object if before else lambda who: store.renew(NAME, who, TTL)

    async def task(number: int, slots: asyncio.Semaphore) -> None:
        who = HolderId("dag/run" if shared else f"dag/run-{number}")
        async with slots:
            begun = loop.time()
            try:
                await acquire(who)
            except VertexRayError:
                found.failed += 1
            found.waits.append(loop.time() - begun)
        ends = loop.time() + RENEWED_FOR
        while loop.time() < ends:
            await asyncio.sleep(TTL * SHARE_OF_TTL)
            try:
                await renew(who)
            except VertexRayError:
                found.lost += 1

    async def all_tasks() -> None:
        slots = asyncio.Semaphore(SLOTS)
        await asyncio.gather(*(task(number, slots) for number in range(holders)))

    clock, lease_store.time = lease_store.time, types.SimpleNamespace(time=loop.time, monotonic=loop.time)  # type: ignore[attr-defined,assignment]
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        loop.run_until_complete(all_tasks())
    finally:
        loop.close()
        logging.disable(level)
        lease_store.time = clock  # type: ignore[attr-defined]
    found.requests = storage.requests
    return found


def run() -> Iterator[Figure]:
    """Compare both ways."""
    for shared, what in ((False, "each with its own hold"), (True, "with one hold")):
        ours, before = herd(HOLDERS, shared=shared), herd(BEFORE, shared=shared, before=True)
        for label, each, number in (("ours", ours, HOLDERS), ("before", before, BEFORE)):
            waits = sorted(each.waits)
            print(
                f"{number} tasks {what}, {label}: {each.failed} failed, {each.lost} renewals lost, "
                f"longest wait {waits[-1]:.1f} s, median {waits[len(waits) // 2]:.1f} s, {dict(each.requests)}",
                flush=True,
            )
        beside = f"{BEFORE} tasks, one object"
        failed = 100 * ours.failed / HOLDERS, 100 * before.failed / BEFORE
        yield Figure(f"{HOLDERS} tasks {what}: share that fails", failed[0], "%", beside, max(failed[1], 1e-9), 0.0)
        yield Figure("... renewals that are lost", float(ours.lost), "", beside, max(before.lost, 1e-9), 0.0)
        yield Figure("... longest wait for a hold", max(ours.waits), "s", beside, max(before.waits))


if __name__ == "__main__":
    began = time.monotonic()
    code = print_figures(run())
    print(f"Measured in {time.monotonic() - began:.0f} s.")
    sys.exit(code)
