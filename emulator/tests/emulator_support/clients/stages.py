"""Results of a client that runs in a process of its own: one JSON object for each stage."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLIENTS = Path(__file__).parent
_started = time.monotonic()


def tell(stage: str, **seen: Any) -> None:
    """Write the results of a stage; called in the client."""
    seen["seconds"] = round(time.monotonic() - _started, 1)
    with Path(sys.argv[1]).open("a") as file:
        file.write(json.dumps({"stage": stage, **seen}) + "\n")


def run_client(
    client: Path | str, env: dict[str, str], folder: Path, seconds: float = 900.0
) -> dict[str, dict[str, Any]]:
    """Run a client to its end and return the results of each stage; called in the test."""
    told = folder / "stages.jsonl"
    # The client is independent: only its own folder and this folder of the repository are on its path.
    env = {**env, "PYTHONPATH": str(CLIENTS)}
    done = subprocess.run(
        [sys.executable, str(CLIENTS / client), str(told)],
        env=env,
        cwd=folder,
        timeout=seconds,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    stages = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
    if done.returncode:
        seen = "\n".join(map(str, stages))
        raise AssertionError(f"{client} ended with {done.returncode}:\n{done.stdout[-6000:]}\nstages:\n{seen}")
    return {stage.pop("stage"): stage for stage in stages}
