"""Requests against a real server: tokens, retries, deadlines, and what never happens."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from airflow_provider_vertex_ray.core.http import transport as transport_module
from airflow_provider_vertex_ray.core.http.addresses import Addresses, DashboardHost
from airflow_provider_vertex_ray.core.http.decoding import JsonObject, decode
from airflow_provider_vertex_ray.core.http.transport import RetryPolicy, Transport
from airflow_provider_vertex_ray.errors import InvalidArgumentError, ServiceUnavailableError, UnreadableAnswerError
from tests.support.log_server import reached
from tests.support.server import QUICK, Answer, AnswerError, FakeTokens, cut, error_from, half, serving, transport_to


def status(code: int, text: str = "no", **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=code, text=text, headers=headers)

    return answer


async def fine(_: web.Request) -> web.Response:
    return web.json_response({"fine": True})


async def hang(_: web.Request) -> web.Response:
    await asyncio.sleep(3600)
    return web.Response()


async def test_a_request_and_its_answer() -> None:
    async with serving(fine) as server, transport_to(server) as transport:
        answer = await transport.request(
            "POST", f"{server.url}/x", error_from=error_from, params={"a": "b c"}, body={"k": "ä"}
        )
        ((method, path, headers, sent),) = server.requests
    assert (answer.status, decode(answer.content, JsonObject)) == (200, {"fine": True})
    assert (method, path) == ("POST", "/x?a=b+c")
    assert headers["Authorization"] == "Bearer t1"
    assert "X-Goog-User-Project" not in headers
    assert sent == b'{"k": "\\u00e4"}'


async def test_the_quota_project_is_named() -> None:
    tokens = FakeTokens()
    tokens.quota_project = "billing"
    async with serving(fine) as server, transport_to(server, tokens) as transport:
        await transport.request("GET", server.url, error_from=error_from)
        assert server.requests[0][2]["X-Goog-User-Project"] == "billing"


async def test_an_answer_as_a_stream() -> None:
    async def much(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 1_000_000)

    async with serving(status(401), much) as server, transport_to(server) as transport:
        async with transport.stream(server.url, error_from=error_from) as pieces:
            sizes = [len(piece) async for piece in pieces]
        assert server.tokens == ["Bearer t1", "Bearer t2"]
    assert (sum(sizes), max(sizes) <= 1 << 16) == (1_000_000, True)


async def test_a_stream_that_is_refused_is_not_repeated() -> None:
    async with serving(status(503, "later")) as server, transport_to(server) as transport:
        with pytest.raises(AnswerError, match="later"):
            async with transport.stream(server.url, error_from=error_from):
                pass
        assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [cut, half])
async def test_a_stream_that_breaks(answer: Answer) -> None:
    async with serving(answer) as server, transport_to(server) as transport:
        with pytest.raises(ServiceUnavailableError, match="was not answered|is incomplete"):
            async with transport.stream(server.url, error_from=error_from) as pieces:
                assert [piece async for piece in pieces] == []


async def test_a_stream_that_falls_silent() -> None:
    async with serving(hang) as server, transport_to(server) as transport:
        with pytest.raises(ServiceUnavailableError, match="was not answered"):
            async with transport.stream(server.url, error_from=error_from, quiet=0.1):
                pass


async def test_host_that_hangs_takes_no_connections_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "MAX_CONNECTIONS", 2)
    async with serving(hang) as hanging, serving(fine) as server:
        ports = [each.host.partition(":")[2] for each in (hanging, server)]
        addresses = Addresses(dashboards=tuple(DashboardHost("127.0.0.1", f":{port}", "http") for port in ports))
        async with Transport(FakeTokens(), addresses, retry=QUICK, timeout=240) as transport:
            stuck = [asyncio.create_task(transport.request("GET", hanging.url, error_from=error_from)) for _ in "abcd"]
            await reached(lambda: len(hanging.requests) == 2)
            await asyncio.wait_for(transport.request("GET", server.url, error_from=error_from), 60)
            # As many as one host may have.
            assert len(hanging.requests) == 2
            for each in stuck:
                each.cancel()
            await asyncio.wait(stuck)


@pytest.mark.parametrize("repeatable", [True, False])
async def test_request_is_repeated_once_with_new_token_after_401(repeatable: bool) -> None:
    tokens = FakeTokens()
    async with serving(status(401), fine) as server, transport_to(server, tokens) as transport:
        await transport.request("POST", server.url, error_from=error_from, body={}, repeatable=repeatable)
        assert server.tokens == ["Bearer t1", "Bearer t2"]
    assert tokens.refusals == ["t1"]


async def test_a_second_401_is_the_answer() -> None:
    async with serving(status(401)) as server, transport_to(server) as transport:
        with pytest.raises(AnswerError) as caught:
            await transport.request("GET", server.url, error_from=error_from)
        assert len(server.requests) == 2
    assert caught.value.details == {"status": 401}


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 524])
async def test_temporary_errors_are_retried(code: int) -> None:
    async with serving(status(code), status(code), fine) as server, transport_to(server) as transport:
        assert await transport.read(JsonObject, "GET", server.url, error_from=error_from) == {"fine": True}
        assert len(server.requests) == 3


async def test_tries_come_to_an_end() -> None:
    async with serving(status(503, "still ill")) as server, transport_to(server) as transport:
        with pytest.raises(AnswerError, match="still ill"):
            await transport.request("GET", server.url, error_from=error_from)
        assert len(server.requests) == 4
        with pytest.raises(AnswerError):
            await transport.request("GET", server.url, error_from=error_from, attempts=1)
        assert len(server.requests) == 5


@pytest.mark.parametrize("code", [400, 403, 404, 409, 413, 501])
async def test_rejected_request_is_not_repeated(code: int) -> None:
    async with serving(status(code)) as server, transport_to(server) as transport:
        with pytest.raises(AnswerError):
            await transport.request("GET", server.url, error_from=error_from)
        assert len(server.requests) == 1


@pytest.mark.parametrize("trouble", [status(503), status(429), cut, half])
async def test_non_repeatable_request_is_not_repeated(trouble: Answer) -> None:
    async with serving(trouble, fine) as server, transport_to(server) as transport:
        with pytest.raises((AnswerError, ServiceUnavailableError)):
            await transport.request("POST", server.url, error_from=error_from, body={}, repeatable=False)
        assert len(server.requests) == 1


async def test_retry_after_is_heeded_up_to_a_limit() -> None:
    policy = RetryPolicy(attempts=3, first_delay=0.001, longest_delay=0.3)
    assert policy.delay(1, "7") == 0.3
    assert RetryPolicy().delay(1, "7") == 7
    # A date, or nonsense: the usual delay.
    assert policy.delay(1, "Wed, 21 Oct 2026 07:28:00 GMT") <= 0.001
    async with (
        serving(status(429, **{"Retry-After": "120"}), fine) as server,
        Transport(FakeTokens(), Addresses(server.host), retry=policy) as transport,
    ):
        start = time.monotonic()
        await transport.request("GET", server.url, error_from=error_from)
    assert 0.29 <= time.monotonic() - start < 60


def test_delays_grow_are_spread_and_have_a_cap() -> None:
    policy = RetryPolicy(first_delay=1, longest_delay=10)
    for failures, ceiling in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (50, 10)):
        delays = [policy.delay(failures, None) for _ in range(200)]
        assert ceiling / 2 <= min(delays) < max(delays) <= ceiling
        assert max(delays) - min(delays) > ceiling / 4


@pytest.mark.parametrize("trouble", [cut, half])
async def test_a_broken_connection_is_tried_again(trouble: Answer) -> None:
    async with serving(trouble, trouble, fine) as server, transport_to(server) as transport:
        assert await transport.read(JsonObject, "GET", server.url, error_from=error_from) == {"fine": True}
        assert len(server.requests) == 3


async def test_no_server() -> None:
    async with serving(fine) as server:
        transport = transport_to(server)
    async with transport:
        with pytest.raises(ServiceUnavailableError, match=r"GET http://127.*was not answered.*retry the task"):
            await transport.request("GET", server.url, error_from=error_from)


async def test_a_server_that_hangs_has_a_deadline_for_each_try() -> None:
    async with serving(hang, fine) as server, transport_to(server, timeout=0.2) as transport:
        start = time.monotonic()
        await transport.request("GET", server.url, error_from=error_from)
        assert 0.2 <= time.monotonic() - start < 60
        server.answers = [hang]
        with pytest.raises(ServiceUnavailableError, match="TimeoutError"):
            await transport.request("GET", server.url, error_from=error_from, attempts=1, timeout=0.1)


async def test_a_raw_body_is_made_anew_for_each_try() -> None:
    async with serving(status(503), cut, fine) as server, transport_to(server) as transport:
        await transport.request("PUT", server.url, error_from=error_from, data=lambda: io.BytesIO(b"x" * 100_000))
        assert [len(sent) for *_, sent in server.requests] == [100_000] * 3


async def test_a_redirect_is_not_followed_and_no_token_goes_elsewhere() -> None:
    async with serving(fine) as elsewhere, serving(status(307, Location=elsewhere.url)) as server:
        async with transport_to(server) as transport:
            with pytest.raises(UnreadableAnswerError, match=r"answered with a redirect \(307\)"):
                await transport.request("GET", server.url, error_from=error_from)
            with pytest.raises(InvalidArgumentError, match="no other host receives a token"):
                await transport.request("GET", elsewhere.url, error_from=error_from)
            with pytest.raises(InvalidArgumentError, match="no other host receives a token"):
                async with transport.websocket(elsewhere.url.replace("http", "ws"), error_from=error_from):
                    pass
        assert elsewhere.requests == []


async def test_too_long_answer_is_unreadable_without_blocking_the_loop() -> None:
    size = 40 << 20

    async def long(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(size >> 20):
            await answer.write(b"x" * (1 << 20))
        return answer

    async with serving(long) as server, transport_to(server, timeout=240) as transport:
        with pytest.raises(UnreadableAnswerError, match=r"larger than 0\.000954 MiB"):
            await transport.request("GET", server.url, error_from=error_from, max_bytes=1000)
        # A repetition would be as long.
        assert len(server.requests) == 1
        start = time.process_time()
        whole = await transport.request("GET", server.url, error_from=error_from, max_bytes=size)
        assert len(whole.content) == size
        # Copying what is there for each piece that comes would take many times as long.
        assert time.process_time() - start < 60


@pytest.mark.parametrize("text", ["<html>Sign in</html>", '{"a": ', "", " \n", "null", "[]", '"ok"'])
async def test_what_does_not_fit_the_model_is_retried_and_then_unreadable(text: str) -> None:
    async with serving(status(200, text), fine) as server, transport_to(server) as transport:
        assert await transport.read(JsonObject, "GET", server.url, error_from=error_from) == {"fine": True}
        server.answers = [status(200, text)]
        with pytest.raises(UnreadableAnswerError, match="could not be read"):
            await transport.read(JsonObject, "GET", server.url, error_from=error_from)
        assert len(server.requests) == 2 + 4
        with pytest.raises(UnreadableAnswerError):
            await transport.read(JsonObject, "POST", server.url, error_from=error_from, repeatable=False)
        assert len(server.requests) == 2 + 4 + 1


async def tail(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str("hello")
    async for _ in socket:
        pass
    return socket


def ws(url: str) -> str:
    return url.replace("http", "ws", 1)


async def test_a_websocket_with_one_more_try_after_a_401() -> None:
    async with serving(status(401), tail) as server, transport_to(server) as transport:
        async with transport.websocket(ws(server.url), error_from=error_from) as connection:
            assert (await connection.receive()).data == "hello"
        assert server.tokens == ["Bearer t1", "Bearer t2"]


@pytest.mark.parametrize(("answer", "requests"), [(status(401), 2), (status(404), 1), (status(503), 1)])
async def test_a_websocket_that_is_refused(answer: Answer, requests: int) -> None:
    async with serving(answer) as server, transport_to(server) as transport:
        with pytest.raises(AnswerError):
            async with transport.websocket(ws(server.url), error_from=error_from):
                pass
        assert len(server.requests) == requests


async def test_a_websocket_without_a_server() -> None:
    async with serving(cut) as server, transport_to(server) as transport:
        with pytest.raises(ServiceUnavailableError, match="Could not open websocket"):
            async with transport.websocket(ws(server.url), error_from=error_from):
                pass


async def test_websockets_leave_room_for_requests() -> None:
    # Each waiting job holds one: with 150 of them, a status request must still come through.
    async def either(request: web.Request) -> web.StreamResponse:
        return await (tail(request) if "Upgrade" in request.headers else fine(request))

    async with serving(either) as server, transport_to(server, timeout=60) as transport:
        opened = [transport.websocket(ws(server.url), error_from=error_from) for _ in range(150)]
        for each in opened:
            await each.__aenter__()
        answer = await transport.read(JsonObject, "GET", server.url, error_from=error_from, attempts=1)
        assert answer == {"fine": True}
        await asyncio.gather(*(each.__aexit__(None, None, None) for each in opened))


async def test_a_closed_transport_has_no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[aiohttp.ClientSession] = []
    real = aiohttp.ClientSession

    def remember(*arguments: Any, **more: Any) -> aiohttp.ClientSession:
        sessions.append(real(*arguments, **more))
        return sessions[-1]

    monkeypatch.setattr(aiohttp, "ClientSession", remember)
    async with serving(fine) as server:
        async with transport_to(server) as transport:
            await transport.request("GET", server.url, error_from=error_from)
        assert [session.closed for session in sessions] == [True]
        # It can be used again: a hook may outlive one use.
        await transport.request("GET", server.url, error_from=error_from)
        await transport.close()
    assert [session.closed for session in sessions] == [True, True]


async def test_a_proxy_of_the_environment_and_an_entry_in_netrc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    (tmp_path / "netrc").write_text("default login somebody password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    for variable in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server, Transport(FakeTokens(), Addresses(), retry=RetryPolicy(attempts=1)) as transport:
        with pytest.raises(ServiceUnavailableError):
            await transport.request("GET", "https://us-east5-aiplatform.googleapis.com/v1", error_from=error_from)
        with pytest.raises((ServiceUnavailableError, AnswerError)):
            async with transport.websocket(
                "wss://x.aiplatform-training.googleusercontent.com/t", error_from=error_from
            ):
                pass
    assert asked[0].startswith(b"CONNECT us-east5-aiplatform.googleapis.com:443 ")
    assert asked[1].startswith(b"CONNECT x.aiplatform-training.googleusercontent.com:443 ")
    # The token is for Google, not for the proxy on the way.
    assert b"t1" not in b"".join(asked)


async def test_no_proxy_for_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with serving(fine) as server, transport_to(server) as transport:
        assert (await transport.request("GET", server.url, error_from=error_from, attempts=1)).status == 200
