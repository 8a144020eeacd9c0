"""The job hook, from synchronous and asynchronous code."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_vertex_ray.api import packages
from airflow_provider_vertex_ray.api.jobs import JobRequest
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    ClusterNotFoundError,
    DashboardNotReadyError,
    JobNotFoundError,
    NotARayClusterError,
    PackageTooLargeError,
    StockoutError,
    VertexRayError,
)
from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook, VertexRayJobHook
from airflow_provider_vertex_ray.job_state import JobStatus
from airflow_provider_vertex_ray.spec_error import SpecError
from tests.support.clusters import BODY, LOCATION, full_name, start
from tests.support.emulator import EmulatorProcess, until


@pytest.fixture
def hook(fake_emulator: EmulatorProcess) -> VertexRayJobHook:
    start(fake_emulator)
    return VertexRayJobHook(location=LOCATION)


def test_a_job_from_submit_to_delete(hook: VertexRayJobHook) -> None:
    assert hook.submit_job("shared", JobRequest("echo hello && sleep 60", "one")) is True
    assert hook.submit_job("shared", JobRequest("echo hello && sleep 60", "one")) is False
    until(lambda: "hello" in hook.get_job_logs("shared", "one"))
    assert [job.submission_id for job in hook.list_jobs(full_name("shared"))] == ["one"]
    assert hook.stop_job("shared", "one") is True
    until(lambda: hook.get_job("shared", "one").status is JobStatus.STOPPED)
    hook.delete_job("shared", "one")
    with pytest.raises(JobNotFoundError):
        hook.get_job("shared", "one")


async def test_the_same_from_an_event_loop(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    hook = VertexRayJobAsyncHook(location=LOCATION)
    await hook.submit_job("shared", JobRequest("echo hello && echo again", "one"))
    text = "".join([frame async for frame in hook.tail_job_logs("shared", "one")])
    assert text.endswith("hello\nagain\n")
    assert await hook.get_job_logs("shared", "one", max_bytes=1 << 20) == text
    assert (await hook.get_job("shared", "one")).status is JobStatus.SUCCEEDED


def test_a_folder_is_sent_once(hook: VertexRayJobHook, fake_emulator: EmulatorProcess, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print(1)")
    (tmp_path / "big.bin").write_bytes(b"x" * 1000)
    first = hook.upload_working_dir("shared", str(tmp_path), ["*.bin"])
    assert first.startswith("gcs://_ray_pkg_")
    (tmp_path / "big.bin").write_bytes(b"y" * 1000)
    assert hook.upload_working_dir("shared", str(tmp_path), ["*.bin"]) == first
    assert len(fake_emulator.calls("PUT *")) == 1
    assert hook.upload_working_dir("shared", str(tmp_path)) != first
    assert len(fake_emulator.calls("PUT *")) == 2


def test_folders_that_can_not_be_sent(
    hook: VertexRayJobHook, fake_emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_emulator.admin("DELETE", "calls")
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 10)
    (tmp_path / "main.py").write_text("print(1)")
    with pytest.raises(PackageTooLargeError):
        hook.upload_working_dir("shared", str(tmp_path))
    with pytest.raises(SpecError, match="working_dir"):
        hook.upload_working_dir("shared", str(tmp_path / "nothing"))
    assert fake_emulator.calls() == []


@pytest.mark.parametrize(
    ("state", "error", "kind"),
    [
        ("ERROR", {"code": 8, "message": "Resources are insufficient in region: us-central1."}, StockoutError),
        ("ERROR", {"code": 13, "message": "broken"}, ClusterFailedError),
        ("STOPPING", None, ClusterFailedError),
    ],
)
def test_a_cluster_that_takes_no_jobs(
    hook: VertexRayJobHook,
    fake_emulator: EmulatorProcess,
    state: str,
    error: dict[str, object] | None,
    kind: type[VertexRayError],
) -> None:
    fake_emulator.admin("POST", "clusters/shared/state", {"state": state, **({"error": error} if error else {})})
    with pytest.raises(kind, match="shared"):
        hook.list_jobs("shared")


def test_a_cluster_that_is_not_up_yet(hook: VertexRayJobHook, fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stuck", delay=60):
        fake_emulator.api("POST", "persistentResources?persistentResourceId=slow", BODY)
        with pytest.raises(DashboardNotReadyError, match="slow is PROVISIONING and has no dashboard yet"):
            hook.list_jobs("slow")


def test_clusters_that_are_none(hook: VertexRayJobHook, fake_emulator: EmulatorProcess) -> None:
    fake_emulator.create("plain", {"resourcePools": BODY["resourcePools"]})
    with pytest.raises(NotARayClusterError):
        hook.list_jobs("plain")
    with pytest.raises(ClusterNotFoundError):
        hook.list_jobs("nothing")
