"""Local code on a real Ray: packages arrive, modules can be imported, and jobs that start at once do no harm."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess

from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from tests.conftest import use
from tests.support.clusters import LOCATION
from tests.support.tasks import TaskInstance, context_of, may_run_tasks, run_task

pytestmark = pytest.mark.ray

USES_ALL = """
import json, os, ray
import helper, scores, tool

@ray.remote(num_cpus=1)
def on_a_worker():
    import helper, scores, tool
    return [helper.NAME, scores.NAME, tool.NAME, open("data.txt").read()]

ray.init()
found = ray.get(on_a_worker.remote())
found.append(sorted(os.listdir(".")))
print("VERTEX_RAY_RESULT " + json.dumps(found))
"""


@pytest.fixture(autouse=True)
def cluster(bigquery_process: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster of this folder with a real Ray, a head and two workers."""
    use(bigquery_process, monkeypatch)


def submit(entrypoint: Any, task_id: str = "job", map_index: int = -1, **more: Any) -> Any:
    operator = VertexRaySubmitJobOperator(
        task_id=task_id,
        cluster_id="shared",
        location=LOCATION,
        entrypoint=entrypoint,
        entrypoint_num_cpus=1,
        poll_interval=0.5,
        job_timeout=PATIENCE,
        deferrable=False,
        **more,
    )
    return run_task(operator, context_of(operator, TaskInstance(task_id, map_index=map_index)))


def wheel(path: Path) -> Path:
    """The least that pip takes for a wheel, made by hand."""
    info = "tool-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tool.py", "NAME = 'tool'\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tool\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "tool.py,,\n")
    return path


def test_all_kinds_of_code_arrive(tmp_path: Path) -> None:
    for name, text in {
        "work/main.py": USES_ALL,
        "work/data.txt": "data",
        "work/large.bin": "excluded",
        "scores/__init__.py": "NAME = 'scores'\n",
        "helper.py": "NAME = 'helper'\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    result = submit(
        ["python", "main.py"],
        working_dir=str(tmp_path / "work"),
        py_modules=[
            str(tmp_path / "scores"),
            str(tmp_path / "helper.py"),
            str(wheel(tmp_path / "tool-1.0-py3-none-any.whl")),
        ],
        excludes=["*.bin"],
    )
    assert result["result"] == ["helper", "scores", "tool", "data", ["data.txt", "main.py"]]


def test_jobs_with_one_folder_that_start_at_once(tmp_path: Path) -> None:
    # Their environments differ, so each node of Ray sets all of them up at once; see Package.for_job.
    (tmp_path / "main.py").write_text("import json, os\nprint('VERTEX_RAY_RESULT ' + os.environ['NUMBER'])\n")

    def one(number: int) -> Any:
        return submit(
            ["python", "main.py"],
            "mapped",
            number,
            working_dir=str(tmp_path),
            env_vars={"NUMBER": str(number)},
        )["result"]

    with ThreadPoolExecutor(8, initializer=may_run_tasks) as pool:
        assert list(pool.map(one, range(8))) == list(range(8))


def test_a_pip_environment_copies_no_installed_package(tmp_path: Path) -> None:
    # Ray would copy the whole virtual environment that the emulator runs in: a gigabyte for each set of packages.
    (tmp_path / "main.py").write_text(
        "import json, pathlib, sys\nimport numpy, ray, tool\n"
        "files = [f for f in pathlib.Path(sys.prefix).rglob('*') if f.is_file() and not f.is_symlink()]\n"
        "print('VERTEX_RAY_RESULT ' + json.dumps([tool.__file__.startswith(sys.prefix), len(files)]))\n"
    )
    made = wheel(tmp_path / "tool-1.0-py3-none-any.whl")
    result = submit(["python", "main.py"], "environment", working_dir=str(tmp_path), runtime_env={"pip": [str(made)]})
    own, files = result["result"]
    assert own
    assert 0 < files < 5_000
