"""The address of Cloud Storage's emulator: it admits programs of this user, and limits the writes of each object.

``fake-gcs-server`` answers ``Access-Control-Allow-Origin: *`` and knows no limits. It therefore listens with TLS under
a certificate that no browser accepts, and clients reach it through this proxy.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from vertex_ray_emulator.access import guard
from vertex_ray_emulator.settings import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRITE_INTERVAL = 1.0
"""Seconds between two writes of an object: "There is an update limit on each object of once per second" (Quotas and
limits of Cloud Storage)."""
TOO_MANY_WRITES = (
    "The object {} exceeded the rate limit for object mutation operations (create, update, and delete). Please reduce "
    "your request rate. See https://cloud.google.com/storage/docs/gcs429."
)
"""Text of the service; source: its page "429 Too Many Requests" and reports of clients."""
_METADATA_BYTES = 64 * 1024
"""An upload of several parts begins with the object's metadata, of which the name is needed."""
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade"}
)
_ADDRESSES = {"Location", "X-Goog-Upload-URL", "X-Goog-Upload-Control-URL"}
_OBJECT = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)")
_DESTINATION = re.compile(r"/storage/v1/b/[^/]+/o/[^/]+/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)")
_COMPOSED = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/compose")
_UPLOAD = re.compile(r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o")
_NAME = re.compile(rb'"name"\s*:\s*("(?:[^"\\]|\\.)*")')


class WriteLimits:
    """The limit of one write a second for each object.

    :param clock: returns the time in seconds; tests may pass their own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._written: dict[str, float] = {}

    def admit(self, written: str) -> bool:
        """Return whether an object may be written now, and count the write."""
        now = self._clock()
        if now - self._written.get(written, -WRITE_INTERVAL) < WRITE_INTERVAL:
            return False
        if len(self._written) > 10_000:
            self._written = {name: at for name, at in self._written.items() if now - at < WRITE_INTERVAL}
        self._written[written] = now
        return True

    def forget(self, written: str) -> None:
        """Take back a write that changed nothing."""
        self._written.pop(written, None)


def written_object(method: str, path: str, query: dict[str, str], start: bytes) -> str | None:
    """Return the ``bucket/name`` of the object that a request writes; None for any other request.

    :param method: verb of the request.
    :param path: percent-encoded path.
    :param query: query parameters.
    :param start: beginning of the body, for uploads.
    """
    match: re.Match[str] | None
    if method == "POST" and (match := _UPLOAD.fullmatch(path)):
        name = query.get("name", "")
        if not name and (found := _NAME.search(start)):
            name = str(json.loads(found.group(1)))
        return f"{unquote(match.group(1))}/{name}" if name else None
    if method == "POST":
        match = _DESTINATION.fullmatch(path) or _COMPOSED.fullmatch(path)
    elif method in ("DELETE", "PATCH", "PUT"):
        match = _OBJECT.fullmatch(path)
    else:
        match = None
    return f"{unquote(match.group(1))}/{unquote(match.group(2))}" if match else None


class StorageGuard:
    """Proxy in front of ``fake-gcs-server``.

    :param port: port of 127.0.0.1 on which ``fake-gcs-server`` serves TLS.
    :param authority: certificate of the emulator's authority.
    :param limits: limit of writes; None for none.
    """

    def __init__(self, port: int, authority: Path, limits: WriteLimits | None) -> None:
        self._port = port
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> None:
        """Listen on a port of 127.0.0.1."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        application = web.Application(client_max_size=0, middlewares=[guard()])
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, port).start()

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        body: Any = request.content.iter_any() if request.can_read_body else None
        start = b""
        if self._limits is not None and request.method == "POST" and _UPLOAD.fullmatch(path) and body is not None:
            start, body = await _peek(request)
        written = written_object(request.method, path, dict(request.query), start) if self._limits else None
        if self._limits is not None and written is not None and not self._limits.admit(written):
            return _too_many_writes(written)
        answer = await self._forward(request, body)
        if self._limits is not None and written is not None and answer.status >= 400:
            self._limits.forget(written)
        return answer

    async def _forward(self, request: web.Request, body: Any) -> web.StreamResponse:
        if self._session is None:
            raise RuntimeError("The guard of Cloud Storage is not started.")
        url = URL(f"https://{LOOPBACK}:{self._port}{request.rel_url.raw_path_qs}", encoded=True)
        headers = _without(request.headers, lambda name: name == "origin" or name in _HOP_BY_HOP)
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as upstream:
                answer = web.StreamResponse(status=upstream.status, reason=upstream.reason)
                answer.headers.extend(
                    _without(upstream.headers, lambda n: n.startswith("access-control-") or n in _HOP_BY_HOP)
                )
                for name in _ADDRESSES & set(answer.headers):
                    # fake-gcs-server takes its own scheme for the clients'.
                    answer.headers[name] = answer.headers[name].replace("https://", "http://", 1)
                await answer.prepare(request)
                async for chunk in upstream.content.iter_any():
                    await answer.write(chunk)
                await answer.write_eof()
                return answer
        except aiohttp.ClientError as error:
            return web.Response(status=503, text=f"The emulator of Cloud Storage does not answer: {error}")


async def _peek(request: web.Request) -> tuple[bytes, Any]:
    """Return the beginning of a request's body, and all of it."""
    start = b""
    rest = request.content.iter_any()
    async for chunk in rest:
        start += chunk
        if len(start) >= _METADATA_BYTES:
            break

    async def whole() -> Any:
        yield start
        async for chunk in rest:
            yield chunk

    return start[:_METADATA_BYTES], whole()


def _without(headers: Any, dropped: Callable[[str], bool]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if not dropped(name.lower()))


def _too_many_writes(written: str) -> web.Response:
    text = TOO_MANY_WRITES.format(written)
    error = {"message": text, "domain": "usageLimits", "reason": "rateLimitExceeded"}
    return web.json_response({"error": {"code": 429, "message": text, "errors": [error]}}, status=429)
