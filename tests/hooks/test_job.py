"""The job hook, from synchronous and asynchronous code."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.core.job import packages
from airflow_provider_vertex_ray.core.job.client import JobRequest
from airflow_provider_vertex_ray.core.job.state import JobStatus
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    ClusterNotFoundError,
    DashboardNotReadyError,
    InvalidArgumentError,
    JobNotFoundError,
    JobRunningError,
    NotARayClusterError,
    PackageTooLargeError,
    ServiceUnavailableError,
    StockoutError,
    VertexRayError,
)
from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook, VertexRayJobHook
from tests.support.clusters import BODY, LOCATION, full_name, start


@pytest.fixture
def hook(fake_emulator: EmulatorProcess) -> VertexRayJobHook:
    start(fake_emulator)
    return VertexRayJobHook(location=LOCATION)


def test_job_from_submission_to_deletion(hook: VertexRayJobHook) -> None:
    assert hook.submit_job("shared", JobRequest("echo hello && sleep 600", "one")) is True
    assert hook.submit_job("shared", JobRequest("echo hello && sleep 600", "one")) is False
    until(lambda: "hello" in hook.get_job_logs("shared", "one"))
    assert [job.submission_id for job in hook.list_jobs(full_name("shared"))] == ["one"]
    assert hook.stop_job("shared", "one") is True
    until(lambda: hook.get_job("shared", "one").status is JobStatus.STOPPED)
    assert hook.delete_job("shared", "one") is True
    with pytest.raises(JobNotFoundError):
        hook.get_job("shared", "one")
    assert hook.delete_job("shared", "one") is False


async def test_async_hook_works_in_an_event_loop(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    hook = VertexRayJobAsyncHook(location=LOCATION)
    await hook.submit_job("shared", JobRequest("echo hello && echo again", "one"))
    lines = [line async for line in hook.tail_job_logs("shared", "one")]
    assert lines[-2:] == ["hello", "again"]
    assert (await hook.get_job_logs("shared", "one", max_bytes=1 << 20)).splitlines() == lines
    assert (await hook.get_job("shared", "one")).status is JobStatus.SUCCEEDED
    with pytest.raises(JobNotFoundError):
        [line async for line in hook.tail_job_logs("shared", "two")]


async def test_lines_are_there_while_the_job_runs(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    hook = VertexRayJobAsyncHook(location=LOCATION)
    await hook.submit_job("shared", JobRequest("count 20 0 && sleep 600", "one"))
    lines = hook.tail_job_logs("shared", "one")
    while await anext(lines) != "line 19":
        pass
    assert (await hook.get_job("shared", "one")).status is JobStatus.RUNNING
    await lines.aclose()


def test_folder_is_uploaded_once(hook: VertexRayJobHook, fake_emulator: EmulatorProcess, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print(1)")
    (tmp_path / "big.bin").write_bytes(b"x" * 1000)
    first = hook.upload_working_dir("shared", str(tmp_path), ["*.bin"])
    assert first.startswith("gcs://_ray_pkg_")
    (tmp_path / "big.bin").write_bytes(b"y" * 1000)
    assert hook.upload_working_dir("shared", str(tmp_path), ["*.bin"]) == first
    assert len(fake_emulator.calls("PUT *")) == 1
    assert hook.upload_working_dir("shared", str(tmp_path)) != first
    assert len(fake_emulator.calls("PUT *")) == 2


def test_unusable_folders_are_rejected(
    hook: VertexRayJobHook, fake_emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_emulator.admin("DELETE", "calls")
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 10)
    (tmp_path / "main.py").write_text("print(1)")
    with pytest.raises(PackageTooLargeError):
        hook.upload_working_dir("shared", str(tmp_path))
    with pytest.raises(InvalidArgumentError, match="working_dir"):
        hook.upload_working_dir("shared", str(tmp_path / "nothing"))
    assert fake_emulator.calls() == []


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with a program, a module, a single file and a wheel."""
    for name in ("work/main.py", "work/big.bin", "scores/__init__.py", "scores/big.bin", "helper.py"):
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "code" / "tool-1.0-py3-none-any.whl").write_bytes(b"wheel")
    return tmp_path / "code"


