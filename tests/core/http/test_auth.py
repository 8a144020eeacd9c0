"""Tokens: when they are fetched, how often, and what happens when they can not be."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from google.auth.exceptions import RefreshError, TransportError

from airflow_provider_vertex_ray.core.http import auth
from airflow_provider_vertex_ray.core.http.auth import CredentialsTokenSource, EmulatorTokenSource
from airflow_provider_vertex_ray.errors import (
    EmulatorError,
    NotAuthorisedError,
    ServiceUnavailableError,
    UnreadableAnswerError,
    VertexRayError,
)
from tests.support.server import serving


class Credentials:
    """As google-auth's: refreshing blocks; ``expiry`` is naive, in UTC."""

    quota_project_id: str | None = None

    def __init__(self, lifetime: float | None = 3600.0, *, takes: float = 0.0) -> None:
        self.token: str | None = None
        self.expiry: datetime.datetime | None = None
        self.refreshes = 0
        self.threads: set[int] = set()
        self.error: Exception | None = None
        self._lifetime, self._takes = lifetime, takes

    def refresh(self, request: Any) -> None:
        self.threads.add(threading.get_ident())
        threading.Event().wait(self._takes)
        self.refreshes += 1
        if self.error is not None:
            raise self.error
        self.token = f"token-{self.refreshes}"
        if self._lifetime is not None:
            now = datetime.datetime.fromtimestamp(time.time(), datetime.timezone.utc).replace(tzinfo=None)
            self.expiry = now + datetime.timedelta(seconds=self._lifetime)


def source(credentials: Credentials) -> CredentialsTokenSource:
    return CredentialsTokenSource(credentials)  # type: ignore[arg-type]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the source sees; it stands still until ``clock[0] += …`` lets it pass."""
    shift = [0.0]
    begin = time.time()
    monkeypatch.setattr(auth.time, "time", lambda: begin + shift[0])
    return shift


async def renewed(tokens: CredentialsTokenSource) -> str:
    """Return the token that follows the current one, which may be renewed in the background."""
    before = found = await tokens.get()
    while found == before:
        await asyncio.sleep(0.005)
        found = await tokens.get()
    return found


async def test_many_tasks_make_one_refresh_in_a_thread() -> None:
    credentials = Credentials(takes=0.05)
    tokens = source(credentials)
    assert set(await asyncio.gather(*(tokens.get() for _ in range(50)))) == {"token-1"}
    assert credentials.refreshes == 1
    assert threading.get_ident() not in credentials.threads


async def test_a_token_is_renewed_before_it_expires(clock: list[float]) -> None:
    credentials = Credentials(3600)
    tokens = source(credentials)
    await tokens.get()
    clock[0] = 3600 - auth.REFRESH_MARGIN - 10
    assert await tokens.get() == "token-1"
    clock[0] = 3600 - auth.REFRESH_MARGIN + 10
    # Nobody waits for the renewal.
    assert await tokens.get() == "token-1"
    assert await renewed(tokens) == "token-2"


async def test_a_short_token_is_not_fetched_for_each_call(clock: list[float]) -> None:
    credentials = Credentials(100)
    tokens = source(credentials)
    assert [await tokens.get(), await tokens.get()] == ["token-1", "token-1"]
    clock[0] = 60
    assert await renewed(tokens) == "token-2"


async def test_a_token_without_expiry_is_kept_for_an_hour(clock: list[float]) -> None:
    tokens = source(Credentials(None))
    assert await tokens.get() == "token-1"
    clock[0] = 3000
    assert await tokens.get() == "token-1"
    clock[0] = 3700
    assert await tokens.get() == "token-2"


async def test_a_refused_token_is_replaced_once_for_all() -> None:
    credentials = Credentials(takes=0.02)
    tokens = source(credentials)
    old = await tokens.get()

    async def refused() -> str:
        tokens.refused(old)
        return await tokens.get()

    assert set(await asyncio.gather(*(refused() for _ in range(20)))) == {"token-2"}
    # A late answer to the old token must not throw away the new one.
    tokens.refused(old)
    assert await tokens.get() == "token-2"
    assert credentials.refreshes == 2


async def test_a_refresh_that_fails_is_tried_again_by_the_next_call() -> None:
    credentials = Credentials()
    credentials.error = RefreshError("invalid_grant")
    tokens = source(credentials)
    with pytest.raises(NotAuthorisedError, match=r"could not be refreshed: invalid_grant.*impersonation chain"):
        await tokens.get()
    credentials.error = None
    assert await tokens.get() == "token-2"


