"""Measure what a task costs its worker's process, over what an empty task costs: CPU time, and time on the clock.

Each run is a fresh interpreter, which first loads what Airflow's worker has loaded when it executes a task. Then it
runs the task against an emulator without delays. The credentials are measured apart, because the emulator needs none:
those of a connection without a key, on a machine of Google Cloud.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.clusters import INSTANT, Bench, bench
from benchmarks.peers import astro_connection, astro_python
from benchmarks.report import Figure, print_figures

ROUNDS = 3
GOAL = 0.40
"""0.6 s of CPU time over an empty task, where that takes 1.5 s."""

_numbers = itertools.count(1)


def _cost(where: Bench, way: str, python: str | Path = sys.executable, **variables: str) -> dict[str, float]:
    """Run one process; return its ``floor``, ``cpu`` and ``seconds``."""
    target = where.dashboard_uri if way in ("google", "astro") else where.cluster
    done = subprocess.run(
        [str(python), "-m", "benchmarks.worker_process", way, target, f"run-{next(_numbers)}"],
        # Airflow's example plugins import its whole database model.
        env={**where.environment, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", **variables},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{way} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _least(where: Bench, way: str, rounds: int = ROUNDS, **more: Any) -> dict[str, float]:
    """Return the minimum of each figure over several processes, as noise only ever adds; the first is not counted."""
    runs = [_cost(where, way, **more) for _ in range(rounds + 1)][1:]
    return {name: min(run[name] for run in runs) for name in runs[0]}


def run() -> Iterator[Figure]:
    """Measure our parts, then the peers'."""
    # The Google provider recognises a Vertex AI address by its bare host name.
    with bench((*INSTANT, "--dashboard-addresses", "google")) as where:
        floor = _least(where, "empty")["floor"]
        ours, credentials = _least(where, "submit"), _least(where, "credentials")
        submit = ours["cpu"] + credentials["cpu"]
        beside = "the whole empty task"
        yield Figure("CPU time of a worker that submits, over an empty task", submit, "s", beside, floor, GOAL)
        yield Figure("... of it for credentials", credentials["cpu"], "s", beside, floor)
        collected = _least(where, "collect")
        yield Figure(
            "CPU time of a worker that collects, over an empty task", collected["cpu"], "s", beside, floor, GOAL
        )
        waited = _least(where, "wait")
        yield Figure("CPU time of the first wait in a triggerer's process", waited["cpu"], "s", beside, floor)
        variables = where.emulator.sdk_environment
        google = _least(where, "google", 1, **variables)
        what = "CPU time of a worker that submits"
        yield Figure(what, submit, "s", "Google provider's", google["cpu"], 0.5)
        yield Figure("time of a worker that submits", ours["seconds"], "s", "Google provider's", google["seconds"])
        if (python := astro_python()) is not None:
            home = str(where.folder / "airflow-2")
            astro = _least(
                where, "astro", 1, python=python, AIRFLOW_HOME=home, AIRFLOW_CONN_RAY_BENCH=astro_connection(where)
            )
            yield Figure(what, submit, "s", "astro-provider-ray", astro["cpu"], 0.5)


def main() -> int:
    """Measure and print the figures."""
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
