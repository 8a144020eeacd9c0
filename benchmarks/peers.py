"""The peers' own code, in an environment of its own where it does not fit into ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".bench" / "peers"
VARIABLE = "BENCH_PEERS_PYTHON"
"""Python of an environment that has astro-provider-ray already."""

# It is discontinued and pinned to Airflow 2; the newest one that it was released for.
REQUIREMENTS = ("astro-provider-ray==0.4.0", "apache-airflow==2.11.2", "ray[default]==2.47.1")
CONSTRAINTS = REPOSITORY / "constraints" / "airflow-2.11.txt"
INSTALL_SECONDS = 240.0


def astro_python() -> Path | None:
    """Return the Python of an environment with astro-provider-ray, made at the first call; None if it cannot be made.

    The reason is printed: the benchmarks then run without this peer.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    python = FOLDER / "bin" / "python"
    done = FOLDER / "installed"
    if done.exists():
        return python
    uv = str(Path(sys.executable).with_name("uv"))
    try:
        subprocess.run(
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER)],
            check=True,
            timeout=INSTALL_SECONDS,
        )
        install = [uv, "pip", "install", "--quiet", "--python", str(python), *REQUIREMENTS]
        subprocess.run([*install, "--constraint", str(CONSTRAINTS)], check=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"astro-provider-ray could not be installed, so it is left out: {error}", flush=True)
        return None
    done.touch()
    return python
