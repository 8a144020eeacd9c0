"""The peers' own code, in an environment of its own where it does not fit into ours."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from airflow_provider_vertex_ray.core.http.auth import EmulatorTokenSource
from benchmarks.clusters import Bench

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".bench" / "peers"
VARIABLE = "BENCH_PEERS_PYTHON"
"""Python of an environment that has astro-provider-ray already."""

# It is discontinued and pinned to Airflow 2; the newest one that it was released for.
REQUIREMENTS = (
    "astro-provider-ray==0.4.0",
    "apache-airflow==2.11.2",
    "ray[default]==2.47.1",
    # What ours needs beside it.
    "apache-airflow-providers-google",
)
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
        install = [uv, "pip", "install", "--quiet", "--python", str(python), "--constraint", str(CONSTRAINTS)]
        # The group has the database of Airflow.
        group = ["--group", f"{REPOSITORY / 'pyproject.toml'}:compat"]
        subprocess.run([*install, *group, *REQUIREMENTS], check=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"astro-provider-ray could not be installed, so it is left out: {error}", flush=True)
        return None
    done.touch()
    return python


def astro_connection(where: Bench) -> str:
    """Return a connection with the dashboard's address and a token, because astro-provider-ray has no credentials."""
    token = asyncio.run(EmulatorTokenSource(where.emulator.host).get())
    address = f"http://{where.emulator.host}/{where.dashboard_uri.rsplit('/', 1)[-1]}"
    headers = json.dumps({"Authorization": f"Bearer {token}"})
    return json.dumps({"conn_type": "ray", "extra": {"address": address, "headers": headers}})
