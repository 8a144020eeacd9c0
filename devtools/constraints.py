"""Resolve the tested sets of versions in ``constraints/``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
RAY = "2.47.1"


@dataclass(frozen=True)
class TestedSet:
    """One set of versions.

    :param name: name of its file in ``constraints/``.
    :param airflow: version of Airflow.
    :param python: minor version of Python.
    :param until: only releases until this day, for Airflows that newer releases of their dependencies break; None: the
        newest ones.
    :param whole: whether it is resolved for all tests, with the emulator and the service's Ray; the others have what
        the unit tests need, and the Ray that the Google provider brings.
    :param lowest: whether the package's own requirements have the lowest version that it declares.
    :param composer: whether it stands for an image of Cloud Composer: what was there before this package.
    """

    name: str
    airflow: str
    python: str
    until: str | None = None
    whole: bool = False
    lowest: bool = False
    composer: bool = False


def _compat(airflow: str, until: str | None, *pythons: str) -> list[TestedSet]:
    line = ".".join(airflow.split(".")[:2])
    return [TestedSet(f"airflow-{line}-python{python}", airflow, python, until) for python in pythons]


SETS = [
    TestedSet("airflow-3.3.2", "3.3.2", "3.11", whole=True),
    TestedSet("airflow-2.11", "2.11.2", "3.11", whole=True),
    *_compat("2.11.2", None, "3.10", "3.12"),
    *_compat("3.1.8", "2026-05-01", "3.10", "3.11", "3.13"),
    *_compat("3.2.2", "2026-07-15", "3.10", "3.11", "3.13"),
    *_compat("3.3.2", None, "3.10", "3.13"),
    TestedSet("lowest-python3.10", "2.11.0", "3.10", lowest=True),
    TestedSet("lowest-python3.12", "2.11.0", "3.12", lowest=True),
    # Not the real images, whose lists nobody here can see: what resolves on a day after the release.
    TestedSet("composer-2.11.2", "2.11.2", "3.11", "2026-05-01", composer=True),
    TestedSet("composer-3.1.8", "3.1.8", "3.11", "2026-05-01", composer=True),
    TestedSet("composer-3.2.2", "3.2.2", "3.11", "2026-07-15", composer=True),
    TestedSet("composer-3.3.1", "3.3.1", "3.11", "2026-08-26", composer=True),
]

IMAGE = ("apache-airflow-providers-google", "apache-airflow-providers-common-compat", "apache-airflow-providers-fab")
"""What a Composer-like set has besides Airflow; FAB where there is one for the Airflow."""


def main(names: Sequence[str]) -> int:
    """Write each file, or those of the named sets, with the newest versions that are compatible with each other."""
    for each in SETS:
        if not names or each.name in names:
            (ROOT / "constraints" / f"{each.name}.txt").write_text(_resolve(each))
            print(f"constraints/{each.name}.txt", flush=True)
    if not names or "docs" in names:
        # What "make docs" installs.
        resolved = _output([*_compile("3.11"), "--group", "docs"], "docs")
        (ROOT / "constraints" / "docs.txt").write_text(
            f"# The documentation's site. Made by 'make constraints'.\n{resolved}"
        )
        print("constraints/docs.txt", flush=True)
    return 0


def _compile(python: str) -> list[str]:
    uv = str(Path(sys.executable).with_name("uv"))
    return [uv, "pip", "compile", "--python-version", python, "--quiet", "--no-annotate", "--no-header"]


def _output(command: list[str], name: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    return done.stdout


def _resolve(each: TestedSet) -> str:
    with tempfile.TemporaryDirectory() as folder:
        bounds, image = Path(folder, "bounds.txt"), Path(folder, "image.in")
        wanted = [f"apache-airflow=={each.airflow}"]
        command = _compile(each.python)
        if each.composer:
            image.write_text("\n".join([*wanted, *IMAGE]))
            command += [str(image)]
        elif each.lowest:
            command += ["pyproject.toml", "--resolution", "lowest-direct"]
            # As in Airflow's own constraints: with newer ones, ObjectStoragePath of 2.11.0 opens no file://; 2.11.2
            # requires it itself.
            wanted.append("universal-pathlib<0.3")
        else:
            command += ["pyproject.toml", "--group", "dev" if each.whole else "compat", "--extra", "plots"]
            if each.whole:
                # Without this bound, the resolver falls back to an old Google provider first.
                wanted += [f"ray=={RAY}", "apache-airflow-providers-google>=22.8"]
                command += ["--extra", "client", "--extra", "emulator"]
                command += ["--no-emit-package", "vertex-ray-emulator"]
        bounds.write_text("\n".join(wanted))
        command += ["--constraints", str(bounds)]
        if each.until:
            command += ["--exclude-newer", each.until]
        resolved = _output(command, each.name)
    return f"# {_title(each)}. Made by 'make constraints'.\n{resolved}"


def _title(each: TestedSet) -> str:
    parts = [f"Airflow {each.airflow}", f"Python {each.python}"]
    if each.whole:
        parts.append(f"Ray {RAY}")
    if each.lowest:
        parts.append("lowest versions of its own requirements")
    if each.until:
        parts.append(f"releases until {each.until}")
    return ("Like Cloud Composer: " if each.composer else "The tested set: ") + ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