def sent(emulator: EmulatorProcess) -> list[str]:
    return [unquote(call["method"].rpartition("/")[2]) for call in emulator.calls("PUT /api/packages/*")]


def test_all_local_code_is_uploaded(hook: VertexRayJobHook, fake_emulator: EmulatorProcess, code: Path) -> None:
    wheel = code / "tool-1.0-py3-none-any.whl"
    environment = {
        "working_dir": str(code / "work"),
        "py_modules": ["gs://bucket/a.zip", str(code / "scores"), str(code / "helper.py"), str(wheel)],
        "excludes": ["*.bin"],
        "env_vars": {"A": "b"},
    }
    before = json.dumps(environment)
    ready = hook.prepare_environment("shared", environment, "job-1")
    assert json.dumps(environment) == before
    assert set(ready) == {"working_dir", "py_modules", "env_vars"}
    assert ready["py_modules"][0] == "gs://bucket/a.zip"
    uris = [ready["working_dir"], *ready["py_modules"][1:]]
    assert [f"gcs://{name}" for name in sent(fake_emulator)] == uris
    again = hook.prepare_environment("shared", environment, "job-2")
    # Zips of modules are shared; a small working_dir and a small wheel are the job's own.
    assert again["py_modules"][1:3] == ready["py_modules"][1:3]
    assert again["working_dir"] != ready["working_dir"]
    assert again["py_modules"][3] != ready["py_modules"][3]
    assert len(sent(fake_emulator)) == 6
    (code / "scores" / "big.bin").write_text("excluded")
    assert hook.prepare_environment("shared", environment, "job-1") == ready
    assert len(sent(fake_emulator)) == 6


def test_environment_without_local_code_makes_no_request(
    hook: VertexRayJobHook, fake_emulator: EmulatorProcess, tmp_path: Path
) -> None:
    fake_emulator.admin("DELETE", "calls")
    (tmp_path / "env.yml").write_text("dependencies:\n- python=3.11\n- pip: [emoji]\n")
    environment = {"working_dir": "gs://b/a.zip", "excludes": ["x"], "conda": str(tmp_path / "env.yml")}
    assert hook.prepare_environment("shared", environment, "job-1") == {
        "working_dir": "gs://b/a.zip",
        "conda": {"dependencies": ["python=3.11", {"pip": ["emoji"]}]},
    }
    assert fake_emulator.calls() == []


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "a: 2026-01-01", None])
def test_invalid_conda_file_is_rejected(hook: VertexRayJobHook, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "env.yaml").write_text(text)
    with pytest.raises(InvalidArgumentError, match=r"^Invalid value for runtime_env\['conda'\]: "):
        hook.prepare_environment("shared", {"conda": str(tmp_path / "env.yaml")}, "job-1")


def test_nothing_is_uploaded_if_one_package_is_invalid(
    hook: VertexRayJobHook, fake_emulator: EmulatorProcess, code: Path
) -> None:
    fake_emulator.admin("DELETE", "calls")
    environment = {"working_dir": str(code / "work"), "py_modules": [str(code / "scores"), str(code / "nothing")]}
    with pytest.raises(InvalidArgumentError, match=r"^Invalid value for py_modules\[1\]: .*nothing"):
        hook.prepare_environment("shared", environment, "job-1")
    assert fake_emulator.calls() == []


