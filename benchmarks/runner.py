"""Run benchmarks one after the other, each in a process of its own; one that fails or hangs does not stop the rest."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from benchmarks.catalog import Benchmark
from benchmarks.one import MARK
from benchmarks.report import HEADERS, Figure, line
from benchmarks.results import Outcome, Results
from devtools.process_group import kill_all

REPOSITORY = Path(__file__).resolve().parent.parent


def command_of(benchmark: Benchmark) -> list[str]:
    """Return the command that runs a benchmark."""
    return [sys.executable, "-m", "benchmarks.one", benchmark.name]


def run_all(
    benchmarks: Sequence[Benchmark],
    results: Results,
    say: Callable[[str], None],
    command: Callable[[Benchmark], list[str]] = command_of,
) -> int:
    """Run the benchmarks, and keep each figure as soon as it is measured.

    :param benchmarks: the benchmarks, in their order.
    :param results: what is kept; written after each figure.
    :param say: prints a line.
    :param command: gives the command that runs a benchmark.
    :return: 0 if all ran and every goal is reached, otherwise 1.
    """
    say(line(HEADERS))
    for benchmark in benchmarks:
        say(f"--- {benchmark.title} (benchmarks.{benchmark.name}, about {benchmark.seconds} s)")
        outcome = results.begin(benchmark)
        begun = time.monotonic()

        def keep(figure: Figure, outcome: Outcome = outcome) -> None:
            outcome.figures.append(figure)
            results.write()
            say(line(figure.cells()))

        outcome.failure = run_one(command(benchmark), benchmark.limit, keep, say)
        outcome.seconds = time.monotonic() - begun
        results.write()
        if outcome.failure:
            say(f"FAILED: benchmarks.{benchmark.name} {outcome.failure}")
    return 0 if results.good else 1


def run_one(command: list[str], limit: float, keep: Callable[[Figure], None], say: Callable[[str], None]) -> str | None:
    """Run one benchmark's process to its end.

    :param command: its command.
    :param limit: seconds after which it is killed, with everything that it started.
    :param keep: takes each figure when it is measured.
    :param say: prints every other line.
    :return: None, or why it failed.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    deadline = time.monotonic() + limit
    figures = 0
    try:
        while (text := lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            if text.startswith(MARK):
                keep(Figure(**json.loads(text[len(MARK) :])))
                figures += 1
            else:
                say(f"    {text}")
        code = process.wait(timeout=max(1.0, deadline - time.monotonic()))
    except (queue.Empty, subprocess.TimeoutExpired):
        return f"did not end within {limit:.0f} s."
    finally:
        if process.poll() is None:
            kill_all(process.pid)
            process.wait()
    if code != 0:
        return f"ended with exit code {code}."
    return None if figures else "measured nothing."


def _read(stream: IO[str] | None, lines: queue.Queue[str | None]) -> None:
    for text in stream or ():
        lines.put(text.rstrip("\n"))
    lines.put(None)
