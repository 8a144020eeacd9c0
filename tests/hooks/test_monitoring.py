"""Logs and metrics through an Airflow connection."""

from __future__ import annotations

import time

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.errors import InvalidArgumentError, LogsNotAuthorisedError
from airflow_provider_vertex_ray.hooks.monitoring import VertexRayMonitoringAsyncHook, VertexRayMonitoringHook
from airflow_provider_vertex_ray.log_query import LogQuery
from tests.support.clusters import full_name, start, submit
from tests.support.monitoring import been, listed, measured

CPU = 'avg(ray_node_cpu_utilization{cluster="shared"})'


@pytest.fixture
def emulator(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    """With a job ``one`` of 30 lines, and a node at 20 %."""
    fake_emulator.admin("DELETE", "telemetry")
    start(fake_emulator)
    submit(fake_emulator, "shared", "one", "count 30 0")
    listed(fake_emulator, 31)
    measured(fake_emulator, ray_node_cpu_utilization=[been(20, 600)])
    return fake_emulator


@pytest.mark.parametrize("cluster_id", ["shared", full_name("shared")])
def test_logs(emulator: EmulatorProcess, cluster_id: str) -> None:
    hook = VertexRayMonitoringHook()
    found = hook.logs(LogQuery(cluster_id, submission_id="one", text="line"), most=3)
    assert [entry.message for entry in found.entries] == ["line 0", "line 1", "line 2"]
    assert found.more
    assert hook.last_lines(cluster_id, "one", count=2) == ["line 28", "line 29"]
    assert hook.last_lines(cluster_id, "none", count=2) == []


def test_metrics(emulator: EmulatorProcess) -> None:
    hook = VertexRayMonitoringHook(project_id=emulator.project)
    assert hook.query(CPU)[0].points[0][1] == 20
    now = time.time()
    assert [value for _, value in hook.query_range(CPU, now - 60, now, 20)[0].points] == [20] * 4
    assert hook.query(CPU, at=now - 4000) == []


@pytest.mark.parametrize("cluster_id", ["shared", full_name("shared")])
def test_utilisation(emulator: EmulatorProcess, cluster_id: str) -> None:
    hook = VertexRayMonitoringHook()
    assert hook.utilisation(cluster_id) == {
        "cpu": 20,
        "memory": None,
        "gpu": None,
        "tasks": 0,
        "actors": 0,
        "nodes": 1,
    }
    assert hook.utilisation(cluster_id, ["cpu"], at=time.time() - 4000) == {"cpu": None}
    with pytest.raises(InvalidArgumentError, match="Use one of cpu, memory"):
        hook.utilisation(cluster_id, ["disk"])


async def test_async_calls_share_one_session(emulator: EmulatorProcess) -> None:
    hook = VertexRayMonitoringAsyncHook()
    async with hook.session():
        pages = [page async for page in hook.log_pages(LogQuery("shared", submission_id="one"))]
        assert sum(len(page.entries) for page in pages) == 31
        assert (await hook.query(CPU, project_id=emulator.project))[0].points[0][1] == 20
    assert len(emulator.calls("GetToken")) == 1


async def test_project_is_that_of_the_cluster(emulator: EmulatorProcess) -> None:
    hook = VertexRayMonitoringAsyncHook(project_id="another-project")
    assert (await hook.utilisation(full_name("shared"), ["cpu"])) == {"cpu": 20}
    with pytest.raises(LogsNotAuthorisedError):
        await hook.logs(LogQuery("shared"))


def test_missing_project_is_rejected(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", "google-cloud-platform://")
    with pytest.raises(InvalidArgumentError, match="Invalid value for project_id: "):
        VertexRayMonitoringHook().utilisation("shared")
    assert VertexRayMonitoringHook().utilisation(full_name("shared"), ["cpu"]) == {"cpu": 20}
