"""The arrows of the design: everything imports downwards only, and the emulator stands apart."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import airflow_provider_vertex_ray
from tests.support.import_graph import EMULATOR, PACKAGE, RANKS, Arrow, arrows, violations

ROOT = Path(airflow_provider_vertex_ray.__file__).parent
HEAVY = (
    "ray",
    "vertex_ray",
    "pandas",
    "google.cloud.aiplatform",
    "google.cloud.aiplatform_v1",
    "google.cloud.aiplatform_v1beta1",
)
# They are classes of Ray's kinds, so they need it at once; Airflow reads them as text.
ON_THE_CLUSTER = {"remote/bigquery/sink.py", "remote/bigquery/source.py"}
LONGEST_FILE = 450


def _all() -> list[Arrow]:
    found = list(arrows(ROOT))
    assert len(found) > 300, "the graph was not read"
    return found


def test_every_arrow_points_down_and_the_emulator_stands_apart() -> None:
    assert violations(ROOT) == []


def test_every_folder_has_its_place_in_the_order() -> None:
    folders = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert folders - set(RANKS) - {EMULATOR} == set()


def test_the_rooms_do_use_each_other() -> None:
    used = {(arrow.room, arrow.target_room) for arrow in _all()}
    assert {("operators", "triggers"), ("triggers", "hooks"), ("hooks", "api"), ("api", "")} <= used


def test_the_api_knows_neither_airflow_nor_ray() -> None:
    wrong = [arrow for arrow in _all() if arrow.room == "api" and arrow.is_of("airflow", *HEAVY)]
    assert wrong == []


def test_the_pure_modules_need_nothing_but_the_standard_library() -> None:
    wrong = [
        arrow
        for arrow in _all()
        if arrow.room == "" and arrow.target_room is None and arrow.target.split(".")[0] not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_airflow_imports_nothing_that_is_for_the_cluster() -> None:
    modules = {f"{PACKAGE}.{path.removesuffix('.py').replace('/', '.')}" for path in ON_THE_CLUSTER}
    wrong = [arrow for arrow in _all() if arrow.is_of(*modules) and not arrow.file.startswith("remote/bigquery/")]
    assert wrong == []


def test_heavy_packages_are_imported_inside_functions_only() -> None:
    wrong = []
    for file in ROOT.rglob("*.py"):
        place = file.relative_to(ROOT)
        if place.parts[0] == EMULATOR or place.as_posix() in ON_THE_CLUSTER:
            continue
        tree = ast.parse(file.read_text())
        inside = {
            child
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for child in ast.walk(node)
        }
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if (
                isinstance(node, ast.stmt)
                and node not in inside
                and any(Arrow("", 0, name).is_of(*HEAVY) for name in names)
            ):
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


def test_nothing_of_the_package_imports_what_is_not_shipped() -> None:
    wrong = [arrow for arrow in _all() if arrow.is_of("tests", "devtools", "benchmarks", "example_dags")]
    assert wrong == []


def test_every_file_has_room_for_one_subject_only() -> None:
    long = {
        str(file.relative_to(ROOT)): count
        for file in ROOT.rglob("*.py")
        if (count := len(file.read_text().splitlines())) > LONGEST_FILE
    }
    assert long == {}


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("api/x.py", "from airflow_provider_vertex_ray.hooks.base import VertexRayBaseHook", "an arrow upwards"),
        ("hooks/x.py", "import airflow_provider_vertex_ray.operators.job", "an arrow upwards"),
        ("x.py", "def f():\n    from airflow_provider_vertex_ray.api import jobs", "an arrow upwards"),
        ("triggers/x.py", "from airflow_provider_vertex_ray import operators", "an arrow upwards"),
        ("triggers/x.py", "from ..sensors.base import VertexRayBaseSensor", "an arrow upwards"),
        ("operators/x.py", "from airflow_provider_vertex_ray.emulator.rules import check_id", "imports the emulator"),
        ("emulator/x.py", "from ..cluster_name import ClusterName", "the emulator imports"),
        ("emulator/x.py", "from airflow_provider_vertex_ray import errors", "the emulator imports"),
        ("links/x.py", "import importlib\nimportlib.import_module('airflow_provider_vertex_ray.plugins')", "upwards"),
    ],
)
def test_a_wrong_arrow_would_be_seen(tmp_path: Path, file: str, line: str, complaint: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    assert [complaint in each for each in violations(tmp_path)] == [True]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("operators/x.py", "from airflow_provider_vertex_ray.triggers.base import result_of"),
        ("sensors/x.py", "from airflow_provider_vertex_ray.operators.base import ConnectionMixin"),
        ("hooks/x.py", f"from {PACKAGE}.errors import VertexRayError"),
        ("emulator/x.py", "from .rules import check_id"),
        ("emulator/x.py", f"from {PACKAGE}.emulator.rules import check_id"),
        ("x.py", "import json"),
    ],
)
def test_a_right_arrow_is_let_through(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    assert violations(tmp_path) == []
