"""What hooks share, and where their project, location and credentials come from."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.http import auth
from airflow_provider_vertex_ray.core.http.auth import CredentialsTokenSource, EmulatorTokenSource
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.errors import CredentialsError, InvalidArgumentError, NotAuthorisedError
from airflow_provider_vertex_ray.hooks.calls import base
from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook, VertexRayClusterHook
from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook, VertexRayJobHook
from tests.support.clusters import LOCATION, full_name, start


def connect(monkeypatch: pytest.MonkeyPatch, name: str = "google_cloud_default", **extra: Any) -> None:
    connection = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))


async def test_many_users_share_one_session_and_one_token(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    fake_emulator.admin("DELETE", "calls")
    clusters = [VertexRayClusterAsyncHook(location=LOCATION) for _ in range(20)]
    jobs = [VertexRayJobAsyncHook(location=LOCATION) for _ in range(20)]
    async with clusters[0].session() as (transport, _):
        found = await asyncio.gather(
            *(hook.get_cluster("shared") for hook in clusters), *(hook.list_jobs("shared") for hook in jobs)
        )
        async with jobs[0].session() as (other, _):
            assert other is transport
    assert len(found) == 40
    assert len(fake_emulator.calls("GetToken")) == 1, fake_emulator.calls()


async def test_session_closes_with_its_last_user(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Transport] = []
    real = Transport.close

    async def close(self: Transport) -> None:
        closed.append(self)
        await real(self)

    monkeypatch.setattr(Transport, "close", close)
    hook = VertexRayClusterAsyncHook(location=LOCATION)
    async with hook.session() as (first, _):
        async with VertexRayJobAsyncHook().session() as (second, _):
            pass
        assert (first is second, closed) == (True, [])
        await hook.list_clusters()
    assert closed == [first]
    async with hook.session() as (third, _):
        assert third is not first
    assert not base._shared[asyncio.get_running_loop()]


async def test_cancelled_user_leaves_the_session_open(fake_emulator: EmulatorProcess) -> None:
    hook = VertexRayClusterAsyncHook(location=LOCATION)
    entered = asyncio.Event()

    async def use_for_ever() -> None:
        async with hook.session():
            entered.set()
            await asyncio.Event().wait()

    async with hook.session():
        user = asyncio.create_task(use_for_ever())
        await entered.wait()
        user.cancel()
        await asyncio.gather(user, return_exceptions=True)
        assert await hook.list_clusters() == []
    assert not base._shared[asyncio.get_running_loop()]


async def test_different_connections_have_different_sessions(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "another", project="another-project")
    async with (
        VertexRayClusterAsyncHook().session() as (first, project),
        VertexRayClusterAsyncHook("another").session() as (second, other_project),
        VertexRayClusterAsyncHook(impersonation_chain=["a@b", "c@d"]).session() as (third, _),
        VertexRayClusterAsyncHook(impersonation_chain=("a@b", "c@d")).session() as (fourth, _),
    ):
        assert len({id(each) for each in (first, second, third)}) == 3
        assert third is fourth
        assert (project, other_project) == ("demo-project", "another-project")


async def test_project_of_a_hook_is_not_shared(fake_emulator: EmulatorProcess) -> None:
    # Both use one shared session, and the first one opens it.
    async with (
        VertexRayClusterAsyncHook(project_id="my-own").session() as (first, mine),
        VertexRayClusterAsyncHook().session() as (second, default),
    ):
        assert first is second
        assert (mine, default) == ("my-own", "demo-project")


async def test_failed_session_leaves_nothing_behind() -> None:
    for _ in range(2):
        with pytest.raises(InvalidArgumentError, match="nowhere"):
            await VertexRayClusterAsyncHook("nowhere").get_cluster(full_name("x"))
        assert not base._shared[asyncio.get_running_loop()]


# --- project and location ---------------------------------------------------------------------------------------------


def test_full_name_needs_neither_project_nor_location(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    assert VertexRayClusterHook().get_cluster(full_name("shared")).cluster_id == "shared"


def test_project_of_the_connection_completes_an_id(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    assert VertexRayClusterHook(location=LOCATION).get_cluster("shared").cluster_id == "shared"


def test_project_of_the_hook_overrides_the_connection(fake_emulator: EmulatorProcess) -> None:
    with pytest.raises(NotAuthorisedError, match="'somebody-elses' was requested"):
        VertexRayClusterHook(location=LOCATION, project_id="somebody-elses").get_cluster("shared")


def test_missing_location_is_named_before_any_request(fake_emulator: EmulatorProcess) -> None:
    for call in (
        lambda: VertexRayClusterHook().get_cluster("shared"),
        lambda: VertexRayClusterHook().list_clusters(),
        lambda: VertexRayJobHook().list_jobs("shared"),
    ):
        with pytest.raises(InvalidArgumentError, match=r"Invalid value for location: None"):
            call()
    assert fake_emulator.calls() == []


def test_missing_project_is_named_before_any_request(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch)
    for call in (
        lambda: VertexRayClusterHook(location=LOCATION).get_cluster("shared"),
        lambda: VertexRayClusterHook(location=LOCATION).list_clusters(),
    ):
        with pytest.raises(InvalidArgumentError, match=r"Invalid value for project_id: None"):
            call()
    assert fake_emulator.calls() == []


def test_malformed_id_is_named_before_any_request(fake_emulator: EmulatorProcess) -> None:
    with pytest.raises(InvalidArgumentError, match=r"Invalid value for cluster_id: 'Not_An_Id'"):
        VertexRayClusterHook(location=LOCATION).get_cluster("Not_An_Id")
    assert fake_emulator.calls() == []


def test_project_of_the_credentials_is_the_last_resort(
    monkeypatch: pytest.MonkeyPatch, keyfile: dict[str, str]
) -> None:
    connect(monkeypatch, keyfile_dict=json.dumps(keyfile))
    assert VertexRayClusterHook().known_project() == "key-project"
    connect(monkeypatch, keyfile_dict=json.dumps(keyfile), project="named")
    assert VertexRayClusterHook().known_project() == "named"
    assert VertexRayClusterHook(project_id="own").known_project() == "own"


# --- credentials ------------------------------------------------------------------------------------------------------


def credentials_of(hook: VertexRayClusterHook) -> Any:
    source = hook.token_source()
    assert isinstance(source, CredentialsTokenSource)
    return source._credentials


def test_key_of_the_connection_is_used(
    monkeypatch: pytest.MonkeyPatch, keyfile: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "key.json").write_text(json.dumps(keyfile))
    for extra in ({"key_path": str(tmp_path / "key.json")}, {"keyfile_dict": json.dumps(keyfile)}):
        connect(monkeypatch, **extra)
        credentials = credentials_of(VertexRayClusterHook())
        assert credentials.service_account_email == keyfile["client_email"]
        assert credentials.scopes == ("https://www.googleapis.com/auth/cloud-platform",)


def test_impersonation_chain_is_used(monkeypatch: pytest.MonkeyPatch, keyfile: dict[str, str]) -> None:
    connect(monkeypatch, keyfile_dict=json.dumps(keyfile))
    chain = ["first@p.iam.gserviceaccount.com", "last@p.iam.gserviceaccount.com"]
    credentials = credentials_of(VertexRayClusterHook(impersonation_chain=chain))
    assert (credentials._target_principal, credentials._delegates) == (chain[1], chain[:1])
    assert credentials._source_credentials.service_account_email == keyfile["client_email"]
    # And from the hooks that others are made of.
    sync_hook = asyncio.run(VertexRayJobAsyncHook(impersonation_chain=chain).get_sync_hook())
    assert credentials_of(sync_hook)._target_principal == chain[1]
    assert VertexRayJobHook(impersonation_chain=chain).async_hook()._key[1] == tuple(chain)


def test_impersonation_of_the_connection_is_the_default(
    monkeypatch: pytest.MonkeyPatch, keyfile: dict[str, str]
) -> None:
    connect(monkeypatch, keyfile_dict=json.dumps(keyfile), impersonation_chain="runner@p.iam.gserviceaccount.com")
    assert credentials_of(VertexRayClusterHook())._target_principal == "runner@p.iam.gserviceaccount.com"


def test_quota_project_of_the_connection_is_used(monkeypatch: pytest.MonkeyPatch, keyfile: dict[str, str]) -> None:
    if "quota_project_id" not in inspect.signature(GoogleBaseHook).parameters:
        pytest.skip("the connections of this Google provider have no quota project")
    connect(monkeypatch, keyfile_dict=json.dumps(keyfile), quota_project_id="billing-project")
    assert VertexRayClusterHook().token_source().quota_project == "billing-project"


def test_emulator_needs_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, key_path="/nowhere/key.json")
    monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", "127.0.0.1:8787")
    assert isinstance(VertexRayClusterHook().token_source(), EmulatorTokenSource)


async def test_emulator_needs_no_connection(fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT")
    start(fake_emulator)
    hook = VertexRayClusterAsyncHook("of-nobody", project_id=fake_emulator.project, location=LOCATION)
    assert (await hook.get_cluster("shared")).cluster_id == "shared"
    # Nothing but the connection would name a project.
    with pytest.raises(InvalidArgumentError, match="Invalid value for project_id: None"):
        await VertexRayClusterAsyncHook("of-nobody", location=LOCATION).get_cluster("shared")


def test_missing_connection_is_named_with_the_command_that_creates_it() -> None:
    with pytest.raises(InvalidArgumentError, match="Invalid value for gcp_conn_id: 'of-nobody'") as caught:
        VertexRayClusterHook("of-nobody")
    assert "airflow connections add of-nobody --conn-type google_cloud_platform" in str(caught.value)


@pytest.mark.parametrize("kind", ["postgres", "aws", "http"])
def test_connection_to_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": kind, "host": "h", "password": "secret-word"}))
    with pytest.raises(InvalidArgumentError, match=f"this one has the type {kind}") as caught:
        VertexRayClusterHook("other")
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize("kind", ["google_cloud_platform", "google-cloud-platform", "gcpbigquery", "generic", None])
def test_connections_that_may_have_credentials_are_accepted(monkeypatch: pytest.MonkeyPatch, kind: str | None) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": kind, "extra": {"project": "p1"}}))
    assert VertexRayClusterHook("other").connection_project() == "p1"


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ({"key_path": "/nowhere/key.json"}, "/nowhere/key.json"),
        ({"keyfile_dict": "{"}, "Invalid key JSON"),
        ({"keyfile_dict": {"type": "service_account", "private_key": "secret-word"}}, "Service account info"),
        ({}, "default credentials were not found"),
    ],
)
def test_credentials_that_cannot_be_read_are_named_as_such(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, extra: dict[str, Any], text: str
) -> None:
    connect(monkeypatch, **extra)
    # Without a wait for a metadata server.
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(CredentialsError, match="connection 'google_cloud_default' gives no credentials") as caught:
        VertexRayClusterHook().token_source()
    assert text in str(caught.value)
    assert "secret-word" not in str(caught.value)
    assert "aiplatform.user" not in str(caught.value)


async def test_credentials_are_loaded_off_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, keyfile: dict[str, str]
) -> None:
    connect(monkeypatch, keyfile_dict=json.dumps(keyfile))
    threads: list[int] = []
    real = VertexRayClusterHook.get_credentials_and_project_id

    def remember(self: VertexRayClusterHook) -> Any:
        threads.append(threading.get_ident())
        return real(self)

    monkeypatch.setattr(VertexRayClusterHook, "get_credentials_and_project_id", remember)
    monkeypatch.setattr(VertexRayClusterAsyncHook, "sync_hook_class", VertexRayClusterHook)
    async with VertexRayClusterAsyncHook().session() as (_, project):
        assert project == "key-project"
    assert threads
    assert threading.get_ident() not in threads


# --- tokens that do not last ------------------------------------------------------------------------------------------


async def test_expiring_tokens_are_renewed_in_time(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    hook = VertexRayClusterAsyncHook(location=LOCATION)
    # Short ones may expire on a busy machine, where a request or its renewal takes that long.
    for lifetime in (2.0, 20.0, 120.0):
        fake_emulator.admin("POST", "tokens/settings", {"seconds": lifetime})
        fake_emulator.admin("DELETE", "calls")
        begin = time.monotonic()
        async with hook.session():
            while len(fake_emulator.calls("GetToken")) < 3:
                await hook.get_cluster("shared")
                await asyncio.sleep(0.05)
        seconds = time.monotonic() - begin
        calls = fake_emulator.calls("GetPersistentResource")
        statuses = {call["status"] for call in calls}
        if statuses == {200}:
            break
    # Renewed at half of its life, and not before: no call ever went out with an expired one.
    assert statuses == {200}
    assert seconds >= lifetime / 2
    assert len(calls) > 3


@pytest.mark.parametrize("call", ["control_plane", "dashboard"])
async def test_revoked_token_is_replaced_once(fake_emulator: EmulatorProcess, call: str) -> None:
    start(fake_emulator)
    clusters, jobs = VertexRayClusterAsyncHook(location=LOCATION), VertexRayJobAsyncHook(location=LOCATION)
    async with clusters.session():
        cluster = await clusters.get_cluster("shared")
        await jobs.list_jobs("shared")
        fake_emulator.admin("DELETE", "calls")
        fake_emulator.admin("POST", "tokens/revoke")
        if call == "control_plane":
            await asyncio.gather(*(clusters.get_cluster("shared") for _ in range(5)))
        else:
            await asyncio.gather(*(clusters.live_nodes(cluster) for _ in range(5)))
    assert len(fake_emulator.calls("GetToken")) == 1
    statuses = [each["status"] for each in fake_emulator.calls() if each["method"] != "GetToken"]
    assert sorted(statuses) == [200] * 5 + [401] * 5


async def test_rejected_credentials_are_an_error(fake_emulator: EmulatorProcess) -> None:
    with (
        fake_emulator.fault(scope="auth", times=None, status=401),
        pytest.raises(NotAuthorisedError, match="invalid authentication credentials"),
    ):
        await VertexRayClusterAsyncHook(location=LOCATION).get_cluster("shared")
    assert len(fake_emulator.calls("GetPersistentResource")) == 2


async def test_expiry_margin_is_that_of_google_auth() -> None:
    from google.auth import _helpers

    # With a smaller one, google-auth would hand out the old token again; with a larger one, refresh in vain.
    assert _helpers.REFRESH_THRESHOLD.total_seconds() == auth.REFRESH_MARGIN
