"""A DAG file stays cheap: what importing our modules costs over Airflow itself, and what it must not load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version

import airflow_provider_vertex_ray
from airflow_provider_vertex_ray import get_provider_info
from benchmarks.import_time import DAG_FOLDERS, ImportCost, ImportMeter, best, dag_modules, floor_modules, import_meter

SECONDS = 0.15
# Airflow 2.11 itself is imported in little more than half the time of 3.3, and our modules take as long.
RATIO = 1.16 if airflow_version.startswith("2.") else 1.12
MOST_RUNS = 8
NEVER = (
    "ray",
    "vertex_ray",
    "pandas",
    "google.cloud.aiplatform*",
    "aiohttp",
    "google.auth",
    "airflow.providers.google.cloud",
    "airflow.providers.google.common",
    "airflow_provider_vertex_ray.hooks",
    "airflow_provider_vertex_ray.core.http.transport",
    "airflow_provider_vertex_ray.core.http.auth",
    "airflow_provider_vertex_ray.core.cluster.client",
    "airflow_provider_vertex_ray.core.job.client",
    "vertex_ray_emulator",
)
NOT_FOR_DAG_FILES = {"migrate", "core", "hooks", "remote", "plugins"}
"""Of ``remote`` the decorator needs a part, which is measured with it."""
ROOT = Path(airflow_provider_vertex_ray.__file__).parent


@pytest.fixture(scope="module")
def meter() -> Iterator[ImportMeter]:
    with import_meter() as found:
        yield found


@pytest.fixture(scope="module")
def cost(meter: ImportMeter) -> ImportCost:
    """The least of several interpreters. More are tried only while noise may be the reason for too high a figure."""
    # The first one may have to write byte code, and is then measured again.
    costs = [meter.measure(dag_modules())]
    while not _within(best(costs)) and len(costs) < MOST_RUNS:
        costs.append(meter.measure(dag_modules()))
    return best(costs)


def _within(cost: ImportCost) -> bool:
    # The seconds are the processor's. The ratio is of the clock's time without waits for a processor, so that an import
    # that sleeps or waits for a disk or a network is seen, and other processes of a busy machine are not.
    return cost.added_cpu <= SECONDS and cost.total / cost.floor <= RATIO


def test_all_modules_of_a_dag_file_are_within_the_budget(meter: ImportMeter, cost: ImportCost) -> None:
    assert cost.floor > 0.05, "the floor imports nothing: then the ratio says nothing"
    explanation = "" if _within(cost) else "\n".join(meter.costliest(dag_modules()))
    assert cost.added_cpu <= SECONDS, explanation
    assert cost.total / cost.floor <= RATIO, explanation


@pytest.mark.parametrize("package", NEVER)
def test_importing_them_loads_nothing_heavy(cost: ImportCost, package: str) -> None:
    assert "airflow_provider_vertex_ray.operators.job" in cost.names
    assert "airflow_provider_vertex_ray.decorators.job" in cost.names
    assert cost.loaded(package) == []


def test_a_heavy_import_would_be_seen(meter: ImportMeter) -> None:
    heavy = meter.measure(["airflow_provider_vertex_ray.hooks.job"])
    assert heavy.loaded("airflow.providers.google.common")
    assert heavy.loaded("airflow_provider_vertex_ray.core.http.transport")
    assert heavy.added > 0
    lines = meter.costliest(["airflow_provider_vertex_ray.core.http.addresses"], 3)
    assert len(lines) == 3
    assert all(line.startswith("import time:") for line in lines)


def test_an_import_that_sleeps_would_be_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sleeps_when_imported.py").write_text("import time\ntime.sleep(0.3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with import_meter() as own:
        sleepy = own.measure(["sleeps_when_imported"], floor=["json"])
    assert sleepy.added >= 0.3
    assert sleepy.added_cpu < 0.3


def test_time_without_a_processor_is_not_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Eight processes of one processor: each waits for seven eighths of its time.
    one = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"
    (tmp_path / "shares_its_processor.py").write_text(one)
    (tmp_path / "works.py").write_text("for _ in range(3_000_000): pass\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    others = [subprocess.Popen([sys.executable, "-c", one + "while True: pass"]) for _ in range(7)]
    try:
        with import_meter() as own:
            cost = own.measure(["works"], floor=["shares_its_processor"])
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert cost.added_cpu > 0.01
    assert cost.added < 2 * cost.added_cpu


def test_every_module_of_every_folder_is_measured() -> None:
    on_disk = {
        ".".join(file.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        for folder in DAG_FOLDERS
        for file in (ROOT / folder).rglob("*.py")
    }
    assert set(dag_modules()) == on_disk
    for folder in ("operators", "sensors", "triggers", "links"):
        for subject in ("cluster", "base"):
            assert f"airflow_provider_vertex_ray.{folder}.{subject}" in dag_modules()


def test_every_folder_of_the_package_is_either_measured_or_known_to_be_no_dag_import() -> None:
    folders = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert {"operators", "sensors", "triggers", "links"} <= folders
    assert folders - set(DAG_FOLDERS) - NOT_FOR_DAG_FILES == set()


@pytest.mark.parametrize("kind", ["operators", "sensors", "hooks", "triggers"])
def test_airflow_is_told_of_every_public_module(kind: str) -> None:
    told = {module for entry in get_provider_info()[kind] for module in entry["python-modules"]}
    on_disk = {
        f"airflow_provider_vertex_ray.{kind}.{file.stem}"
        for file in (ROOT / kind).glob("*.py")
        # Parts of these modules, which nobody imports from outside, have no such class.
        if file.stem not in ("__init__", "base") and re.search("^class VertexRay", file.read_text(), re.MULTILINE)
    }
    assert told == on_disk


def test_the_floor_is_what_this_airflow_has(cost: ImportCost) -> None:
    assert set(floor_modules()) <= cost.floor_names
    # The root alone may be there: where we are installed, Airflow itself asks its entry point for the provider's info.
    assert not any(name.startswith("airflow_provider_vertex_ray.") for name in cost.floor_names)
