"""Measure the import time of everything that DAG files can import, beside Airflow's and the Google provider's."""

from __future__ import annotations

import sys

from benchmarks.import_time import ImportMeter, best, dag_modules, import_meter
from benchmarks.report import Figure, print_figures

ROUNDS = 3
PEER = (
    "airflow.providers.google.cloud.operators.vertex_ai.ray",
    "airflow.providers.google.cloud.operators.ray",
)
GOAL_OVER_FLOOR = 1.12
GOAL_OF_PEER = 0.30


def run() -> list[Figure]:
    """Measure in an Airflow folder of its own."""
    with import_meter() as meter:
        return measure(meter)


def measure(meter: ImportMeter, rounds: int = ROUNDS) -> list[Figure]:
    """Measure both alternately, and take the minimum of each.

    Each round is one fresh interpreter for us and one for the peer. The first round is not counted, because it may have
    to write byte code.
    """
    pairs = [(meter.measure(dag_modules()), meter.measure(PEER)) for _ in range(rounds + 1)][1:]
    ours, peer = best([pair[0] for pair in pairs]), best([pair[1] for pair in pairs])
    return [
        Figure("import with Airflow", ours.total, "s", "Airflow alone", ours.floor, GOAL_OVER_FLOOR),
        Figure("import over Airflow", ours.added, "s", "Google provider's", peer.added, GOAL_OF_PEER),
        # No goal: nearly all of both is Airflow itself.
        Figure("import with Airflow", ours.total, "s", "Google provider's", peer.total),
    ]


def main() -> int:
    """Measure and print the figures."""
    print(f"Import of our {len(dag_modules())} modules, and of {' and '.join(PEER)}; minimum of {ROUNDS} rounds.")
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
