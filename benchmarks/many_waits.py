"""Compare a thousand waits in one process: ours, a bare aiohttp loop with the same requests, and a blocking client.

Each way runs in a process of its own, one after the other, against one emulator with fake clusters. Measured are
the processor's share at rest, the longest time for which the event loop was blocked (including the start of all waits;
by the clock, which includes other work of the machine, and by processor time), and the memory that a wait adds. The
interpreter's garbage collections visit everything in a process, so they are reported separately.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, print_figures
from devtools.emulator_process import Emulator

WAITS = 1000
POLL_INTERVAL = 15.0
SETTLE_SECONDS = 35.0
"""Seconds after which every wait has its connection and has polled twice."""

REST_SECONDS = 30.0
JOB_SECONDS = 600

GOAL_BLOCKED = 0.050
GOAL_BUSY = 0.15
GOAL_MEMORY = 60.0


def _measure(way: str, emulator: Emulator, log: Path) -> dict[str, float]:
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.waiting_process", way, str(WAITS)],
            env={**os.environ, **emulator.airflow_environment, "AIRFLOW_HOME": str(log.parent / "airflow")},
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            timeout=600,
        )
    if done.returncode != 0:
        raise RuntimeError(f"{way} ended with {done.returncode}:\n{log.read_text()[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run() -> list[Figure]:
    """Measure all three ways."""
    with tempfile.TemporaryDirectory(prefix="vrb-") as folder:
        emulator = Emulator(Path(folder) / "state", ["--backend", "fake", "--without", "no-websockets"])
        emulator.start()
        try:
            ours, floor, peer = (
                _measure(way, emulator, Path(folder) / f"{way}.log") for way in ("ours", "floor", "peer")
            )
        finally:
            emulator.stop()
    return [
        Figure("longest round of the loop, without collections", ours["own_turn"], "s", "goal", GOAL_BLOCKED, 1.0),
        Figure(
            "longest round of the loop, without collections", ours["own_turn"], "s", "bare aiohttp", floor["own_turn"]
        ),
        Figure("longest round of the loop", ours["turn"], "s", "bare aiohttp", floor["turn"]),
        Figure("longest garbage collection", ours["collection"], "s", "bare aiohttp", floor["collection"]),
        Figure(
            "longest time that the loop was blocked",
            ours["blocked"],
            "s",
            "blocking client in the loop",
            peer["blocked"],
        ),
        Figure("longest time that the loop was blocked", ours["blocked"], "s", "bare aiohttp", floor["blocked"]),
        Figure("share of a core at rest", ours["busy"], "", "goal", GOAL_BUSY, 1.0),
        Figure("share of a core at rest", ours["busy"], "", "bare aiohttp", floor["busy"]),
        Figure("share of a core at rest", ours["busy"], "", "blocking client in the loop", peer["busy"]),
        Figure("memory of a wait over the floor's", ours["memory"] - floor["memory"], "KiB", "goal", GOAL_MEMORY, 1.0),
        Figure("memory of a wait", ours["memory"], "KiB", "bare aiohttp", floor["memory"]),
    ]


def main() -> int:
    """Measure and print the figures."""
    print(f"{WAITS} waits in one process, poll_interval {POLL_INTERVAL:.0f} s, {REST_SECONDS:.0f} s at rest.")
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