async def test_large_upload_is_logged_and_does_not_block_the_event_loop(
    fake_emulator: EmulatorProcess, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(fake_emulator)
    (code / "work" / "weights").write_bytes(os.urandom(30 << 20))
    monkeypatch.setattr(packages, "SAID_SECONDS", 0.0)
    hook = VertexRayJobAsyncHook(location=LOCATION)
    said: list[str] = []
    monkeypatch.setattr(hook.log, "info", lambda text, *more: said.append(text % more))
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            # The thread's own time: a busy machine adds nothing to it.
            before = time.thread_time()
            await asyncio.sleep(0.005)
            longest = max(longest, time.thread_time() - before)

    watching = asyncio.create_task(watch())
    environment = {"working_dir": str(code / "work")}
    ready = await hook.prepare_environment("shared", environment, "job-1")
    watching.cancel()
    # Packing and sending as one call would take that much and more.
    assert longest < 0.25
    steps = [line for line in said if "MiB sent" in line]
    assert 5 <= len(steps) <= 10
    assert re.fullmatch(r"working_dir .*: \d+\.\d of 30\.\d MiB sent, \d+\.\d MiB/s", steps[-1])
    assert re.search(r"\(30\.\d\d MiB\), uploaded, \d+\.\d MiB/s", said[-1])
    # Large ones are shared by all jobs, and sent once.
    assert await hook.prepare_environment("shared", environment, "job-2") == ready
    assert len(sent(fake_emulator)) == 1
    assert said[-1].endswith("already on the cluster")


def test_running_job_is_not_deleted(hook: VertexRayJobHook, fake_emulator: EmulatorProcess) -> None:
    hook.submit_job("shared", JobRequest("sleep 600", "one"))
    with pytest.raises(JobRunningError, match="Ray job one is (PENDING|RUNNING); only a job that has ended"):
        hook.delete_job("shared", "one")
    assert fake_emulator.calls("DELETE *") == []
    assert not hook.get_job("shared", "one").status.is_terminal


def test_delete_survives_a_lost_response(hook: VertexRayJobHook, fake_emulator: EmulatorProcess) -> None:
    hook.submit_job("shared", JobRequest("echo", "one"))
    until(lambda: hook.get_job("shared", "one").status.is_terminal)
    with fake_emulator.fault(scope="dashboard", method="DELETE *", action="drop_response"):
        assert hook.delete_job("shared", "one") is True
    hook.submit_job("shared", JobRequest("echo", "two"))
    until(lambda: hook.get_job("shared", "two").status.is_terminal)
    with (
        fake_emulator.fault(scope="dashboard", method="DELETE *", action="status", status=503),
        pytest.raises(ServiceUnavailableError),
    ):
        hook.delete_job("shared", "two")


@pytest.mark.parametrize(
    ("state", "error", "kind"),
    [
        ("ERROR", {"code": 8, "message": "Resources are insufficient in region: us-central1."}, StockoutError),
        ("ERROR", {"code": 13, "message": "broken"}, ClusterFailedError),
        ("STOPPING", None, ClusterFailedError),
    ],
)
def test_failed_or_stopping_cluster_takes_no_jobs(
    hook: VertexRayJobHook,
    fake_emulator: EmulatorProcess,
    state: str,
    error: dict[str, object] | None,
    kind: type[VertexRayError],
) -> None:
    fake_emulator.admin("POST", "clusters/shared/state", {"state": state, **({"error": error} if error else {})})
    with pytest.raises(kind, match="shared"):
        hook.list_jobs("shared")


def test_provisioning_cluster_has_no_dashboard_yet(hook: VertexRayJobHook, fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stuck", delay=600):
        fake_emulator.api("POST", "persistentResources?persistentResourceId=slow", BODY)
        with pytest.raises(DashboardNotReadyError, match="slow is PROVISIONING and has no dashboard yet"):
            hook.list_jobs("slow")


def test_missing_clusters_and_other_resources_have_typed_errors(
    hook: VertexRayJobHook, fake_emulator: EmulatorProcess
) -> None:
    fake_emulator.create("plain", {"resourcePools": BODY["resourcePools"]})
    with pytest.raises(NotARayClusterError):
        hook.list_jobs("plain")
    with pytest.raises(ClusterNotFoundError):
        hook.list_jobs("nothing")
