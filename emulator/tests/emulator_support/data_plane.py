"""Helpers for tests of the emulator's data plane: plans of clusters, waiting, and listening sockets."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.project.plan import NodePlan

from emulator_support.process import PATIENCE, pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vertex_ray_emulator.backends.processes import ClusterRecord

GIB = 1 << 30


def plans(workers: int, *, gpus: int = 1) -> list[NodePlan]:
    """Return the plan of a head and of workers ``worker-pool1-0``, … with 4 CPUs and a T4."""
    head = NodePlan("head", "head-node", True, "n1-standard-16", 16, 0, None, 60 * GIB)
    pool = [
        NodePlan(f"worker-pool1-{k}", "worker-pool1", False, "n1-standard-4", 4, gpus, "T4" if gpus else None, 15 * GIB)
        for k in range(workers)
    ]
    return [head, *pool]


def remains(record: ClusterRecord, state_dir: Path) -> list[str]:
    """Return the files of a cluster that still exist, although it is gone."""
    return [str(path) for path in (Path(record.temp_dir), *(state_dir / "clusters").iterdir()) if path.exists()]


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition, sync or async, is true, and return its value."""
    end = time.monotonic() + PATIENCE
    pause = pauses()
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, f"waited {PATIENCE:g} s for {what}"
        await asyncio.sleep(next(pause))


def listening_addresses(pids: Iterable[int]) -> set[str]:
    """Return the TCP addresses on which processes listen, in the kernel's format (hexadecimal, without ports)."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(str(fd.readlink()))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add(fields[1].rsplit(":", 1)[0])
    return found
