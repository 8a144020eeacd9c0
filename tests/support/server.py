"""A local HTTP server that answers what a test says, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.transport import RetryPolicy, Transport
from airflow_provider_vertex_ray.errors import VertexRayError

Answer = web.StreamResponse | Callable[[web.Request], Awaitable[web.StreamResponse]]

QUICK = RetryPolicy(attempts=4, first_delay=0.01, longest_delay=0.05)


class FakeTokens:
    """Tokens ``t1``, ``t2``, …: another one after each refusal."""

    quota_project: str | None = None

    def __init__(self) -> None:
        self.number = 1
        self.refusals: list[str] = []

    async def get(self) -> str:
        return f"t{self.number}"

    def refused(self, token: str) -> None:
        self.refusals.append(token)
        if token == f"t{self.number}":
            self.number += 1


@dataclass
class Server:
    """What the server was asked, and what it answers: one answer after the other, the last one again and again."""

    host: str
    answers: list[Answer]
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def tokens(self) -> list[str]:
        return [headers.get("Authorization", "") for _, _, headers, _ in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, web.Response):
            # A response can be sent once only, and a request may be repeated.
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        return answer if isinstance(answer, web.StreamResponse) else await answer(request)


@asynccontextmanager
async def serving(*answers: Answer) -> AsyncIterator[Server]:
    server = Server("", list(answers))
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.host = f"127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def transport_to(server: Server, tokens: FakeTokens | None = None, *, timeout: float = 60.0) -> Transport:
    return Transport(tokens or FakeTokens(), Addresses(server.host), retry=QUICK, timeout=timeout)


class AnswerError(VertexRayError):
    """What ``error_from`` makes in these tests."""


def error_from(status: int, text: str) -> VertexRayError:
    return AnswerError(text, {"status": status})


async def cut(request: web.Request) -> web.StreamResponse:
    """No answer: the connection ends."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    """Half an answer, then the connection ends."""
    answer = web.StreamResponse(headers={"Content-Length": "100"})
    await answer.prepare(request)
    await answer.write(b'{"a": ')
    assert request.transport is not None
    request.transport.close()
    return answer
