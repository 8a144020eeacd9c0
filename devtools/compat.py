"""Try the package on each line of Airflow and Python, and in sets like Cloud Composer's; print the table for the docs.

    python -m devtools.compat [NAME …] [--steps imports,unit,airflow] [--rounds 10]

Every set is installed into an environment of its own below ``.compat``, with the wheel of this checkout. The emulator
runs in this process's environment, as it needs Python 3.10 or 3.11.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devtools.constraints import ROOT, SETS, TestedSet

FOLDER = ROOT / ".compat"
STEPS = ("install", "imports", "submit", "unit", "airflow")
DEFAULT = "imports,unit,airflow"
"""Steps that are run unless others are asked for; ``submit`` is a part of ``unit``, for CI."""

COLUMNS = ("install", "imports", "unit", "airflow")
UNIT = "not ray and not sdk and not system and not soak and not compat"
# As in the Makefile; the tests wait most of the time.
PROCESSES = ("-n", "4", "--no-loadscope-reorder")
UV = Path(sys.executable).with_name("uv")
# They test what belongs to the repository, not to the environment: its documents, its wheel, its layout, its devtools;
# or they need the emulator's own requirements in this environment.
NOT_OF_THE_ENVIRONMENT = (
    "architecture",
    "benchmarks",
    "demo",
    "docs",
    "docs_blocks",
    "docs_tables",
    "emulator_recipes",
    "import_budget",
    "packaging",
)


@dataclass
class Row:
    """What came of one set."""

    tested: TestedSet
    cells: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not any(text.startswith("**") for text in self.cells.values())


def python_of(minor: str) -> str | None:
    """Return a Python of this minor version: from the PATH, or from pyenv; None if there is none here."""
    name = f"python{minor}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for found in (shutil.which(name), *map(str, sorted(pyenv.glob(f"{minor}.*/bin/{name}")))):
        # A shim of pyenv may be there for a version that is not chosen.
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    return None


def _sets() -> dict[str, TestedSet]:
    return {each.name: each for each in SETS if not each.whole}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devtools.compat", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"sets to try, of {', '.join(_sets())}; default: all of them")
    parser.add_argument("--steps", default=DEFAULT, help=f"steps to run, of {', '.join(STEPS[1:])}; default: {DEFAULT}")
    parser.add_argument("--rounds", type=int, default=1, help="how often each kill is tried")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps for each set; return 1 if one failed."""
    sets, parser = _sets(), _parser()
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(sets):
        parser.error(f"unknown sets: {', '.join(sorted(unknown))}")
    steps = given.steps.split(",")
    wheel = _wheel()
    rows = []
    for name in given.names or sets:
        row = _try(sets[name], wheel, steps, given.rounds)
        rows.append(row)
        print(_line(row), flush=True)
    print("\n" + table(rows))
    return 0 if all(row.ok for row in rows) else 1


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ["| set | Airflow | Python | install | imports | unit tests | a DAG, and kills |", "| --- " * 7 + "|"]
    return "\n".join([*head, *map(_line, rows)])


def _line(row: Row) -> str:
    cells = (row.tested.name, row.tested.airflow, row.tested.python, *(row.cells.get(step, "") for step in COLUMNS))
    return f"| {' | '.join(cells)} |"


def _wheel() -> Path:
    shutil.rmtree(FOLDER / "dist", ignore_errors=True)
    _run([str(UV), "build", "--quiet", "--wheel", "--out-dir", str(FOLDER / "dist"), str(ROOT)], {})
    (wheel,) = (FOLDER / "dist").glob("*.whl")
    return wheel