@pytest.mark.parametrize("error", [TransportError("no server"), RefreshError("invalid_grant"), OSError("down")])
async def test_renewal_that_fails_leaves_the_valid_token(clock: list[float], error: Exception) -> None:
    credentials = Credentials()
    tokens = source(credentials)
    await tokens.get()
    clock[0] = 3600 - auth.REFRESH_MARGIN + 1
    credentials.error = error
    while credentials.refreshes < 2:
        assert await tokens.get() == "token-1"
        await asyncio.sleep(0.001)
    for _ in range(100):
        assert await tokens.get() == "token-1"
        await asyncio.sleep(0.001)
    # Once, and not by each call.
    assert credentials.refreshes == 2
    clock[0] += auth.RETRY_SECONDS + 1
    credentials.error = None
    assert await renewed(tokens) == "token-3"


async def test_expired_token_is_not_used_while_its_renewal_fails(clock: list[float]) -> None:
    credentials = Credentials()
    tokens = source(credentials)
    await tokens.get()
    clock[0] = 3600
    credentials.error = TransportError("no metadata server")
    with pytest.raises(ServiceUnavailableError, match="no metadata server"):
        await tokens.get()


@pytest.mark.parametrize("token", [None, "", 7])
async def test_credentials_without_a_token_raise(token: object) -> None:
    credentials = Credentials()
    credentials.refresh = lambda request: setattr(credentials, "token", token)  # type: ignore[method-assign]
    with pytest.raises(NotAuthorisedError, match="no access token"):
        await source(credentials).get()


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", '{"access_token": 7, "expires_in": 1}', "[" * 100_000])
async def test_odd_answer_of_the_emulators_token_server_raises(text: str) -> None:
    async with serving(web.Response(text=text)) as server:
        with pytest.raises(UnreadableAnswerError):
            await EmulatorTokenSource(server.host).get()


async def test_a_cancelled_caller_does_not_block_the_others() -> None:
    credentials = Credentials(takes=0.1)
    tokens = source(credentials)
    first = asyncio.create_task(tokens.get())
    await asyncio.sleep(0.02)
    first.cancel()
    assert (await asyncio.wait_for(tokens.get(), 240)).startswith("token-")


def test_the_quota_project_of_the_credentials() -> None:
    credentials = Credentials()
    assert source(credentials).quota_project is None
    credentials.quota_project_id = "billing"
    assert source(credentials).quota_project == "billing"


async def test_the_emulators_tokens() -> None:
    async with serving(web.json_response({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"})) as server:
        tokens = EmulatorTokenSource(server.host)
        assert [await tokens.get(), await tokens.get()] == ["t", "t"]
        ((method, path, headers, _),) = server.requests
    assert (method, path) == ("GET", "/computeMetadata/v1/instance/service-accounts/default/token")
    assert headers["Metadata-Flavor"] == "Google"


async def test_an_emulator_that_gives_no_tokens() -> None:
    async with serving(web.Response(status=503)) as server:
        with pytest.raises(NotAuthorisedError, match="token server answered 503"):
            await EmulatorTokenSource(server.host).get()


async def test_no_emulator_at_all() -> None:
    async with serving(web.Response()) as server:
        host = server.host
    with pytest.raises(EmulatorError, match=rf"No emulator answers at {host}.*vertex-ray-emulator start"):
        await EmulatorTokenSource(host).get()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (web.json_response({"detail": "Not Found"}, status=404), EmulatorError),
        (web.Response(status=302, headers={"Location": "/login"}), EmulatorError),
        # It might be the emulator's, damaged on the way.
        (web.Response(text="<html>Airflow</html>", content_type="text/html"), UnreadableAnswerError),
        (web.json_response({"status": "ok"}), UnreadableAnswerError),
    ],
    ids=["404", "redirect", "page", "another-answer"],
)
async def test_another_server_is_not_mistaken_for_the_emulator(
    answer: web.Response, kind: type[VertexRayError]
) -> None:
    async with serving(answer) as server:
        with pytest.raises(kind, match=rf"answers at {server.host}.* is not the Vertex Ray emulator") as caught:
            await EmulatorTokenSource(server.host).get()
    # Nothing of permissions, which have nothing to do with it.
    assert "roles/" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "account"),
    [
        ({"service_account_email": "ray@p.iam.gserviceaccount.com"}, "ray@p.iam.gserviceaccount.com"),
        # Those of a machine say this until there was a token.
        ({"service_account_email": "default"}, None),
        ({"account": "me@example.com"}, "me@example.com"),
        ({"account": ""}, None),
        ({}, None),
    ],
)
def test_the_account_of_credentials(fields: dict[str, str], account: str | None) -> None:
    credentials: Any = SimpleNamespace(**fields)
    assert CredentialsTokenSource(credentials).account == account
