"""The HTTP library's sessions, the proxy on the way to Google, and the errors of broken connections."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.redact import Redactor

if TYPE_CHECKING:
    import aiohttp

__all__ = ["MAX_CONNECTIONS", "Connections", "broken"]

MAX_CONNECTIONS = 100
"""Maximum number of simultaneous connections for requests to one host, without websockets.

All clusters, the control plane and the leases share a session. With a limit for all hosts, the requests to one
dashboard that hangs would take all connections from the others. All hosts together need none: a wait has hardly more
than one request at a time, so that they take about as many file descriptors as the websockets, one for each wait."""


class Connections:
    """The sessions of one event loop; they follow no redirects of websockets, decompress nothing and keep no cookies.

    :param addresses: the services' hosts
    :param redact: learns the password of a proxy
    """

    def __init__(self, addresses: Addresses, redact: Redactor) -> None:
        self._addresses = addresses
        self._redact = redact
        self._sessions: dict[int, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close all connections."""
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()

    def session(self, limit: int) -> aiohttp.ClientSession:
        """Return the session with this maximum number of connections to each host; 0 for no limit."""
        import aiohttp

        if limit not in self._sessions:
            # Requests have a parameter for it; websockets do not.
            trace = aiohttp.TraceConfig()
            trace.on_request_redirect.append(_refuse_redirect)
            self._sessions[limit] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=limit),
                # The body is decompressed within bounds, see ``body``.
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[] if limit else [trace],
            )
        return self._sessions[limit]

    def proxy_of(self, url: str) -> str | None:
        """Return the environment's proxy for Google's hosts; None for the emulator, which runs on this machine.

        aiohttp's ``trust_env`` is not used: it also reads ``~/.netrc``, and rejects each request if an entry there
        (such as ``default``) matches the host, because the header already contains the token.
        """
        if self._addresses.emulator_host is not None:
            return None
        parts = urlsplit(url)
        if proxy_bypass(parts.hostname or ""):
            return None
        proxy = getproxies().get({"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme))
        if proxy:
            self._redact.add_proxy(proxy)
        return proxy


@functools.cache
def broken() -> tuple[type[Exception], ...]:
    """Return the types of errors of a connection or an answer that is broken; aiohttp is imported when first needed."""
    import aiohttp
    from aiohttp.http_exceptions import HttpProcessingError

    # ValueError: a redirect or a header that is not valid.
    return (aiohttp.ClientError, HttpProcessingError, asyncio.TimeoutError, OSError, ValueError, _RedirectError)


class _RedirectError(Exception):
    """A server redirected a websocket."""


async def _refuse_redirect(session: Any, context: Any, parameters: Any) -> None:
    raise _RedirectError(f"the server answered with a redirect ({parameters.response.status})")
