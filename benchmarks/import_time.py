"""Measure import times in a fresh interpreter, over a floor that is imported first in the same interpreter.

Floor and addition come from the same process, so a slow machine slows down both, and their ratio is unaffected. The
time in which other processes had the processor is left out, as it falls on either by chance.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "airflow_provider_vertex_ray"
REPOSITORY = Path(__file__).resolve().parent.parent
DAG_FOLDERS = ("operators", "sensors", "triggers", "links", "decorators", "task_groups")
"""Folders of the package that DAG files import from."""

_MARK = "--- the floor ends here ---"
_CHILD = """
import importlib, json, sys, time
floor, added = json.loads(sys.argv[1])
def clock():
    # Linux tells for how long this thread was ready to run and did not.
    try:
        with open("/proc/self/schedstat") as file:
            queued = int(file.read().split()[1]) / 1e9
    except OSError:
        queued = 0.0
    return time.perf_counter() - queued
def load(names):
    wall, cpu = clock(), time.process_time()
    for name in names:
        importlib.import_module(name)
    return clock() - wall, time.process_time() - cpu
first = load(floor)
before = set(sys.modules)
print(sys.argv[2], file=sys.stderr, flush=True)
second = load(added)
print(json.dumps({"floor": first, "added": second, "before": sorted(before), "after": sorted(sys.modules)}))
"""


def floor_modules() -> tuple[str, ...]:
    """Return the modules that every DAG file with an operator imports anyway.

    On Airflow 3 that is ``airflow.sdk``. Airflow 2.11 has no such module: there the floor is the DAG, the base operator
    and the base sensor, which ``airflow.sdk`` provides on Airflow 3 and which each DAG file of 2.11 imports.
    """
    if importlib.util.find_spec("airflow.sdk") is not None:
        return ("airflow.sdk",)
    return ("airflow.models.dag", "airflow.models.baseoperator", "airflow.sensors.base")


def dag_modules() -> tuple[str, ...]:
    """Return every module that a DAG file may import: all files of the folders in ``DAG_FOLDERS``."""
    found = []
    for folder in DAG_FOLDERS:
        for file in sorted((REPOSITORY / PACKAGE / folder).rglob("*.py")):
            parts = file.relative_to(REPOSITORY).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return tuple(found)


@dataclass(frozen=True)
class ImportCost:
    """Wall-clock and processor seconds of imports in one interpreter, those of the clock without waits for a processor.

    :param floor: wall-clock seconds of the floor.
    :param floor_cpu: processor seconds of the floor.
    :param added: wall-clock seconds of the modules imported after it.
    :param added_cpu: processor seconds of the modules imported after it.
    :param floor_names: names in ``sys.modules`` after the floor.
    :param names: names in ``sys.modules`` after everything.
    """

    floor: float
    floor_cpu: float
    added: float
    added_cpu: float
    floor_names: frozenset[str]
    names: frozenset[str]

    @property
    def total(self) -> float:
        """Wall-clock seconds of both together."""
        return self.floor + self.added

    def loaded(self, package: str) -> list[str]:
        """Return the loaded modules that are ``package`` or inside it, or start with it if it ends with ``*``."""
        if package.endswith("*"):
            return sorted(name for name in self.names if name.startswith(package[:-1]))
        return sorted(name for name in self.names if name == package or name.startswith(package + "."))


def best(costs: Sequence[ImportCost]) -> ImportCost:
    """Return the minimum of each figure over several runs, because noise only ever adds."""
    return ImportCost(
        floor=min(cost.floor for cost in costs),
        floor_cpu=min(cost.floor_cpu for cost in costs),
        added=min(cost.added for cost in costs),
        added_cpu=min(cost.added_cpu for cost in costs),
        floor_names=costs[-1].floor_names,
        names=costs[-1].names,
    )


class ImportMeter:
    """Measure imports in interpreters that share one Airflow folder. Created by ``import_meter()``."""

    def __init__(self, airflow_home: Path) -> None:
        self._environment = {
            **os.environ,
            "AIRFLOW_HOME": str(airflow_home),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
        }
        # A DAG processor has compiled byte code, so the interpreters must write it too.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def measure(self, modules: Sequence[str], floor: Sequence[str] | None = None) -> ImportCost:
        """Import the floor, then the modules, in a fresh interpreter."""
        data, _ = self._run(modules, floor or floor_modules(), [])
        (floor_wall, floor_cpu), (wall, cpu) = data["floor"], data["added"]
        return ImportCost(floor_wall, floor_cpu, wall, cpu, frozenset(data["before"]), frozenset(data["after"]))

    def costliest(self, modules: Sequence[str], count: int = 12) -> list[str]:
        """Return the lines of ``python -X importtime`` over the floor with the most time of their own."""
        _, stderr = self._run(modules, floor_modules(), ["-X", "importtime"])
        lines = [line for line in stderr.split(_MARK, 1)[1].splitlines() if line.startswith("import time:")]
        return sorted(lines, key=_own_microseconds, reverse=True)[:count]

    def _run(self, modules: Sequence[str], floor: Sequence[str], options: list[str]) -> tuple[dict[str, Any], str]:
        command = [sys.executable, *options, "-c", _CHILD, json.dumps([list(floor), list(modules)]), _MARK]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"Importing {', '.join(modules)} failed:\n{done.stderr[-4000:]}")
        return json.loads(done.stdout.splitlines()[-1]), done.stderr


def _own_microseconds(line: str) -> int:
    own = line.removeprefix("import time:").split("|", 1)[0].strip()
    return int(own) if own.isdigit() else 0


@contextmanager
def import_meter() -> Iterator[ImportMeter]:
    """Yield a meter with an Airflow folder of its own, so that no settings of this machine apply."""
    with tempfile.TemporaryDirectory(prefix="vertex-ray-imports-") as home:
        yield ImportMeter(Path(home))
