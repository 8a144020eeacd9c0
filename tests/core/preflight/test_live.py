"""The live check: what it finds of the clusters that exist, and that it changes nothing."""

from __future__ import annotations

from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight.live import live_findings
from airflow_provider_vertex_ray.core.preflight.report import Status
from tests.support.clusters import LOCATION, jobs_of, start


async def test_region_without_clusters(transport: Transport, fake_emulator: EmulatorProcess) -> None:
    listed, dashboard = await live_findings(transport, "demo-project", LOCATION)
    assert (listed.status, dashboard.status) == (Status.PASS, Status.COULD_NOT_CHECK)
    assert "0 persistent resources" in listed.found


async def test_running_cluster_is_asked_and_not_changed(transport: Transport, fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    found = {finding.subject: finding for finding in await live_findings(transport, "demo-project", LOCATION)}
    assert "1 RUNNING" in found[LOCATION].found
    assert found["dashboard of shared"].status is Status.PASS
    assert found["jobs of shared"].found.startswith("0 jobs")
    assert found["websockets of shared"].status in (Status.PASS, Status.WARN)
    assert jobs_of(fake_emulator, "shared") == {}
    written = [
        call["method"] for call in fake_emulator.calls() if call["method"].startswith(("Create", "Delete", "PO"))
    ]
    assert written == ["CreatePersistentResource"]


async def test_dashboard_that_denies_access_is_a_failure(transport: Transport, fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    with fake_emulator.fault(scope="dashboard", method="GET /api/version", status=403, times=2):
        found = await live_findings(transport, "demo-project", LOCATION)
    assert [finding.subject for finding in found if finding.status is Status.FAIL] == ["dashboard of shared"]
    assert "403" in found[-1].found


async def test_region_that_cannot_be_listed(transport: Transport, fake_emulator: EmulatorProcess) -> None:
    fault = {"scope": "control_plane", "method": "ListPersistentResources", "code": "PERMISSION_DENIED"}
    with fake_emulator.fault(**fault):
        (found,) = await live_findings(transport, "demo-project", LOCATION)
    assert found.status is Status.FAIL
