"""The preflight as such: how many checks at a time, how long, and that nothing but findings comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, NodeImages
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight import run
from airflow_provider_vertex_ray.core.preflight.report import CHECKS, Report, Status
from airflow_provider_vertex_ray.core.preflight.requirements import PreflightRequest
from airflow_provider_vertex_ray.core.preflight.run import MOST_AT_ONCE, preflight
from tests.support.server import QUICK, FakeTokens, Server, serving, transport_to

LOCATION = "us-central1"
EVERYTHING = ClusterSpec(
    network="projects/1/global/networks/vpc",
    service_account="ray@p.iam.gserviceaccount.com",
    encryption_spec_key_name=f"projects/p/locations/{LOCATION}/keyRings/r/cryptoKeys/k",
)
ASKED = PreflightRequest("p", LOCATION, EVERYTHING, "gs://bucket", "gs://bucket/leases")


def to_both(server: Server) -> Transport:
    """A transport for which the server is Cloud Storage as well."""
    addresses = Addresses(server.host, storage_emulator=server.host)
    return Transport(FakeTokens(), addresses, retry=QUICK, timeout=60)


async def report(
    transport: Transport | None, checks: tuple[str, ...] = CHECKS, asked: PreflightRequest = ASKED
) -> Report:
    return await preflight(asked, transport, checks, own_versions=("2.47.1", "3.11"), no_credentials="none given")


def json_error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"code": status, "message": message}}, status=status)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: json_error(403, "no"), "access denied: no"),
        (lambda: json_error(429, "Quota exceeded for quota metric 'Read requests'"), "no answer: Quota exceeded"),
        (lambda: web.Response(status=502, text="<html>bad gateway</html>"), "no answer: The service answered 502"),
        (lambda: web.Response(text="<html>a login page</html>"), "unexpected answer"),
        (lambda: web.json_response([1, 2]), "unexpected answer"),
        (lambda: web.Response(status=404, text="<html>not here</html>"), "unexpected answer"),
    ],
    ids=["403", "429", "502", "html", "list", "404-page"],
)
async def test_every_answer_becomes_a_finding(answer: Callable[[], web.Response], words: str) -> None:
    async def each_time(request: web.Request) -> web.StreamResponse:
        return answer()

    async with serving(each_time) as server, to_both(server) as transport:
        found = await report(transport)
    remote = [finding for finding in found.findings if finding.check not in ("spec", "versions")]
    assert {finding.check for finding in remote} == set(CHECKS) - {"spec", "versions"}
    assert {finding.status for finding in remote} == {Status.COULD_NOT_CHECK}
    assert all(words in finding.found for finding in remote)
    assert all(finding.remedy for finding in remote)


@pytest.mark.parametrize(
    "body", [{}, {"services": None, "consumerQuotaLimits": [{}], "items": {"zones/x": {}}}], ids=str
)
async def test_an_answer_without_anything_in_it_is_no_pass(body: dict[str, object]) -> None:
    async def each_time(request: web.Request) -> web.StreamResponse:
        return web.json_response(body)

    async with serving(each_time) as server, to_both(server) as transport:
        found = await report(transport)
    remote: dict[str, Status] = {}
    for finding in found.findings:
        if finding.check not in ("spec", "versions"):
            # The first one of each check: the others are about less.
            remote.setdefault(finding.check, finding.status)
    assert remote == {
        "apis": Status.COULD_NOT_CHECK,
        "permissions": Status.FAIL,
        "service_account": Status.FAIL,
        "quota": Status.COULD_NOT_CHECK,
        "machines": Status.FAIL,
        "network": Status.FAIL,
        "encryption_key": Status.FAIL,
        "bucket": Status.FAIL,
    }


ODD: dict[str, object] = {
    "services": 3,
    "permissions": 3,
    "consumerQuotaLimits": 3,
    "items": 3,
    "peerings": 3,
    "primary": 3,
}


async def test_an_answer_of_another_shape() -> None:
    async def each_time(request: web.Request) -> web.StreamResponse:
        return web.json_response(ODD)

    async with serving(each_time) as server, to_both(server) as transport:
        found = await report(transport)
    remote = [finding for finding in found.findings if finding.check not in ("spec", "versions")]
    assert {finding.check for finding in remote} == set(CHECKS) - {"spec", "versions"}
    assert {finding.status for finding in remote} == {Status.COULD_NOT_CHECK}
    assert all("unexpected answer" in finding.found for finding in remote)


async def test_number_of_simultaneous_checks_is_limited() -> None:
    busy, peak, gate = 0, 0, asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        nonlocal busy, peak
        busy += 1
        peak = max(peak, busy)
        if busy == MOST_AT_ONCE:
            gate.set()
        # Goes on as soon as there are as many as there may be; if there are never, this times out and the test fails.
        await asyncio.wait_for(gate.wait(), 60)
        busy -= 1
        return json_error(403, "no")

    async with serving(slow) as server, to_both(server) as transport:
        await report(transport)
    assert peak == MOST_AT_ONCE


async def test_check_that_times_out_could_not_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LONGEST", 0.2)

    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    async with serving(hang) as server, to_both(server) as transport:
        found = await report(transport, ("permissions",))
    (finding,) = found.findings
    assert (finding.status, finding.found) == (Status.COULD_NOT_CHECK, "no answer within 0 s")


async def test_checks_without_credentials_send_no_request() -> None:
    found = await report(None)
    first, *others = found.findings
    assert first.status is Status.FAIL
    assert (first.check, first.found) == ("credentials", "none given")
    assert "gcloud auth application-default login" in first.remedy
    assert {finding.status for finding in others if finding.check not in ("spec", "versions")} == {
        Status.COULD_NOT_CHECK
    }


async def test_the_account_is_in_the_command() -> None:
    class Tokens(FakeTokens):
        account = "runner@p.iam.gserviceaccount.com"

    async with serving(web.json_response({})) as server, transport_to(server, Tokens()) as transport:
        finding, *_ = (await report(transport, ("permissions",))).findings
    assert "--member=serviceAccount:runner@p.iam.gserviceaccount.com" in finding.remedy


@pytest.mark.parametrize(
    ("granted", "status"),
    [
        (["get", "create", "delete", "list"], Status.PASS),
        (["get", "create", "list"], Status.FAIL),
        ([], Status.FAIL),
    ],
)
async def test_what_cloud_storage_grants(granted: list[str], status: Status) -> None:
    answer = web.json_response({"permissions": [f"storage.objects.{verb}" for verb in granted]})
    async with serving(answer) as server, to_both(server) as transport:
        asked = PreflightRequest("p", LOCATION, ClusterSpec(), bucket="gs://bucket/folder")
        (finding,) = (await report(transport, ("bucket",), asked)).findings
        ((_, path, _, _),) = server.requests
    assert finding.status is status
    assert path.startswith("/storage/v1/b/bucket/iam/testPermissions?permissions=storage.objects.get&permissions=")
    assert ("roles/storage.objectUser" in finding.remedy) == (status is Status.FAIL)


async def test_bucket_without_access_could_not_be_checked() -> None:
    async with serving(json_error(403, "no access")) as server, to_both(server) as transport:
        asked = PreflightRequest("p", LOCATION, ClusterSpec(), lease_uri="gs://bucket/leases")
        (finding,) = (await report(transport, ("bucket",), asked)).findings
    assert finding.status is Status.COULD_NOT_CHECK
    assert "access denied: no access" in finding.found


@pytest.mark.parametrize(
    ("primary", "purpose", "words"),
    [
        (None, "ENCRYPT_DECRYPT", "is missing"),
        ({"state": "DESTROYED"}, "ENCRYPT_DECRYPT", "is DESTROYED"),
        ({"state": "ENABLED"}, "ASYMMETRIC_SIGN", "its purpose is ASYMMETRIC_SIGN"),
    ],
)
async def test_keys_that_can_not_encrypt(primary: object, purpose: str, words: str) -> None:
    answer = web.json_response({"name": "k", "purpose": purpose, "primary": primary})
    async with serving(answer) as server, transport_to(server) as transport:
        (finding,) = (await report(transport, ("encryption_key",))).findings
    assert finding.status is Status.FAIL
    assert words in finding.found


async def test_images_that_tell_nothing_leave_the_ray_client_out() -> None:
    spec = ClusterSpec(custom_images=NodeImages("a/b:1", "a/b:1"))
    found = await report(None, ("versions",), PreflightRequest("p", LOCATION, spec))
    assert [finding.subject for finding in found.findings[1:]] == ["a/b:1"]


ATTACHED = ClusterSpec(
    psc_interface_config={"network_attachment": "projects/host/regions/us-central1/networkAttachments/a"}
)
AGENT = "serviceAccount:service-42@gcp-sa-aiplatform.iam.gserviceaccount.com"


@pytest.mark.parametrize(
    ("role", "members", "project", "status"),
    [
        ("roles/compute.networkAdmin", [AGENT], "host", Status.PASS),
        ("roles/aiplatform.serviceAgent", [AGENT], "host", Status.WARN),
        ("roles/aiplatform.serviceAgent", [AGENT], "p", Status.PASS),
        ("roles/compute.networkAdmin", ["user:a@b.c"], "host", Status.WARN),
        ("roles/viewer", [AGENT], "host", Status.WARN),
    ],
)
async def test_service_agent_needs_a_role_for_the_attachment(
    role: str, members: list[str], project: str, status: Status
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith(":getIamPolicy"):
            return web.json_response({"bindings": [{"role": role, "members": members}]})
        return web.json_response({"projectNumber": "42", "name": "a"})

    spec = ATTACHED if project == "host" else ClusterSpec(psc_interface_config={"network_attachment": "a"})
    async with serving(answer, answer, answer) as server, transport_to(server) as transport:
        found = await report(transport, ("network",), PreflightRequest("p", LOCATION, spec))
    assert [finding.status for finding in found.findings] == [Status.PASS, status]
    if status is Status.WARN:
        assert f"gcloud projects add-iam-policy-binding {project} --member={AGENT}" in found.findings[1].remedy


async def test_caller_without_the_user_role_is_warned_about_dashboards() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        wanted = (await request.json())["permissions"]
        return web.json_response({"permissions": [each for each in wanted if "customJobs" not in each]})

    async with serving(answer) as server, transport_to(server) as transport:
        found = await report(transport, ("permissions",), PreflightRequest("p", LOCATION, ClusterSpec()))
    assert [(finding.subject, finding.status) for finding in found.findings] == [
        ("project p", Status.PASS),
        ("dashboard", Status.WARN),
    ]
    assert "--role=roles/aiplatform.user" in found.findings[1].remedy
