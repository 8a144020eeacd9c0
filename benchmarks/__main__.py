"""Run the benchmarks (``make bench``, ``make bench BENCH="imports leases"``): under half an hour on two cores.

Each figure is printed and kept as soon as it is measured. The page of a run is ``.bench/benchmarks.md``; a complete run
of all benchmarks becomes ``docs/benchmarks.md``. The exit code is 1 if a benchmark fails or a goal is missed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.catalog import chosen
from benchmarks.plot import draw_ratios
from benchmarks.results import Results, machine
from benchmarks.runner import REPOSITORY, run_all

PAGE = REPOSITORY / ".bench" / "benchmarks.md"
DOCS = REPOSITORY / "docs" / "benchmarks.md"
PLOT = Path("images") / "benchmarks.svg"


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def main(names: list[str]) -> int:
    """Run the benchmarks with these names, or all of them."""
    try:
        benchmarks = chosen(names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    begun = time.monotonic()
    results = Results(PAGE, machine())
    code = 1
    try:
        code = run_all(benchmarks, results, say)
    finally:
        say(f"Measured {len(results.figures)} figures in {time.monotonic() - begun:.0f} s; they are in {PAGE}.")
    if results.complete:
        draw_ratios(results.figures, DOCS.parent / PLOT)
        results.file, results.plot = DOCS, PLOT.as_posix()
        results.write()
        say(f"All benchmarks ran: the page is {DOCS} as well.")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
