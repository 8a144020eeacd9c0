"""What ``vertex-ray-migrate`` makes of other integrations' DAGs runs: real scheduler, real triggerer, real Ray.

One of them is in ``make test``; ``tests/migrate`` runs the others there, without a scheduler.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version

from airflow_provider_vertex_ray.operators.cluster import (
    VertexRayCreateClusterOperator,
    VertexRayDeleteClusterOperator,
)
from devtools.dag_run_report import DEFERRED, DagRunReport
from devtools.emulator_process import Emulator
from tests.support.clusters import LOCATION, SPEC
from tests.support.tasks import run_task

from .conftest import FOLDER_VARIABLE, MIGRATED, System

pytest.importorskip("libcst")

from airflow_provider_vertex_ray.migrate.command import main

pytestmark = [
    pytest.mark.system,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    # There, tests/migrate alone runs them.
    pytest.mark.skipif(airflow_version.startswith("2."), reason="new files appear too late on Airflow 2"),
]

DAGS = Path(__file__).resolve().parents[1] / "migrate" / "dags"
SHARED = "for-migrated"
STANDARD = "airflow.providers.standard"
SDK_SETTINGS = "sdk.json"
USE_SDK_SETTINGS = f"""
import json as _json, os as _os
from pathlib import Path as _Path

_settings = _Path(_os.environ["{FOLDER_VARIABLE}"], "{SDK_SETTINGS}")
if _settings.exists():
    _os.environ.update(_json.loads(_settings.read_text()))
"""
"""What leads the SDK in this DAG's processes, and in no others, to the emulator."""


@pytest.fixture(scope="module")
def migrated(system: System, tmp_path_factory: pytest.TempPathFactory) -> System:
    """With the migrated DAGs in Airflow; nothing in them is changed by hand."""
    # Airflow must not read a file before it is complete.
    folder = tmp_path_factory.mktemp("migrate") / MIGRATED
    shutil.copytree(DAGS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in folder.glob("*.py"):
        # Airflow would run it at once, in addition to the test's own run.
        file.write_text(file.read_text().replace('schedule="@once"', "schedule=None"))
    google = [str(folder / f"google_{subject}.py") for subject in ("clusters", "jobs")]
    astro = [str(folder / "astro_functions.py")]
    assert main(["--write", *google]) == 0
    assert main(["--write", "--location", LOCATION, str(folder / "astro_operators.py")]) == 0
    assert main(["--write", "--cluster-id", SHARED, "--location", LOCATION, *astro]) == 0
    sdk = folder / "sdk_functions.py"
    assert main(["--write", str(sdk)]) == 1
    if find_spec(STANDARD) is None:
        # It imports its operator from there, which not every Airflow 2 has.
        sdk.unlink()
    else:
        sdk.write_text(USE_SDK_SETTINGS + sdk.read_text())
    shutil.copytree(folder, system.folder / MIGRATED, dirs_exist_ok=True)
    return system


def run(system: System, dag_id: str) -> DagRunReport:
    report = system.airflow.run_dag(dag_id, timeout=800)
    states = {task.name: (task.state, task.try_number) for task in report.tasks}
    shown = {name: report.log_text(name)[-3000:] for name, (state, _) in states.items() if state == "failed"}
    assert set(states.values()) == {("success", 1)}, (states, shown)
    assert report.state == "success"
    return report


@pytest.mark.soak
def test_google_cluster_dag(migrated: System) -> None:
    report = run(migrated, "google_clusters")
    assert report.xcom("update")["node_count"] == 3
    assert report.xcom("delete")["existed"]
    assert report.seconds_in(DEFERRED, ["create"]) > 0
    assert migrated.emulator.clusters() == []


def test_google_job_dag(migrated: System) -> None:
    report = run(migrated, "google_jobs")
    assert report.xcom("info")["submission_id"] == "job_1"
    assert report.xcom("delete_job")["existed"]
    assert migrated.emulator.clusters() == []


@pytest.mark.soak
def test_astro_operators(migrated: System) -> None:
    report = run(migrated, "astro_operators")
    assert report.xcom("job")["status"] == "SUCCEEDED"
    assert "hello from a worker" in report.log_text("job")
    assert report.seconds_in(DEFERRED, ["job"]) > 0
    assert migrated.emulator.clusters() == []


@pytest.fixture
def shared(migrated: System, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """With the cluster that ``--cluster-id`` has named."""
    for name, value in migrated.emulator.airflow_environment.items():
        monkeypatch.setenv(name, value)
    place = {"cluster_id": SHARED, "location": LOCATION, "deferrable": False}
    run_task(VertexRayCreateClusterOperator(task_id="create", spec=SPEC, **place))
    yield migrated
    run_task(VertexRayDeleteClusterOperator(task_id="delete", **place))


@pytest.mark.soak
def test_astro_functions(shared: System) -> None:
    report = run(shared, "astro_functions")
    assert report.xcom("squares") == 14
    assert report.xcom("nodes") == [14, True]
    assert report.seconds_in(DEFERRED, ["squares"]) > 0


@pytest.mark.soak
@pytest.mark.skipif(find_spec(STANDARD) is None, reason="without the operator of this DAG")
def test_sdk_functions(migrated: System, tmp_path: Path) -> None:
    """The SDK looks once at a new cluster and then sleeps for 150 s, so this emulator answers when it is ready."""
    emulator = Emulator(tmp_path, ["--hold-get"])
    emulator.start()
    settings = migrated.folder / SDK_SETTINGS
    try:
        settings.write_text(json.dumps(emulator.sdk_environment))
        report = run(migrated, "sdk_functions")
        assert report.xcom("create").endswith("/persistentResources/mine")
        status, logs = report.xcom("train")
        assert (status, logs.splitlines()[-1]) == ("SUCCEEDED", "trained")
        assert emulator.clusters() == []
    finally:
        settings.unlink(missing_ok=True)
        emulator.stop()
