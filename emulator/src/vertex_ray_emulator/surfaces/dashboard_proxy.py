"""An authenticating streaming proxy for HTTP and websockets in front of the clusters' dashboards.

Each cluster's dashboard has a host name, ``<hash>-dot-<region>.aiplatform-training.googleusercontent.com``. A request
selects a dashboard by its Host header or, where the names cannot be resolved, by the first segment of its path:
``https://localhost:PORT/<host name>/api/jobs/``. :meth:`DashboardProxy.handle` serves both forms.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from vertex_ray_emulator.outcomes import as_error
from vertex_ray_emulator.surfaces.connections import cut_connection, is_disconnected, reset_connection
from vertex_ray_emulator.surfaces.dashboard_target import (
    ProxyLimits,
    Target,
    TooLargeError,
    error_response,
    timed_out,
    too_large,
)
from vertex_ray_emulator.wire.errors import unauthenticated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from vertex_ray_emulator.faults import Fault, Faults
    from vertex_ray_emulator.request_log import RequestLog
    from vertex_ray_emulator.surfaces.tokens import Tokens

DASHBOARD_DOMAIN = ".aiplatform-training.googleusercontent.com"
NO_ANSWER = 0
"""The status in the request log of a request that was not answered."""
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The token and the cookies are for the proxy; Ray's dashboard does not need them and must not log them.
_NOT_FOR_RAY = _HOP_BY_HOP | {"host", "authorization", "cookie", "expect"}
_NOT_FOR_CLIENT = _HOP_BY_HOP | {"set-cookie"}
# Close codes that are reported locally but must not be sent (RFC 6455, section 7.4.1).
_UNSENDABLE_CLOSE_CODES = frozenset({1004, 1005, 1006, 1015})
_HANG_CHECK_SECONDS = 0.1
_CLOSE_SECONDS = 5.0


@dataclass
class _Exchange:
    """A request being forwarded, with its dashboard and its fault.

    :param path: path and query for Ray, percent-encoded.
    :param prefix: the part of the request's path before it: empty or ``/<host name>``.
    :param record: records a status in the request log.
    :param fault: the fault to apply, if any.
    :param body: the body, if it had to be read before the request is forwarded.
    :param answer: the answer, once it has begun.
    :param too_large: whether the body has turned out to be too large.
    """

    request: web.Request
    target: Target
    path: str
    prefix: str
    record: Callable[[int], None]
    fault: Fault | None = None
    body: bytes | None = None
    answer: web.StreamResponse | None = None
    too_large: bool = False

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.target.port}"

    @property
    def url(self) -> URL:
        return URL(self.base + self.path, encoded=True)

    @property
    def action(self) -> str:
        return self.fault.action if self.fault is not None else ""


class DashboardProxy:
    """Forwards authorised requests to the dashboards of running clusters.

    :param targets: returns the dashboard with a host name, or None if it does not exist.
    :param tokens: the valid access tokens.
    :param faults: faults of the scopes ``auth`` and ``dashboard`` are applied.
    :param request_log: records each request: surface ``dashboard``, method such as ``GET /api/jobs/raysubmit_x``, and
        the cluster's id (or the host name, if it is unknown).
    :param limits: limits of the proxy; none by default.
    """

    def __init__(
        self,
        targets: Callable[[str], Target | None],
        tokens: Tokens,
        faults: Faults,
        request_log: RequestLog,
        limits: ProxyLimits | None = None,
    ) -> None:
        self._limits = limits or ProxyLimits()
        self._targets = targets
        self._tokens = tokens
        self._faults = faults
        self._request_log = request_log
        self._opened: aiohttp.ClientSession | None = None
        self._closing = asyncio.Event()
        self._open: dict[int, web.Request] = {}

    async def start(self) -> None:
        """Open the HTTP session for requests to the dashboards."""
        self._opened = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,  # bodies are forwarded unchanged
            trust_env=False,  # loopback addresses need no proxy
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def close(self) -> None:
        """Release hanging requests and close the HTTP session."""
        self._closing.set()
        if self._opened is not None:
            await self._opened.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            raise RuntimeError("The dashboard proxy is not started.")
        return self._opened

    def cut_all(self) -> int:
        """Reset every connection in use, websockets included, and return their number."""
        requests = list(self._open.values())
        for request in requests:
            reset_connection(request)
        return len(requests)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request (an aiohttp handler for every method and path).

        The status is 401 without a valid token, 404 for an unknown host name, 503 until the dashboard is ready, and 502
        if Ray does not answer; otherwise Ray's own answer is returned.
        """
        self._open[id(request)] = request
        try:
            return await self._serve(request)
        finally:
            del self._open[id(request)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        host, prefix, path = _route(request)
        target = self._targets(host) if host else None
        resource = target.cluster_id if target is not None else host
        method = f"{request.method} {request.path[len(prefix) :] or '/'}"

        def record(status: int, authorised: bool = True) -> None:
            self._request_log.record("dashboard", method, resource, authorised=authorised, status=status)

        if not self._tokens.accepts(request.headers.get("Authorization")):
            record(401, authorised=False)
            return error_response(unauthenticated())
        fault = self._faults.take("auth", method, resource)
        if fault is not None and fault.action == "status":
            await asyncio.sleep(fault.delay)
            refused = as_error(fault)
            record(refused.http_status, authorised=False)
            return error_response(refused)
        if fault is not None and (answer := await self._apply_fault(request, fault, record)) is not None:
            return answer
        if target is None:
            record(404)
            return web.Response(status=404, text="No cluster has this dashboard address.")
        if (early := target.not_ready()) is not None:
            record(early.status)
            return early
        limit = self._limits.request_bytes
        if limit is not None and (request.content_length or 0) > limit:
            record(413)
            return too_large()
        exchange = _Exchange(request, target, path, prefix, record)
        # Uploads are PUT requests, too large to keep in memory.
        if request.method == "POST" and self._faults.need_body():
            exchange.body = await request.read()
        exchange.fault = self._faults.take("dashboard", method, resource, body=exchange.body or b"")
        if exchange.fault is not None:
            answer = await self._apply_fault(request, exchange.fault, record)
            if answer is not None:
                return answer
        if self._limits.websockets and request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._forward_websocket(exchange)
        if self._limits.response_seconds is None:
            return await self._forward(exchange)
        try:
            return await asyncio.wait_for(self._forward(exchange), self._limits.response_seconds)
        except asyncio.TimeoutError:
            if exchange.answer is not None:
                return cut_connection(request, exchange.answer)
            record(524)
            return timed_out()

    async def _apply_fault(
        self, request: web.Request, fault: Fault, record: Callable[[int], None]
    ) -> web.StreamResponse | None:
        """Apply a fault before the request reaches Ray; return None if the request must still be forwarded."""
        if fault.action == "hang":
            record(NO_ANSWER)
            await self._hang(request, fault.delay)
            return reset_connection(request)
        if fault.delay and fault.action != "hold_response":
            await asyncio.sleep(fault.delay)
        if fault.action == "status":
            record(fault.status)
            return web.Response(status=fault.status, text=fault.message)
        if fault.action == "reset":
            record(NO_ANSWER)
            return reset_connection(request)
        return None

    async def _hang(self, request: web.Request, seconds: float) -> None:
        """Wait until the client gives up, the emulator stops, or, unless it is 0, ``seconds`` have passed."""
        until = time.monotonic() + seconds if seconds else float("inf")
        while not self._closing.is_set() and not is_disconnected(request) and time.monotonic() < until:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _HANG_CHECK_SECONDS)

    async def _forward(self, exchange: _Exchange) -> web.StreamResponse:
        request = exchange.request
        try:
            async with self._session.request(
                request.method,
                exchange.url,
                headers=_without(request.headers, _NOT_FOR_RAY),
                data=exchange.body or (self._body(exchange) if request.can_read_body else None),
                allow_redirects=False,
            ) as upstream:
                return await self._answer(exchange, upstream)
        except (aiohttp.ClientError, TooLargeError) as error:
            if exchange.too_large:
                exchange.record(413)
                return too_large()
            exchange.record(502)
            return web.Response(status=502, text=f"The dashboard does not answer: {error}")

    async def _body(self, exchange: _Exchange) -> AsyncIterator[bytes]:
        """Yield the body of a request, whose size is not known if it is sent in chunks."""
        size = 0
        async for chunk in exchange.request.content.iter_any():
            size += len(chunk)
            if self._limits.request_bytes is not None and size > self._limits.request_bytes:
                exchange.too_large = True
                raise TooLargeError
            yield chunk

    async def _answer(self, exchange: _Exchange, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        """Stream Ray's answer to the client."""
        request = exchange.request
        if exchange.action in ("drop_response", "hold_response"):
            await upstream.read()
            exchange.record(NO_ANSWER)
            if exchange.fault is not None and exchange.action == "hold_response":
                await self._hang(request, exchange.fault.delay)
            return reset_connection(request)
        exchange.record(upstream.status)
        answer = web.StreamResponse(status=upstream.status, reason=upstream.reason)
        answer.headers.extend(_without(upstream.headers, _NOT_FOR_CLIENT))
        if "Location" in answer.headers:
            answer.headers["Location"] = _rewrite_location(answer.headers["Location"], exchange)
        # On a plain request a websocket fault can only truncate the body.
        cut = exchange.action in ("truncate", "ws_abort", "ws_close")
        left = exchange.fault.after if exchange.fault is not None and cut else -1
        exchange.answer = answer
        try:
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                if cut:
                    chunk = chunk[:left]
                    left -= len(chunk)
                await answer.write(chunk)
                if cut and left <= 0:
                    break
            if cut:
                return cut_connection(request, answer)
            await answer.write_eof()
        except ConnectionError:
            pass  # the client disconnected
        except aiohttp.ClientError:
            # Ray closed the connection in the middle of its answer: the client must not take it for complete.
            return cut_connection(request, answer)
        return answer

    async def _forward_websocket(self, exchange: _Exchange) -> web.StreamResponse:
        request = exchange.request
        protocols = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if p.strip()]
        headers = {
            name: value
            for name, value in _without(request.headers, _NOT_FOR_RAY).items()
            if not name.lower().startswith("sec-websocket-")
        }
        try:
            upstream = await self._session.ws_connect(
                exchange.url, headers=headers, protocols=protocols, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError:
            # An HTTP error such as 404. Only the answer to a plain request contains its text.
            return await self._forward(exchange)
        except aiohttp.ClientError as error:
            exchange.record(502)
            return web.Response(status=502, text=f"The dashboard does not answer: {error}")
        exchange.record(101)
        client = web.WebSocketResponse(
            protocols=[upstream.protocol] if upstream.protocol else (), max_msg_size=0, compress=False
        )
        try:
            await client.prepare(request)
            back = asyncio.create_task(_pump_back(client, upstream))
            try:
                await self._pump(exchange, upstream, client)
            finally:
                # The client's close frame may still have to reach Ray.
                await asyncio.wait([back], timeout=_CLOSE_SECONDS)
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
        except ConnectionError:
            pass  # the client disconnected
        finally:
            await upstream.close()
        return client

    async def _pump(
        self, exchange: _Exchange, upstream: aiohttp.ClientWebSocketResponse, client: web.WebSocketResponse
    ) -> None:
        """Forward frames from Ray to the client until either side closes or a fault applies."""
        fault = exchange.fault if exchange.action in ("ws_abort", "ws_close", "truncate") else None
        passed = 0
        while fault is None or passed < fault.after:
            message = await upstream.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                await client.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await client.send_bytes(message.data)
            else:
                break
            passed += 1
        else:
            if fault.action == "ws_close":
                await client.close(code=1000)
            else:
                cut_connection(exchange.request, client)
            return
        if client.closed:
            return
        code = upstream.close_code or 1000
        if code == 1006:
            cut_connection(exchange.request, client)
        else:
            await client.close(code=1000 if code in _UNSENDABLE_CLOSE_CODES else code)


async def _pump_back(client: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse) -> None:
    """Forward frames and the close code from the client to Ray."""
    async for message in client:
        if message.type is aiohttp.WSMsgType.TEXT:
            await upstream.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await upstream.send_bytes(message.data)
    code = client.close_code or 1000
    await upstream.close(code=1000 if code in _UNSENDABLE_CLOSE_CODES else code)


def _route(request: web.Request) -> tuple[str, str, str]:
    """Return the dashboard's host name ("" without one), the path prefix that contains it, and the path for Ray."""
    path = request.rel_url.raw_path_qs
    first = request.rel_url.raw_path[1:].split("/", 1)[0]
    if first.endswith(DASHBOARD_DOMAIN):
        rest = path[1 + len(first) :]
        return first, f"/{first}", rest if rest.startswith("/") else f"/{rest}"
    host = request.host.rsplit(":", 1)[0].lower()
    return host if host.endswith(DASHBOARD_DOMAIN) else "", "", path


def _without(headers: Mapping[str, str], dropped: frozenset[str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in dropped and k.lower() not in named)


def _rewrite_location(location: str, exchange: _Exchange) -> str:
    """Rewrite a redirect within Ray's dashboard to the proxy's address."""
    path = location.removeprefix(exchange.base)
    return exchange.prefix + path if path.startswith("/") and not path.startswith("//") else location
