"""The job: says when it starts and ends, in a file that all jobs share, and ends when it is told to."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

folder, run_id = Path(sys.argv[1]), sys.argv[2]
submission_id = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"]


def note(what: str) -> None:
    """One write of a short line to a file opened for appending is never torn."""
    with (folder / "ledger").open("a") as ledger:
        ledger.write(f"{what} {run_id} {submission_id}\n")


note("start")
print("step 0", flush=True)
begun, step = time.monotonic(), 0
while not (folder / "released" / run_id).exists():
    time.sleep(0.1)
    if time.monotonic() - begun > step + 1:
        step += 1
        print(f"step {step}", flush=True)
note("end")
print(f"VERTEX_RAY_RESULT {json.dumps(run_id)}", flush=True)