def _try(tested: TestedSet, wheel: Path, steps: Sequence[str], rounds: int) -> Row:
    row = Row(tested)
    home = FOLDER / tested.name
    python = python_of(tested.python)
    if python is None:
        row.cells["install"] = f"no Python {tested.python} here"
        return row
    row.cells["install"] = _install(tested, wheel, home, python)
    if not row.ok:
        return row
    own = home / "venv" / "bin" / "python"
    # The package is the wheel; the tests and their helpers are this checkout's.
    paths = os.pathsep.join(map(str, (ROOT / "emulator" / "tests", home / "checkout")))
    environment = {"PYTHONPATH": paths, "VERTEX_RAY_EMULATOR_PYTHON": sys.executable, "KILL_ROUNDS": str(rounds)}
    shutil.rmtree(home / "checkout", ignore_errors=True)
    (home / "checkout").mkdir()
    # Some tests try what the documents and benchmarks say.
    for part in ("tests", "devtools", "example_dags", "benchmarks", "docs"):
        shutil.copytree(ROOT / part, home / "checkout" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / part, home / "checkout")
    pytest = [str(own), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for step, selected in _selections().items():
        if step in steps:
            column = "unit" if step == "submit" else step
            row.cells[column] = _pytest(tested, step, [*pytest, *selected], environment, home)
    return row


def _selections() -> dict[str, list[str]]:
    left_out = [f"--ignore=tests/test_{name}.py" for name in NOT_OF_THE_ENVIRONMENT]
    # It compares with the emulator's own parser of filters, in this process.
    left_out += ["--ignore=tests/soak", "--ignore=tests/core/monitoring/test_log_query.py"]
    return {
        "imports": ["tests/compat/test_imports.py"],
        "submit": ["tests/operators/test_submit.py", "-m", UNIT, *PROCESSES],
        "unit": ["tests", "-m", UNIT, *PROCESSES, *left_out],
        "airflow": ["tests/compat/test_airflow.py", "-s"],
    }


def _install(tested: TestedSet, wheel: Path, home: Path, python: str) -> str:
    """Install a set, then the wheel and the tests' requirements; say what the wheel changed."""
    constraints = ROOT / "constraints" / f"{tested.name}.txt"
    venv = home / "venv"
    shutil.rmtree(home, ignore_errors=True)
    _run([str(UV), "venv", "--quiet", "--python", python, str(venv)], {})
    install = [str(UV), "pip", "install", "--python", str(venv / "bin" / "python")]
    begun = time.monotonic()
    changed = ""
    if tested.composer:
        _run([*install, "--quiet", "--no-deps", "--requirements", str(constraints)], {})
        # As pip does, keep what is installed, releases like 0.62b1 included.
        done = _run([*install, "--dry-run", "--prerelease", "allow", str(wheel)], {}, check=False)
        if done.returncode:
            return f"**cannot be installed**: {done.stdout.strip().splitlines()[-1]}"
        gone = re.findall(r"^ - (\S+)", done.stdout, re.MULTILINE)
        changed = f", changes {len(gone)}: {', '.join(gone)}" if gone else ", changes nothing"
    bounds = [] if tested.composer else ["--constraints", str(constraints)]
    command = [*install, "--quiet", *bounds, "--group", f"{ROOT}/pyproject.toml:compat", f"{wheel}[plots]"]
    done = _run(command, {}, check=False)
    if done.returncode:
        return f"**cannot be installed**: {done.stdout.strip().splitlines()[-1]}"
    return f"{time.monotonic() - begun:.0f} s{changed}"


def _pytest(tested: TestedSet, step: str, command: list[str], environment: dict[str, str], home: Path) -> str:
    done = _run(command, environment, check=False, cwd=home / "checkout")
    (FOLDER / f"{tested.name}-{step}.log").write_text(done.stdout)
    # Warnings may come after it.
    lines = [line for line in done.stdout.splitlines() if re.search(r"\d+ (?:passed|failed|errors?)\b", line)]
    last = lines[-1] if lines else done.stdout[-200:]
    counts = ", ".join(re.findall(r"\d+ (?:passed|failed|errors?|skipped)", last))
    if done.returncode:
        return f"**failed**: {counts or last}"
    kills = [float(found) for found in re.findall(r"^KILL \S+ ([\d.]+)", done.stdout, re.MULTILINE)]
    if kills:
        counts += f"; stopped after {statistics.median(kills):.1f} s, {max(kills):.1f} s at most"
    return counts


def _run(
    command: list[str], environment: dict[str, str], *, check: bool = True, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=cwd,
        check=check,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


if __name__ == "__main__":
    sys.exit(main())
