"""One job with many numbered lines, followed by the trigger over connections that are bad all the time."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from tests.support.clusters import full_name, submit

FAULTY_SHARE = 0.05
FRAMES_BEFORE_ABORT = 20
FAULTS: tuple[dict[str, Any], ...] = ({"status": 429}, {"status": 503}, {"status": 524}, {"action": "reset"})
LINE = "line "
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@contextmanager
def bad_weather(emulator: EmulatorProcess, cluster_id: str) -> Iterator[None]:
    """A share of all answers of the dashboard fails, and each websocket is cut after some frames."""
    # The first fault that happens is taken: together they have the share.
    probability = 1 - (1 - FAULTY_SHARE) ** (1 / len(FAULTS))
    everything = {"scope": "dashboard", "resource": cluster_id, "times": None}
    with ExitStack() as stack:
        for fault in FAULTS:
            stack.enter_context(emulator.fault(**everything, **fault, probability=probability))
        abort = {"method": "GET */logs/tail", "action": "ws_abort", "after": FRAMES_BEFORE_ABORT}
        stack.enter_context(emulator.fault(**everything, **abort))
        yield


@dataclass
class Lines:
    """Checks the lines as they come, and remembers none: exactly once and in order."""

    expected: int = 0
    others: int = 0
    wrong: list[str] = field(default_factory=list)

    def take(self, line: str) -> None:
        if not line.startswith(LINE):
            self.others += 1
        elif line == f"{LINE}{self.expected}":
            self.expected += 1
        elif len(self.wrong) < 5:
            self.wrong.append(f"{line!r} where {self.expected} was due")


@dataclass
class Memory:
    """What this process holds, in bytes, now and then."""

    every: float
    traced: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(self.every)
            gc.collect()
            self.traced.append(tracemalloc.get_traced_memory()[0])
            self.resident.append(resident_bytes())

    def growth(self, values: list[int]) -> int:
        """Between the second quarter, when all is imported and warm, and the last one: the least of each."""
        quarter = len(values) // 4
        return min(values[-quarter:]) - min(values[quarter : 2 * quarter])


@dataclass
class Report:
    """What came of it."""

    result: dict[str, Any]
    lines: Lines
    memory: Memory
    seconds: float
    requests: Counter[str]

    def __str__(self) -> str:
        traced, resident = (self.memory.growth(values) for values in (self.memory.traced, self.memory.resident))
        return (
            f"{self.lines.expected} lines in {self.seconds:.0f} s; requests: {dict(self.requests)}, "
            f"together {self.requests.total()}; growth after warm-up: {traced / 1024:.0f} KiB of Python's memory, "
            f"{resident / 2**20:.1f} MiB resident of {self.memory.resident[-1] / 2**20:.0f} MiB"
        )


async def follow(
    emulator: EmulatorProcess, cluster_id: str, entrypoint: str, *, seconds: float, token_seconds: float
) -> Report:
    """Submit the job and wait for it as a deferred task does.

    :param seconds: What the job takes, about.
    """
    lines, memory = Lines(), Memory(seconds / 40)
    submit(emulator, cluster_id, "long", entrypoint)
    emulator.admin("POST", "tokens/settings", {"seconds": token_seconds})
    emulator.admin("POST", "tokens/revoke")
    emulator.admin("DELETE", "calls")
    trigger = VertexRayJobTrigger(cluster_name=full_name(cluster_id), submission_id="long")
    trigger._emit = lines.take  # type: ignore[method-assign]
    tracemalloc.start()
    watch = asyncio.create_task(memory.watch())
    begin = time.monotonic()
    try:
        with bad_weather(emulator, cluster_id):
            event = await asyncio.wait_for(trigger.outcome(), seconds * 2 + 60)
    finally:
        watch.cancel()
        tracemalloc.stop()
    passed = time.monotonic() - begin
    requests = Counter(f"{call['method']} {call['status']}" for call in emulator.calls())
    return Report(result_of(event), lines, memory, passed, requests)
