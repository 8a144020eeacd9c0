"""Jobs that wait together until one of them prints everything that Airflow cannot store, and the others after it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from tests.support.job_dags import jobs_on_one_cluster

SAMPLE, ALL = 5, 20
ODD = 2
"""Map index of the job with the odd output."""

# Read by the shell and Python on the cluster: NUL, bytes that are not UTF-8 (one of them half of a surrogate pair),
# numbers, depth and names that Airflow cannot store; each in a line, and all of them in the result. Airflow's triggerer
# reads 4 KiB of the log at a time, and is far behind when the job ends.
PRINTED = r"""
import json, sys
deep = '[' * 5000 + ']' * 5000
result = {"seed": 18446744073709551616, "loss": float("nan"), "best": float("inf"), "text": "a\0b\ud800"}
lines = [b"a\0b", b"caf\xe9", b"\xed\xa0\x80", deep.encode(), b'{"__classname__": "x"}', json.dumps(result).encode()]
for number in range(3000):
    sys.stdout.buffer.write(b"before the end: %d\n" % number)
for line in [*lines, b"VERTEX_RAY_RESULT " + json.dumps(result).encode()]:
    sys.stdout.buffer.write(line + b"\n")
"""


def gate(folder: Path | str, count: int, name: str) -> Path:
    """The file for which the jobs of a run wait: ``odd`` for the one with the odd output, ``rest`` for the others."""
    return Path(folder) / f"odd-output-{count}-{name}"


def entrypoint(count: int, number: int) -> str:
    """The program of a job."""
    own = f"python -c {shlex.quote(PRINTED)}" if number == ODD else f"echo VERTEX_RAY_RESULT {number}"
    opened = shlex.quote(str(gate(os.environ.get("SYSTEM_TEST_FOLDER", ""), count, "odd" if number == ODD else "rest")))
    return f"until [ -e {opened} ]; do sleep 0.5; done; {own}"


for jobs in (SAMPLE, ALL):
    globals()[f"odd_output_{jobs}"] = jobs_on_one_cluster(
        f"odd_output_{jobs}",
        "odd-output-{{ run_id }}",
        [entrypoint(jobs, number) for number in range(jobs)],
        poll_interval=2,
        job_timeout=900,
    )
