"""Run one benchmark in this process, and write each figure as a line of JSON: ``python -m benchmarks.one imports``."""

from __future__ import annotations

import importlib
import json
import os
import sys

from benchmarks.report import Figure

MARK = "\x1efigure "
"""Start of a line with a figure; everything else that a benchmark prints is for the reader."""


def main(name: str) -> int:
    """Run the benchmark."""
    # Airflow would print the tasks' logs between the figures; it reads this when it is imported.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    # What the benchmark itself prints must not end up inside a figure's line.
    out = sys.stdout
    for figure in importlib.import_module(f"benchmarks.{name}").run():
        if not isinstance(figure, Figure):
            raise TypeError(f"benchmarks.{name}.run() gave {figure!r} instead of a Figure.")
        out.write(MARK + json.dumps(figure.to_dict()) + "\n")
        out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
