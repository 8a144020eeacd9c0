"""Resolve the tested sets in ``constraints/`` for each Airflow line, on Python 3.11 with the service's Ray version."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
RAY = "2.47.1"
LINES = {"3.3.2": "3.3.2", "2.11": "2.11.2"}


def main() -> int:
    """Write each file with the newest versions that are compatible with each other."""
    uv = Path(sys.executable).with_name("uv")
    for line, version in LINES.items():
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as bounds:
            # Without this bound, the resolver falls back to an old Google provider first.
            bounds.write(f"apache-airflow=={version}\nray=={RAY}\napache-airflow-providers-google>=22.8\n")
            bounds.flush()
            command = [str(uv), "pip", "compile", "pyproject.toml", "--extra", "emulator", "--extra", "plots"]
            command += ["--group", "dev", "--python-version", "3.11", "--constraints", bounds.name]
            command += ["--quiet", "--no-annotate", "--no-header", "--no-emit-package", "vertex-ray-emulator"]
            found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        head = f"# The tested set: Airflow {version}, Python 3.11, Ray {RAY}. Made by 'make constraints'.\n"
        (ROOT / "constraints" / f"airflow-{line}.txt").write_text(head + found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
