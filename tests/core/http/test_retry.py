"""Pauses between attempts, refusals that may be temporary, pages that repeat, and secrets in pieces."""

from __future__ import annotations

import email.utils
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.http import retry
from airflow_provider_vertex_ray.core.http.decoding import JsonObject
from airflow_provider_vertex_ray.core.http.paging import MOST_PAGES, PageTokens
from airflow_provider_vertex_ray.core.http.redact import Redactor
from airflow_provider_vertex_ray.core.http.retry import RefusalGrace, RetryPolicy
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    NotAuthorisedError,
    ServiceUnavailableError,
    UnreadableAnswerError,
    VertexRayError,
)
from tests.support.server import FakeTokens, half, serving, transport_to

POLICY = RetryPolicy(first_delay=0.001, longest_delay=10)


@pytest.mark.parametrize("value", ["²", "\u0661", "-1", "1.5", "1e3", "nan", "", " ", "soon", "9" * 30, "\x00", "Mon"])
def test_odd_retry_after_is_ignored(value: str) -> None:
    assert POLICY.delay(1, value) <= 0.001


@given(st.text())
def test_any_retry_after_gives_a_delay(value: str) -> None:
    assert 0 <= POLICY.delay(1, value) <= 10


@pytest.mark.parametrize("value", ["7", " 7 ", "07"])
def test_seconds_of_retry_after_are_heeded(value: str) -> None:
    assert POLICY.delay(1, value) == 7


def test_date_of_retry_after_is_heeded() -> None:
    assert 5 < POLICY.delay(1, email.utils.formatdate(time.time() + 8, usegmt=True)) <= 8
    assert POLICY.delay(1, email.utils.formatdate(time.time() + 10_000, usegmt=True)) == 10
    assert POLICY.delay(1, email.utils.formatdate(time.time() - 10, usegmt=True)) <= 0.001


def test_many_failures_do_not_overflow() -> None:
    assert RetryPolicy().delay(100_000, None) <= 20


def test_refusal_is_tolerated_for_some_minutes_after_it_had_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(retry.time, "monotonic", lambda: now[0])
    grace = RefusalGrace()
    assert not grace.tolerates("GET /a")
    grace.worked("GET /a")
    assert grace.tolerates("GET /a")
    assert not grace.tolerates("GET /b")
    now[0] += retry.GRACE_SECONDS - 1
    assert grace.tolerates("GET /a")
    now[0] += 2
    assert not grace.tolerates("GET /a")
    grace.worked("GET /a")
    assert grace.tolerates("GET /a")


def test_memory_of_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "REMEMBERED_CALLS", 3)
    grace = RefusalGrace()
    for number in range(5):
        grace.worked(str(number))
    assert [grace.tolerates(str(number)) for number in range(5)] == [False, False, True, True, True]


def typed(status: int, text: str) -> VertexRayError:
    return (NotAuthorisedError if status in (401, 403) else InvalidRequestError)(text)


@pytest.mark.parametrize("status", [400, 401, 403, 405])
async def test_get_that_had_worked_is_unreadable_when_refused(status: int) -> None:
    odd, fine = web.Response(status=status, text="no"), web.json_response({})
    async with serving(odd) as server, transport_to(server) as transport:
        with pytest.raises(NotAuthorisedError if status in (401, 403) else InvalidRequestError):
            await transport.read(JsonObject, "GET", f"{server.url}/a", error_from=typed)
        server.answers = [fine]
        await transport.read(JsonObject, "GET", f"{server.url}/a?page=1", error_from=typed)
        server.answers = [odd]
        with pytest.raises(UnreadableAnswerError, match="had worked before"):
            await transport.read(JsonObject, "GET", f"{server.url}/a?page=2", error_from=typed)
        for method, path in (("GET", "b"), ("POST", "a")):
            with pytest.raises((NotAuthorisedError, InvalidRequestError)):
                await transport.read(JsonObject, method, f"{server.url}/{path}", error_from=typed)


@pytest.mark.parametrize("status", [400, 403])
async def test_stream_that_had_worked_is_unreadable_when_refused(status: int) -> None:
    odd, fine = web.Response(status=status, text="no"), web.json_response([])

    async def read(transport: Transport, url: str) -> None:
        async with transport.stream(url, error_from=typed) as pieces:
            async for _ in pieces:
                pass

    async with serving(half) as server, transport_to(server) as transport:
        # Half an answer is no proof that the call works.
        with pytest.raises(ServiceUnavailableError):
            await read(transport, f"{server.url}/a")
        server.answers = [odd]
        with pytest.raises((NotAuthorisedError, InvalidRequestError)):
            await read(transport, f"{server.url}/a")
        server.answers = [fine]
        await read(transport, f"{server.url}/a?page=1")
        server.answers = [odd]
        with pytest.raises(UnreadableAnswerError, match="had worked before"):
            await read(transport, f"{server.url}/a")
        with pytest.raises((NotAuthorisedError, InvalidRequestError)):
            await read(transport, f"{server.url}/b")


async def test_change_is_never_tolerated() -> None:
    async with serving(web.json_response({}), web.Response(status=403)) as server, transport_to(server) as transport:
        await transport.read(JsonObject, "POST", server.url, error_from=typed, repeatable=False)
        with pytest.raises(NotAuthorisedError):
            await transport.read(JsonObject, "POST", server.url, error_from=typed, repeatable=False)


async def test_token_that_cannot_be_renewed_is_waited_out() -> None:
    class Tokens(FakeTokens):
        fails = True

        async def get(self) -> str:
            if self.fails:
                raise NotAuthorisedError("The credentials could not be refreshed.")
            return "t"

    tokens = Tokens()
    async with serving(web.json_response({})) as server, transport_to(server, tokens) as transport:
        with pytest.raises(NotAuthorisedError):
            await transport.read(JsonObject, "GET", server.url, error_from=typed)
        tokens.fails = False
        await transport.read(JsonObject, "GET", server.url, error_from=typed)
        tokens.fails = True
        with pytest.raises(ServiceUnavailableError, match="could not be refreshed"):
            await transport.read(JsonObject, "GET", server.url, error_from=typed)


def test_pages_come_to_an_end() -> None:
    tokens = PageTokens()
    assert [tokens.follow("a"), tokens.follow("b"), tokens.follow(None), tokens.follow("")] == ["a", "b", "", ""]
    with pytest.raises(UnreadableAnswerError):
        tokens.follow("a")
    endless = PageTokens()
    with pytest.raises(UnreadableAnswerError):
        for number in range(MOST_PAGES + 1):
            endless.follow(str(number))


@given(st.lists(st.sampled_from(["secret-1", "sec", "secret-", "1", "ret-1", "x", "secret-secret-1"]), max_size=8))
async def test_secret_in_pieces_is_replaced(pieces: list[str]) -> None:
    async def sent() -> AsyncIterator[str]:
        for piece in pieces:
            yield piece

    redact = Redactor()
    redact.add("secret-1")
    found = "".join([piece async for piece in redact.stream(sent())])
    assert found == "".join(pieces).replace("secret-1", "***")
