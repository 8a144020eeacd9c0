"""``vertex-ray-migrate`` on DAGs in the form of the Google provider's, astro-provider-ray's and the SDK's examples."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.migrate.command import main
from tests.support.clusters import cluster_ids
from tests.support.tasks import TaskInstance, context_of, run_task

pytest.importorskip("libcst")

from airflow_provider_vertex_ray.migrate.rewriter import Cluster, migrate
from tests.support.modules import load_module

DAGS = Path(__file__).parent / "dags"
SHARED = Cluster("shared", "us-central1")


class Pulls(TaskInstance):
    """A task instance that finds the XComs of the tasks before it."""

    def __init__(self, task_id: str, dag_id: str, pushed: dict[str, dict[str, Any]]) -> None:
        super().__init__(task_id, dag_id=dag_id)
        self.pushed = pushed
        self.xcoms = pushed.setdefault(task_id, {})

    def xcom_pull(self, task_ids: Any, key: str = "return_value", **more: Any) -> Any:
        (task_id,) = [task_ids] if isinstance(task_ids, str) else task_ids
        return self.pushed.get(task_id, {}).get(key)

    def get_relevant_upstream_map_indexes(self, *which: Any, **more: Any) -> None:
        """What Airflow 2 asks its task instance before it pulls: no task is mapped."""


def module_of(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    name = f"migrated_{folder.name}"
    file = folder / f"{name}.py"
    file.write_text(text)
    # Undone at the end of the test, with what replaces it.
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return load_module(name, file)


def run_dag(dag: Any) -> dict[str, dict[str, Any]]:
    """Run the tasks of a DAG, each after those before it; gives all XComs."""
    pushed: dict[str, dict[str, Any]] = {}
    for task in dag.topological_sort():
        ti = Pulls(task.task_id, dag.dag_id, pushed)
        task.deferrable, task.poll_interval = False, 0.05
        result = run_task(task, context_of(task, ti, task_instance=ti, expanded_ti_count=None))
        pushed[task.task_id]["return_value"] = result
    return pushed


def test_google_cluster_dag_runs_unchanged_by_hand(
    fake_emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = migrate((DAGS / "google_clusters.py").read_text())
    assert found.left == []
    assert [note for _, note in found.changes] == [
        "Vertex AI no longer offers Ray 2.33; the cluster gets ray_version 2.47 and python_version 3.11"
    ]
    assert "# The cluster." in found.text
    pushed = run_dag(module_of(found.text, tmp_path, monkeypatch).dag)
    assert pushed["update"]["return_value"]["node_count"] == 3
    assert pushed["delete"]["return_value"]["existed"]
    assert cluster_ids(fake_emulator) == []


def test_google_job_dag_runs_unchanged_by_hand(
    fake_emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = migrate((DAGS / "google_jobs.py").read_text())
    assert found.left == []
    assert "The cluster has Ray already; removed it from the packages" in [note for _, note in found.changes]
    pushed = run_dag(module_of(found.text, tmp_path, monkeypatch).dag)
    assert pushed["submit"]["submission_id"] == "job_1"
    assert pushed["delete_job"]["return_value"]["existed"]
    assert cluster_ids(fake_emulator) == []


def test_astro_operators_run_unchanged_by_hand(
    fake_emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = migrate((DAGS / "astro_operators.py").read_text(), Cluster(location="us-central1"))
    assert found.left == []
    assert "# the code" in found.text
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "main.py").write_text("")
    text = found.text.replace("python main.py", "echo main")
    dag = module_of(text, tmp_path, monkeypatch).dag
    assert dag.get_task("up").is_setup
    pushed = run_dag(dag)
    assert pushed["job"]["return_value"]["status"] == "SUCCEEDED"
    assert cluster_ids(fake_emulator) == []


def test_astro_functions_are_functions_of_this_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = migrate((DAGS / "astro_functions.py").read_text(), SHARED)
    assert found.left == []
    dag = module_of(found.text, tmp_path, monkeypatch).made
    squares, nodes = dag.get_task("squares"), dag.get_task("nodes")
    assert squares.custom_operator_name == "@task.vertex_ray"
    assert (squares.cluster_id, squares.entrypoint_num_cpus, squares.poll_interval) == ("shared", 1, 5)
    assert (nodes.cluster_id, nodes.entrypoint_num_cpus) == ("shared", 0)
    assert nodes.upstream_task_ids == {"squares"}


def test_calls_of_the_sdk_stay_and_are_named() -> None:
    text = (DAGS / "sdk_functions.py").read_text()
    found = migrate(text)
    assert found.text == text
    assert [line for line, _ in found.left] == [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"vertex_ray\.\w+_ray_cluster|JobSubmissionClient\(", line)
    ]
    assert "consider VertexRayCreateClusterOperator" in found.left[0][1]


@pytest.mark.parametrize("name", sorted(file.name for file in DAGS.glob("*.py")))
def test_migrated_file_is_not_changed_again(name: str) -> None:
    once = migrate((DAGS / name).read_text(), SHARED)
    ast.parse(once.text)
    assert migrate(once.text, SHARED).text == once.text


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("from airflow.providers.google.cloud.operators.ray import *\n", "Name what is imported"),
        ("from airflow.providers.google.cloud.operators.ray import Unknown\n", "has no counterpart"),
        (
            "from airflow.providers.google.cloud.operators.ray import RayGetJobInfoOperator\n"
            "RayGetJobInfoOperator('a', 'b', task_id='t')\n",
            "by name",
        ),
        ("from ray_provider.operators.ray import SubmitRayJob\nSubmitRayJob(task_id='t')\n", "Set cluster_id"),
        ("from ray_provider.operators.ray import SubmitRayJob\nSubmitRayJob(task_id='t')\n", "Set location"),
    ],
)
def test_what_is_left_is_named(text: str, note: str) -> None:
    assert any(note in each for _, each in migrate(text).left)


def test_decorator_without_airflows_own() -> None:
    text = "from ray_provider.decorators.ray import ray\n\n"
    text += "@ray.task(config={'conn_id': 'c', 'num_cpus': 1})\ndef f(): ...\n"
    found = migrate(text, SHARED).text
    assert found.startswith("from airflow_provider_vertex_ray.decorators.job import vertex_ray_task\n")
    assert '@vertex_ray_task(**{"location": "us-central1", "cluster_id": "shared", "entrypoint_num_cpus": 1})' in found


def test_command_shows_the_difference_and_writes_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dag.py"
    text = (DAGS / "google_jobs.py").read_text()
    file.write_text(text)
    assert main([str(file)]) == 0
    shown = capsys.readouterr().out
    assert "+    submit = VertexRaySubmitJobOperator(" in shown
    assert f"{file}:" in shown
    assert file.read_text() == text
    assert main([str(file), "--write"]) == 0
    assert "RayGetJobInfoOperator" not in file.read_text()
    file.write_text("def (")
    assert main([str(file)]) == 2
    assert main([str(tmp_path / "missing.py")]) == 2


@pytest.mark.parametrize(
    ("encoding", "first", "newline"),
    [
        ("utf-8", "# Straße\n", "\r\n"),
        ("utf-8-sig", "# Straße\n", "\r\n"),
        ("utf-8-sig", "# Straße\n", "\n"),
        ("latin-1", "# -*- coding: latin-1 -*-\n# Straße\n", "\r\n"),
        ("cp1252", "#!/usr/bin/env python\n# coding: cp1252\n# 5 €\n", "\n"),
    ],
)
def test_command_keeps_line_endings_and_encoding(tmp_path: Path, encoding: str, first: str, newline: str) -> None:
    file = tmp_path / "dag.py"
    file.write_bytes((first + (DAGS / "google_jobs.py").read_text()).replace("\n", newline).encode(encoding))
    assert main([str(file), "--write"]) == 0
    written = file.read_bytes()
    assert written.startswith(first.replace("\n", newline).encode(encoding))
    text = written.decode(encoding)
    assert "VertexRaySubmitJobOperator" in text
    assert text.count("\n") == text.count(newline) > 0
    assert newline == "\r\n" or "\r" not in text


@pytest.mark.parametrize("content", [b"# coding: unknown\n", b"x = '\xff'\n", b"\xef\xbb\xbf# coding: latin-1\n"])
def test_command_rejects_what_is_not_text(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    file = tmp_path / "dag.py"
    file.write_bytes(content)
    assert main([str(file), "--write"]) == 2
    assert capsys.readouterr().err.startswith(f"{file}: ")
    assert file.read_bytes() == content


def test_teardown_never_deletes_the_cluster_that_the_command_names() -> None:
    text = (DAGS / "astro_operators.py").read_text()
    found = migrate(text, SHARED)
    assert found.left == []
    assert '"shared"' not in found.text
    assert found.text.count("""cluster_id="{{ ti.xcom_pull(task_ids='up', key='cluster_id') }}\"""") == 2
    second = 'second = SetupRayCluster(task_id="second", conn_id="ray_conn", dag=dag)\n'
    twice = migrate(text + second, SHARED)
    assert [note for _, note in twice.left] == ["Set cluster_id: the DAG file sets up several clusters"] * 2


