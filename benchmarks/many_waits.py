"""Compare 10 to 3,000 waits in one process: ours, a bare aiohttp loop with the same requests, and a blocking client.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, print_figures
from devtools.emulator_process import Emulator

SIZES = (10, 100, 1000, 3000)
WAITS = 1000
"""Number of waits at which the blocking client, as other providers call it in the event loop, is measured too."""

POLL_INTERVAL = 15.0
REST_SECONDS = 15.0
JOB_SECONDS = 600


def settle_seconds(count: int) -> float:
    """Return the seconds after which every wait has its connection and has polled at its usual pace."""
    return POLL_INTERVAL * (2 if count >= WAITS else 1) + 2


GOAL_BLOCKED = 0.050
GOAL_BUSY = 0.15
GOAL_MEMORY = 60.0


def _measure(way: str, count: int, emulator: Emulator, folder: Path) -> dict[str, float]:
    log = folder / f"{way}-{count}.log"
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.waiting_process", way, str(count)],
            env={**os.environ, **emulator.airflow_environment, "AIRFLOW_HOME": str(folder / "airflow")},
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            timeout=600,
        )
    if done.returncode != 0:
        raise RuntimeError(f"{way} ended with {done.returncode}:\n{log.read_text()[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run() -> Iterator[Figure]:
    """Measure each number of waits, with an emulator of its own."""
    for count in SIZES:
        with tempfile.TemporaryDirectory(prefix="vrb-") as folder:
            emulator = Emulator(Path(folder) / "state", ["--backend", "fake", "--without", "no-websockets"])
            emulator.start()
            try:
                yield from _figures(count, emulator, Path(folder))
            finally:
                emulator.stop()


def _figures(count: int, emulator: Emulator, folder: Path) -> Iterator[Figure]:
    ours, floor = (_measure(way, count, emulator, folder) for way in ("ours", "floor"))
    bare = "bare aiohttp"
    what = f"{count:,} waits: "
    # The goals are for a thousand waits: fewer must reach them too, and three times as many may take three times that.
    share = max(1.0, count / WAITS)
    turn = f"{what}longest round of the loop, without collections"
    yield Figure(turn, ours["own_turn"], "s", "goal", GOAL_BLOCKED * share, 1.0)
    yield Figure(turn, ours["own_turn"], "s", bare, floor["own_turn"])
    yield Figure(f"{what}longest round of the loop", ours["turn"], "s", bare, floor["turn"])
    yield Figure(f"{what}longest garbage collection", ours["collection"], "s", bare, floor["collection"])
    blocked = f"{what}longest time that the loop was blocked"
    yield Figure(blocked, ours["blocked"], "s", bare, floor["blocked"])
    busy = f"{what}share of a core at rest"
    yield Figure(busy, ours["busy"], "", "goal", GOAL_BUSY * share, 1.0)
    yield Figure(busy, ours["busy"], "", bare, floor["busy"])
    if count >= WAITS:
        # Of few waits, what the process itself allocates meanwhile hides the waits' own memory.
        added = ours["memory"] - floor["memory"]
        yield Figure(f"{what}memory of each over the floor's", added, "KiB", "goal", GOAL_MEMORY, 1.0)
        yield Figure(f"{what}memory of each", ours["memory"], "KiB", bare, floor["memory"])
    if count == WAITS:
        peer = _measure("peer", count, emulator, folder)
        client = "blocking client in the loop"
        yield Figure(blocked, ours["blocked"], "s", client, peer["blocked"])
        yield Figure(busy, ours["busy"], "", client, peer["busy"])


def main() -> int:
    """Measure and print the figures."""
    print(f"{SIZES} waits in one process, poll_interval {POLL_INTERVAL:.0f} s, {REST_SECONDS:.0f} s at rest.")
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
