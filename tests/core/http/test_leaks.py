"""Whatever a server or a proxy answers, no error, log line or traceback shows the token or the proxy's password."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.transport import RetryPolicy, Transport
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.errors import ServiceUnavailableError, VertexRayError
from tests.support.raw_service import http, raw_service

TOKEN = "ya29.SECRET-token-of-this-test"
ECHO = f"Authorization: Bearer {TOKEN}"

BROKEN = {
    "bad status line": b"HTTP/1.1 abc\r\n\r\n",
    "status line with the token": f"HTTP/1.1 {ECHO}\r\n\r\n".encode(),
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
    "long header": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 9000 + b"\r\nContent-Length: 2\r\n\r\n[]",
    "header with the token that is too long": f"HTTP/1.1 200 OK\r\n{ECHO}{'a' * 9000}\r\n\r\n".encode(),
    "header without colon": b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\n[]",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
    "odd length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n[]",
    "NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\n[]",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "chunk with the token": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{ECHO}\r\n".encode(),
    "redirect to itself": b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
    "redirect to nowhere": b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
    "bad gzip": http(200, b"abcd", "Content-Encoding: gzip"),
    "unknown encoding": http(200, b"abcd", f"Content-Encoding: {TOKEN}"),
    "odd charset": http(200, b"[]", "Content-Type: application/json; charset=foo"),
    "page with the token": http(200, f"<html>{ECHO}</html>"),
    "JSON with the token": http(200, {"message": ECHO}),
    "log that is no text": http(200, {"logs": {"message": ECHO, "more": "x" * 1000}}),
    "log with the token that is no JSON string": http(200, f'{{"logs": "{ECHO} \\x{"x" * 1000}'),
    "error with the token": http(400, ECHO),
    "Google's error with the token": http(403, {"error": {"message": ECHO, "status": "PERMISSION_DENIED"}}),
    "404 with the token": http(404, f"{ECHO} does not exist"),
    "500 with the token": http(500, f"Traceback\n{ECHO}"),
}  # fmt: skip


PLANTED = "planted-env-value-4711"
RECORD = f'{{"runtime_env": {{"env_vars": {{"DB_PASSWORD": "{PLANTED}"}}}}}}'.encode()


class Tokens:
    quota_project = "billing-project"

    async def get(self) -> str:
        return TOKEN

    def refused(self, token: str) -> None:
        pass


def told(error: BaseException) -> str:
    """All that Airflow may show or store of an error."""
    shown = [str(error), repr(error), "".join(traceback.format_exception(error))]
    if isinstance(error, VertexRayError):
        shown.append(json.dumps(error.to_dict()))
    return "\n".join(shown)


async def ask(transport: Transport, host: str, how: str) -> Any:
    api = JobsApi(transport, f"http://{host}")
    if how == "GET":
        return await api.get("x")
    if how == "list":
        return await api.list_all()
    if how == "logs":
        return await api.logs("x")
    if how == "stream":
        async with api.log_so_far("x") as pieces:
            return [piece async for piece in pieces]
    async with api.tail("x") as frames:
        return [frame async for frame in frames]


@pytest.fixture(scope="module")
def little_to_collect() -> Iterator[None]:
    """A full collection visits only what these tests made, not all of Airflow."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_to_collect")
@pytest.mark.parametrize("how", ["GET", "list", "logs", "stream", "websocket"])
@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN)
async def test_broken_answer_shows_no_token(
    how: str, payload: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    loop_errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: loop_errors.append(repr(context)))
    async with raw_service(lambda request: payload) as service:
        addresses = Addresses(service.host)
        async with Transport(Tokens(), addresses, retry=RetryPolicy(2, 0.001, 0.001), timeout=20) as transport:
            try:
                found = await ask(transport, service.host, how)
            except VertexRayError as error:
                found = told(error)
        assert any(TOKEN in request.head for request in service.requests), "the server got no token that it could show"
    gc.collect()
    out, err = capfd.readouterr()
    assert TOKEN not in f"{found}{caplog.text}{out}{err}{loop_errors}"


@pytest.mark.parametrize("how", ["GET", "list", "stream", "websocket"])
@pytest.mark.parametrize(
    "payload",
    [
        RECORD,
        b"HTTP/1.1 " + RECORD + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + RECORD + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + RECORD + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n[" + RECORD,
        http(500, RECORD),
        http(400, [json.loads(RECORD)]),
        http(200, RECORD[:-1]),
    ],
)
async def test_broken_record_of_a_job_shows_no_environment(
    how: str, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        raw_service(lambda request: payload) as service,
        Transport(Tokens(), Addresses(service.host), retry=RetryPolicy(2, 0.001, 0.001), timeout=20) as transport,
    ):
        try:
            found = repr(await ask(transport, service.host, how))
        except VertexRayError as error:
            found = told(error)
    assert PLANTED not in found + caplog.text


async def test_websocket_redirect_is_not_followed() -> None:
    async with raw_service() as elsewhere:
        moved = http(302, b"", f"Location: http://{elsewhere.host}/computeMetadata/v1/")
        async with (
            raw_service(lambda request: moved) as service,
            Transport(Tokens(), Addresses(service.host)) as transport,
        ):
            with pytest.raises(ServiceUnavailableError, match=r"redirect \(302\)"):
                await ask(transport, service.host, "websocket")
        assert elsewhere.requests == []


@pytest.mark.parametrize("answer", [http(407), b"HTTP/1.1 407 Pa55word+x\r\n\r\n", b"nonsense\r\n\r\n", b""])
@pytest.mark.parametrize("how", ["GET", "stream", "websocket"])
async def test_proxy_shows_no_password(
    how: str, answer: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for variable in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    host = "x-dot-us-central1.aiplatform-training.googleusercontent.com"
    async with raw_service(lambda request: answer) as proxy:
        monkeypatch.setenv("https_proxy", f"http://svc-airflow:Pa55word%2Bx@{proxy.host}")
        async with Transport(Tokens(), Addresses(), retry=RetryPolicy(1)) as transport:
            api = JobsApi(transport, f"https://{host}")
            with pytest.raises(VertexRayError) as caught:
                if how == "GET":
                    await api.get("x")
                elif how == "stream":
                    async with api.log_so_far("x"):
                        pass
                else:
                    async with api.tail("x"):
                        pass
    sent = base64.b64encode(b"svc-airflow:Pa55word+x").decode()
    assert any(sent in request.head for request in proxy.requests)
    shown = told(caught.value) + caplog.text
    assert [secret for secret in (sent, "Pa55word", TOKEN) if secret in shown] == []
