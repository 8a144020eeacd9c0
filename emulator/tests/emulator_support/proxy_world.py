"""A dashboard proxy with a small server behind it that can misbehave, and a client, for tests of the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from vertex_ray_emulator.faults import Fault, Faults
from vertex_ray_emulator.request_log import RequestLog
from vertex_ray_emulator.surfaces import pki
from vertex_ray_emulator.surfaces.dashboard_proxy import DashboardProxy
from vertex_ray_emulator.surfaces.dashboard_target import ProxyLimits, Target
from vertex_ray_emulator.surfaces.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOST = "1a2b3c-dot-us-central1.aiplatform-training.googleusercontent.com"
CUT = (aiohttp.ClientError, ConnectionError)


class Upstream:
    """Server that takes the place of Ray's dashboard."""

    def __init__(self) -> None:
        self.port = 0
        self.bytes_in = 0
        self.submitted = 0
        self.go_on = asyncio.Event()
        self.closed_with: int | None = None

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.route("*", "/echo/{tail:.*}", self.echo),
                web.put("/upload", self.upload),
                web.get("/download", self.download),
                web.get("/broken", self.broken),
                web.get("/moved", self.moved),
                web.post("/api/jobs/", self.submit),
                web.get("/ws", self.websocket),
                web.get("/frames", self.frames),
                web.get("/no-ws", self.no_websocket),
            ]
        )
        return app

    async def echo(self, request: web.Request) -> web.Response:
        answer = web.json_response(
            {
                "method": request.method,
                "path": request.raw_path,
                "headers": {k.lower(): v for k, v in request.headers.items()},
                "body": (await request.read()).decode(),
            },
            headers={"X-Kept": "yes", "Connection": "keep-alive, X-Private", "X-Private": "no"},
        )
        answer.set_cookie("session", "secret")
        return answer

    async def upload(self, request: web.Request) -> web.Response:
        async for chunk in request.content.iter_any():
            self.bytes_in += len(chunk)
        return web.Response(text=str(request.headers.get("Content-Length")))

    async def download(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "10"} if "sized" in request.query else {})
        await answer.prepare(request)
        await answer.write(b"first")
        await self.go_on.wait()
        await answer.write(b"later")
        return answer

    async def broken(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return answer

    async def moved(self, request: web.Request) -> web.Response:
        return web.Response(
            status=302, headers={"Location": request.query["to"].replace("SELF", str(request.url.origin()))}
        )

    async def submit(self, request: web.Request) -> web.Response:
        self.submitted += 1
        return web.json_response({"submission_id": "x"})

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse(protocols=["ray"])
        await answer.prepare(request)
        async for message in answer:
            if message.data == "die":
                assert request.transport is not None
                request.transport.abort()
                break
            if message.type is aiohttp.WSMsgType.BINARY:
                await answer.send_bytes(message.data)
            elif message.data.startswith("close "):
                await answer.close(code=int(message.data[6:]))
            else:
                await answer.send_str(f"{message.data} {request.headers.get('Authorization')}")
        self.closed_with = answer.close_code
        return answer

    async def frames(self, request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        for k in range(5):
            await answer.send_str(f"frame {k}\n")
        return answer

    async def no_websocket(self, request: web.Request) -> web.Response:
        return web.Response(status=404, text="Job x does not exist")


class World:
    """The proxy, its settings, and a client with a valid token."""

    def __init__(self, limits: ProxyLimits | None = None) -> None:
        self.tokens, self.faults, self.request_log = Tokens(), Faults(), RequestLog()
        self.upstream = Upstream()
        self.targets: dict[str, Target] = {}
        self.proxy = DashboardProxy(self.targets.get, self.tokens, self.faults, self.request_log, limits)
        self.authorization = f"Bearer {self.tokens.mint()[0]}"
        self.url = self.tls_url = ""
        self.session: aiohttp.ClientSession
        self.certificates: pki.Pki

    def fault(self, **fields: Any) -> None:
        self.faults.add(Fault.from_json({"scope": "dashboard", **fields}))

    async def get(self, path: str, **options: Any) -> tuple[int, str]:
        async with self.session.get(self.url + path, **options) as response:
            return response.status, await response.text()

    def last_request(self) -> tuple[str, str, bool, int]:
        logged = self.request_log.listing()[-1]
        assert logged["surface"] == "dashboard"
        return logged["method"], logged["resource"], logged["authorised"], logged["status"]


async def _serve(app: web.Application, context: ssl.SSLContext | None = None) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    return runner, runner.addresses[0][1]


@contextlib.asynccontextmanager
async def proxied(folder: Path, limits: ProxyLimits | None = None) -> AsyncIterator[World]:
    """Start a proxy with certificates in a folder, and stop it at the end."""
    made = World(limits)
    made.certificates = pki.ensure(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificates.certificate, made.certificates.key)
    await made.proxy.start()
    front = [web.Application() for _ in range(2)]
    for app in front:
        app.router.add_route("*", "/{tail:.*}", made.proxy.handle)
    apps = [(made.upstream.application(), None), (front[0], None), (front[1], context)]
    runners = [await _serve(app, tls) for app, tls in apps]
    made.upstream.port, plain, encrypted = (port for _, port in runners)
    made.targets[HOST] = Target("etl", made.upstream.port)
    made.url, made.tls_url = f"http://127.0.0.1:{plain}/{HOST}", f"https://localhost:{encrypted}"
    async with aiohttp.ClientSession(headers={"Authorization": made.authorization}) as made.session:
        yield made
    made.upstream.go_on.set()
    await made.proxy.close()
    for runner, _ in reversed(runners):
        await runner.cleanup()
