"""The rules of the house: everything imports downwards, nothing in a circle, and the emulator stands apart."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

import pytest
import vertex_ray_emulator

import airflow_provider_vertex_ray
from tests.support.import_graph import EMULATOR, FACES, PACKAGE, RANKS, Arrow, arrows, circles, violations

ROOT = Path(airflow_provider_vertex_ray.__file__).parent
EMULATOR_ROOT = Path(vertex_ray_emulator.__file__).parent
HEAVY = (
    "ray",
    "vertex_ray",
    "pandas",
    "google.cloud.aiplatform",
    "google.cloud.aiplatform_v1",
    "google.cloud.aiplatform_v1beta1",
)
# They subclass Ray's own classes, so they need Ray at import; Airflow reads them as text.
ON_THE_CLUSTER = {"remote/bigquery/sink.py", "remote/bigquery/source.py"}
SUBJECTS_WITH_ANSWERS = ("cluster", "cost", "job", "monitoring", "preflight", "serving")
# The only modules of core that need more than the standard library.
THIRD_PARTY = {
    # The models of answers from outside.
    **{f"core/{subject}/answers.py": {"msgspec"} for subject in SUBJECTS_WITH_ANSWERS},
    "core/http/auth.py": {"aiohttp", "google", "msgspec"},
    "core/http/body.py": {"aiohttp"},
    "core/http/connections.py": {"aiohttp"},
    "core/http/decoding.py": {"msgspec"},
    "core/http/raw_body.py": {"aiohttp"},
    "core/http/transport.py": {"aiohttp"},
    "core/job/log_client.py": {"aiohttp"},
    # Conda files.
    "core/job/packages.py": {"yaml"},
    "core/threads.py": {"asgiref"},
}
SUBJECTS_OF_HOOKS = ("cluster", "job", "lease", "model", "monitoring", "preflight")
LONGEST_FILE = 450
# A list of types, each with its text.
LONGER_FILES = {"errors.py": 530}


@pytest.fixture(scope="module")
def all_arrows() -> list[Arrow]:
    found = list(arrows(ROOT))
    assert len(found) > 300, "the graph was not read"
    return found


def test_every_arrow_points_down() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(("root", "package"), [(ROOT, PACKAGE), (EMULATOR_ROOT, EMULATOR)])
def test_no_file_imports_itself_over_others(root: Path, package: str) -> None:
    assert circles(root, package) == []


def test_a_circle_added_by_hand_is_found(tmp_path: Path) -> None:
    root = shutil.copytree(ROOT, tmp_path / PACKAGE)
    name = root / "core" / "cluster" / "name.py"
    name.write_text(name.read_text() + f"\n\ndef later():\n    from {PACKAGE}.core.cluster.state import Cluster\n")
    state = root / "core" / "cluster" / "state.py"
    state.write_text(state.read_text() + f"\n\nfrom {PACKAGE}.core.cluster import name\n")
    assert circles(root) == [["core/cluster/name.py", "core/cluster/state.py"]]


def test_the_emulator_imports_neither_airflow_nor_the_provider() -> None:
    found = list(arrows(EMULATOR_ROOT, EMULATOR))
    assert len(found) > 300, "the graph was not read"
    assert [arrow for arrow in found if arrow.is_of("airflow", PACKAGE)] == []


def test_only_public_modules_lie_at_the_root() -> None:
    assert {file.stem for file in ROOT.glob("*.py")} == {"__init__", "errors"} | FACES


def test_every_folder_has_its_rank() -> None:
    assert {file.parent.name for file in ROOT.glob("*/__init__.py")} == set(RANKS)


def test_every_layer_is_used_by_the_one_above(all_arrows: list[Arrow]) -> None:
    used = {(arrow.room, arrow.target_room) for arrow in all_arrows}
    assert {("operators", "triggers"), ("triggers", "hooks"), ("hooks", "core"), ("core", "")} <= used


def test_core_knows_neither_airflow_nor_ray(all_arrows: list[Arrow]) -> None:
    assert [arrow for arrow in all_arrows if arrow.room == "core" and arrow.is_of("airflow", *HEAVY)] == []


def test_core_needs_little_but_the_standard_library(all_arrows: list[Arrow]) -> None:
    used: dict[str, set[str]] = {}
    for arrow in all_arrows:
        top = arrow.target.split(".")[0]
        if arrow.room == "core" and arrow.target_room is None and top not in sys.stdlib_module_names:
            used.setdefault(arrow.file, set()).add(top)
    assert used == THIRD_PARTY


def test_airflow_imports_nothing_that_is_for_the_cluster(all_arrows: list[Arrow]) -> None:
    modules = {f"{PACKAGE}.{path.removesuffix('.py').replace('/', '.')}" for path in ON_THE_CLUSTER}
    wrong = [arrow for arrow in all_arrows if arrow.is_of(*modules) and not arrow.file.startswith("remote/bigquery/")]
    assert wrong == []


def test_heavy_packages_are_imported_inside_functions_only() -> None:
    wrong = []
    for file in ROOT.rglob("*.py"):
        if file.relative_to(ROOT).as_posix() in ON_THE_CLUSTER:
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


def test_nothing_of_the_package_imports_what_is_not_shipped(all_arrows: list[Arrow]) -> None:
    assert [arrow for arrow in all_arrows if arrow.is_of("tests", "devtools", "benchmarks", "example_dags")] == []


@pytest.mark.parametrize("root", [ROOT, EMULATOR_ROOT])
def test_every_file_fits_in_a_head(root: Path) -> None:
    long = {
        str(file.relative_to(root)): count
        for file in root.rglob("*.py")
        if (count := len(file.read_text().splitlines())) > LONGER_FILES.get(file.name, LONGEST_FILE)
    }
    assert long == {}


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("core/x.py", "from airflow_provider_vertex_ray.hooks.base import VertexRayBaseHook", "an arrow upwards"),
        ("hooks/x.py", "import airflow_provider_vertex_ray.operators.job", "an arrow upwards"),
        ("errors.py", "def f():\n    from airflow_provider_vertex_ray.core.job import client", "an arrow upwards"),
        ("triggers/x.py", "from airflow_provider_vertex_ray import operators", "an arrow upwards"),
        ("triggers/x.py", "from ..sensors.base import VertexRayBaseSensor", "an arrow upwards"),
        ("core/http/x.py", "from airflow_provider_vertex_ray.core.job.client import JobsApi", "an arrow upwards"),
        ("core/checks.py", "from airflow_provider_vertex_ray.core.cluster import name", "an arrow upwards"),
        ("remote/x.py", "from airflow_provider_vertex_ray.core import checks", "an arrow upwards"),
        ("core/x.py", "from airflow_provider_vertex_ray.cluster_spec import ClusterSpec", "a public face"),
        ("operators/x.py", "from vertex_ray_emulator.clusters.rules import check_id", "imports the emulator"),
        ("links/x.py", "import importlib\nimportlib.import_module('airflow_provider_vertex_ray.plugins')", "upwards"),
    ],
)
def test_a_wrong_arrow_is_found(tmp_path: Path, file: str, line: str, complaint: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n")
    assert [complaint in each for each in violations(tmp_path)] == [True]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("operators/x.py", "from airflow_provider_vertex_ray.triggers.base import result_of"),
        ("sensors/x.py", "from airflow_provider_vertex_ray.operators.base import ConnectionMixin"),
        ("hooks/x.py", f"from {PACKAGE}.errors import VertexRayError"),
        ("core/job/x.py", f"from {PACKAGE}.core.http.transport import Transport"),
        ("cluster_spec.py", f"from {PACKAGE}.core.cluster.spec import ClusterSpec"),
        ("errors.py", "import json"),
    ],
)
def test_a_right_arrow_is_let_through(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n")
    assert violations(tmp_path) == []


def test_tasks_use_the_calls_and_not_the_public_hooks(all_arrows: list[Arrow]) -> None:
    # The public hooks import the Google provider's base hook, which costs a second of CPU time in every worker.
    public = [f"{PACKAGE}.hooks.{name}" for name in ("base", *SUBJECTS_OF_HOOKS)]
    rooms = ("operators", "sensors", "triggers", "decorators", "task_groups", "plugins", "links")
    assert [arrow for arrow in all_arrows if arrow.room in rooms and arrow.is_of(*public)] == []
    calls = [arrow for arrow in all_arrows if arrow.file.startswith(("hooks/calls/", "hooks/connection.py"))]
    assert len(calls) > 50, "the graph was not read"
    assert [arrow for arrow in calls if arrow.is_of(*public)] == []