ASTRO = "from airflow.sdk import task\nfrom ray_provider.decorators import ray\n"
SETTINGS = "SETTINGS = {'conn_id': 'c', 'num_cpus': 1}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def config(context): return {'num_cpus': 1}\n", "config has parameters"),
        ("def config(*, context): return {'num_cpus': 1}\n", "config has parameters"),
        (SETTINGS + "def config(): return dict(SETTINGS)\n", "does not return a dict that is written out"),
        ("from settings import config\n", "what config contains is not seen in this file"),
        ("config = load()\n", "what config contains is not seen in this file"),
        ("def config(x=1): return {'num_cpus': x}\n", None),
        ("def config(**more): return {'num_cpus': 1}\n", None),
        ("config = {'num_cpus': 1}\n", None),
    ],
)
def test_settings_that_are_not_written_out_are_left(text: str, why: str | None) -> None:
    found = migrate(f"{ASTRO}{text}\n@ray.task(config=config)\ndef f(): ...\n", SHARED)
    if why is None:
        assert found.left == []
        assert '"entrypoint_num_cpus": ' in found.text
    else:
        ((_, note),) = found.left
        assert note.startswith("Give the settings as arguments of the decorator: ")
        assert why in note
    if SETTINGS in text:
        assert 'SETTINGS = {"location": "us-central1", "cluster_id": "shared", "entrypoint_num_cpus": 1}' in found.text


def test_what_is_removed_leaves_the_layout() -> None:
    text = (
        f"{ASTRO}config = {{\n    'num_cpus': 1,\n    'conn_id': 'c',\n}}\n"
        "\n@ray.task(config=config)\ndef f(): ...\n"
        "from ray_provider.operators import DeleteRayCluster\n"
        "DeleteRayCluster(\n    task_id='down', conn_id='c'\n)\n"
        "from airflow.providers.google.cloud.operators.ray import RaySubmitJobOperator\n"
        "RaySubmitJobOperator(\n    wait_for_job_done=True,\n    runtime_env={\n"
        "        'pip': [\n            'numpy',\n            'ray==2.33.0',\n        ],\n"
        "        'uv': [\n            'ray==2.33.0',\n        ],\n    },\n)\n"
    )
    found = migrate(text, SHARED).text
    assert '    "entrypoint_num_cpus": 1,\n}\n' in found
    assert '(\n    task_id=\'down\', location="us-central1", cluster_id="shared"\n)\n' in found
    assert "        'pip': [\n            'numpy',\n        ],\n        'uv': [],\n" in found
    assert not re.search(r"[ \t]+$", found, re.MULTILINE)
