"""A dashboard with the log of one job, behind a proxy that treats websockets and long answers as a test says."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from emulator_support.process import PATIENCE

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.client import JobsApi
from tests.support.server import QUICK, FakeTokens

BLOCK = 1 << 16


class LogServer:
    """The log of the job ``one``, which grows as the test says.

    :param websocket: ``works``, ``hangs``, ``silent`` (accepted, and then nothing), ``stalls`` (accepted, delivers what
        there is, then nothing), or the status of a refusal
    :param ray: Ray's version; versions before 2.47 have no log files here
    :param cut: bytes after which an answer ends; 0 for never
    :param cut_visibly: whether a cut can be told from the end of the answer

    While ``page`` is not empty, the proxy answers each request for the log with this page and status 200.
    """

    def __init__(self, websocket: str = "works", ray: str = "2.47.1", cut: int = 0, cut_visibly: bool = True) -> None:
        self.websocket, self.ray, self.cut, self.cut_visibly = websocket, ray, cut, cut_visibly
        self.log = bytearray()
        self.page = ""
        self.calls: Counter[str] = Counter()
        self.sent = 0
        self.url = ""

    @asynccontextmanager
    async def api(self) -> AsyncIterator[JobsApi]:
        """Serve, with a client."""
        application = web.Application()
        application.router.add_get("/api/version", self._version)
        application.router.add_get("/api/jobs/one/logs", self._answer)
        application.router.add_get("/api/jobs/one/logs/tail", self._tail)
        if not self.ray.startswith("2.3"):
            application.router.add_get("/api/v0/logs/file", self._file)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host = f"127.0.0.1:{runner.addresses[0][1]}"
            async with Transport(FakeTokens(), Addresses(host), retry=QUICK, timeout=60) as transport:
                yield JobsApi(transport, f"http://{host}")
        finally:
            await runner.cleanup()

    async def _version(self, request: web.Request) -> web.Response:
        self.calls["version"] += 1
        return web.json_response({"version": "4", "ray_version": self.ray})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.calls["answer"] += 1
        if self.page:
            return self._paged()
        try:
            text = io.TextIOWrapper(io.BytesIO(self.log), encoding="utf-8").read()
        except UnicodeDecodeError as error:
            return web.Response(status=500, text=f"Traceback\nUnicodeDecodeError: {error}")
        return await self._send(request, json.dumps({"logs": text}).encode())

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.calls["file"] += 1
        if self.page:
            return self._paged()
        lines = int(request.query["lines"])
        start = 0
        if lines >= 0:
            start, end = len(self.log), len(self.log) - self.log.endswith(b"\n")
            for _ in range(lines):
                found = self.log.rfind(b"\n", 0, end)
                start = found + 1
                if found < 0:
                    break
                end = found
        return await self._send(request, bytes(memoryview(self.log)[start:]), "text/plain")

    def _paged(self) -> web.Response:
        self.calls["page"] += 1
        return web.Response(text=self.page, content_type="text/html")

    async def _send(self, request: web.Request, content: bytes, kind: str = "application/json") -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.content_type = kind
        await answer.prepare(request)
        cut = bool(self.cut) and len(content) > self.cut
        for place in range(0, min(len(content), self.cut) if cut else len(content), BLOCK):
            block = content[place : place + BLOCK]
            self.sent += len(block)
            await answer.write(block)
        if cut and self.cut_visibly:
            assert request.transport is not None
            request.transport.close()
        else:
            await answer.write_eof()
        return answer

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        self.calls["tail"] += 1
        if self.page:
            return self._paged()
        if self.websocket == "hangs":
            await asyncio.sleep(3600)
        if self.websocket.isdecimal():
            return web.Response(status=int(self.websocket))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        place = 0
        while True:
            if self.websocket != "silent" and place < len(self.log):
                end = min(self.log.rfind(b"\n") + 1, place + 20_000)
                await socket.send_str(bytes(self.log[place:end]).decode())
                place = end
                if place < len(self.log):
                    continue
                if self.websocket == "stalls":
                    await asyncio.sleep(3600)
            await asyncio.sleep(0.02)


async def reached(condition: object, seconds: float = PATIENCE) -> None:
    """Wait until a callable is true."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
