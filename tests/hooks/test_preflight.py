"""The preflight through a connection: whose project, whose credentials, and what both forms give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.preflight.report import Status
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.hooks.preflight import VertexRayPreflightAsyncHook, VertexRayPreflightHook
from tests.support.clusters import LOCATION, SPEC

pytestmark = pytest.mark.usefixtures("in_time")


def connect(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    connection = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps(connection))


async def test_sync_and_async_reports_are_the_same(fake_emulator: EmulatorProcess) -> None:
    asynchronous = await VertexRayPreflightAsyncHook(location=LOCATION).preflight(SPEC)
    # From within an event loop, too.
    synchronous = VertexRayPreflightHook(location=LOCATION).preflight(SPEC.to_dict())
    assert asynchronous == synchronous
    # Whether the Ray Client would fit depends on this environment's Ray and Python.
    assert {each.status for each in asynchronous.findings if each.subject != "Ray Client"} == {Status.PASS}
    assert asynchronous.project == "demo-project"
    (standing,) = VertexRayPreflightHook(location=LOCATION).quota(SPEC)
    assert (standing.limit, standing.used) == (2200, 0)


@pytest.mark.parametrize("content", [None, "not json", "{}", '{"type": "service_account"}'])
def test_invalid_key_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    key = tmp_path / "key.json"
    if content is not None:
        key.write_text(content)
    connect(monkeypatch, key_path=str(key), project="p1")
    report = VertexRayPreflightHook(location=LOCATION).preflight(SPEC, checks=["versions", "permissions"])
    assert report.project == "p1"
    assert (report.findings[0].check, report.findings[0].status) == ("credentials", Status.FAIL)
    assert report.findings[0].found
    assert report.findings[-1].status is Status.COULD_NOT_CHECK


def test_missing_connection_is_an_error_but_on_the_emulator(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = VertexRayPreflightHook(gcp_conn_id="nobody_s", project_id=fake_emulator.project, location=LOCATION)
    assert hook.preflight(SPEC, checks=["apis"]).project == fake_emulator.project
    monkeypatch.delenv("VERTEX_RAY_EMULATOR_HOST")
    with pytest.raises(InvalidArgumentError, match="Invalid value for gcp_conn_id: 'nobody_s'"):
        hook.preflight(SPEC)


def test_missing_project_is_rejected(fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch)
    with pytest.raises(InvalidArgumentError, match="Invalid value for project_id: "):
        VertexRayPreflightHook(location=LOCATION).preflight(SPEC)
    assert fake_emulator.calls() == []
