"""One HTTP session for all calls: the token, its refresh, retries, deadlines, and errors with a type."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.errors import (
    InvalidArgumentError,
    ServiceError,
    ServiceUnavailableError,
    VertexRayError,
)

if TYPE_CHECKING:
    import aiohttp

    from airflow_provider_vertex_ray.core.http.auth import TokenSource

log = logging.getLogger(__name__)

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 524})
"""Answers after which the same request may do better. 524 is what a dashboard's front end gives while Ray starts."""

MAX_CONNECTIONS = 100
"""Connections for requests at a time; websockets are not counted."""

ErrorFrom = Callable[[int, str], VertexRayError]
"""Turns an HTTP status and the answer's body into a typed error."""


@dataclass(frozen=True)
class RetryPolicy:
    """How a call that may be repeated is repeated.

    :param attempts: Tries in all.
    :param first_delay: Seconds before the second try; doubles from then on, with full jitter.
    :param longest_delay: Cap for a delay, in seconds; also for the server's Retry-After.
    """

    attempts: int = 6
    first_delay: float = 0.5
    longest_delay: float = 20.0

    def delay(self, failures: int, retry_after: str | None) -> float:
        """Seconds to wait after so many failures."""
        if retry_after is not None and retry_after.isdigit():
            return min(float(retry_after), self.longest_delay)
        ceiling: float = min(self.first_delay * 2 ** (failures - 1), self.longest_delay)
        return ceiling * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True)
class Answer:
    """A complete answer.

    :param headers: By their lower-case names.
    """

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The body as JSON; an empty body is an empty object.

        :raises ServiceError: It is something else, such as a login page, or was cut at ``max_bytes``.
        """
        try:
            return json.loads(self.text) if self.text.strip() else {}
        except ValueError as error:
            raise ServiceError(
                f"The service answered {self.status} with something that is not JSON: {self.text[:200]!r}"
            ) from error


class Transport:
    """Sends requests to the service; belongs to one event loop. Use as ``async with``, or call ``close``.

    :param tokens: Where access tokens come from.
    :param addresses: Which hosts are the service; the token goes nowhere else.
    :param retry: How calls that may be repeated are repeated.
    :param timeout: Seconds for one try of one call.
    """

    def __init__(
        self,
        tokens: TokenSource,
        addresses: Addresses,
        *,
        retry: RetryPolicy | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.addresses = addresses
        self._tokens = tokens
        self._retry = retry or RetryPolicy()
        self._timeout = timeout
        self._sessions: dict[int, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def account(self) -> str | None:
        """E-mail of the account that the tokens are for, as far as that is known once there was one."""
        return getattr(self._tokens, "account", None)

    async def authenticate(self) -> None:
        """Get a token, without asking any service.

        :raises NotAuthorisedError: The credentials give none.
        """
        await self._tokens.get()

    async def close(self) -> None:
        """Close all connections."""
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        error_from: ErrorFrom,
        params: dict[str, str] | None = None,
        body: Any = None,
        data: Callable[[], Any] | None = None,
        content_type: str | None = None,
        repeatable: bool = True,
        attempts: int | None = None,
        timeout: float | None = None,
        max_bytes: int = 64 << 20,
    ) -> Answer:
        """Send a request and return its complete answer.

        :param error_from: Makes the error of an answer of 300 or above.
        :param body: Sent as JSON.
        :param data: Makes the raw body for each try anew (an open file can be read only once).
        :param content_type: What the raw body is.
        :param repeatable: Whether a try whose outcome is unknown may be repeated. A 401 is always tried once more, with
            a new token, because a refused request did nothing.
        :param attempts: Tries in all, if not the policy's.
        :param timeout: Seconds for one try.
        :param max_bytes: An answer longer than this is cut there, so that memory stays bounded.
        :raises ServiceUnavailableError: No answer came, after the last try.
        :raises VertexRayError: What ``error_from`` made of the last answer.
        """
        import aiohttp

        tries = (attempts or self._retry.attempts) if repeatable else 1
        failures = 0
        renewed = False
        while True:
            token = await self._token_for(url)
            try:
                answer, retry_after = await self._send(
                    method, url, token, params, body, data, content_type, timeout, max_bytes
                )
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                failures += 1
                if failures >= tries:
                    raise ServiceUnavailableError(f"{method} {url} got no answer: {error!r}") from error
                await self._pause(method, url, repr(error), failures, None)
                continue
            if answer.status == 401 and not renewed:
                renewed = True
                self._tokens.refused(token)
                continue
            if answer.status < 300:
                return answer
            failures += 1
            if answer.status not in TRANSIENT or failures >= tries:
                raise error_from(answer.status, answer.text)
            await self._pause(method, url, f"status {answer.status}", failures, retry_after)

    @contextlib.asynccontextmanager
    async def stream(
        self, url: str, *, error_from: ErrorFrom, quiet: float = 90.0
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET an answer of any length, in pieces; one try, and one more with a new token after a 401.

        :param quiet: Seconds without a piece after which the connection counts as lost.
        :raises ServiceUnavailableError: No answer, or (while the pieces are read) not all of it.
        :raises VertexRayError: What ``error_from`` made of the answer.
        """
        import aiohttp

        for renewed in (False, True):
            token = await self._token_for(url)
            request = self._session(MAX_CONNECTIONS).get(
                url,
                proxy=self._proxy_of(url),
                headers=self._headers(token),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=quiet),
            )
            async with contextlib.AsyncExitStack() as stack:
                try:
                    response = await stack.enter_async_context(request)
                    failed = (
                        "" if response.status < 300 else (await response.content.read(1 << 16)).decode(errors="replace")
                    )
                except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                    raise ServiceUnavailableError(f"GET {url} got no answer: {error!r}") from error
                if response.status == 401 and not renewed:
                    self._tokens.refused(token)
                    continue
                if response.status >= 300:
                    raise error_from(response.status, failed)
                yield _pieces(response)
                return

    @contextlib.asynccontextmanager
    async def websocket(self, url: str, *, error_from: ErrorFrom) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a websocket; one try, and one more with a new token after a 401.

        :raises ServiceUnavailableError: No connection.
        """
        import aiohttp

        connection: aiohttp.ClientWebSocketResponse | None = None
        for renewed in (False, True):
            token = await self._token_for(url)
            try:
                # Each waiting job holds a websocket: with a limit, they would take the connections from all requests.
                connection = await self._session(0).ws_connect(
                    url,
                    proxy=self._proxy_of(url),
                    headers=self._headers(token),
                    heartbeat=30.0,
                    max_msg_size=16 << 20,
                    timeout=aiohttp.ClientWSTimeout(ws_close=5.0),
                )
                break
            except aiohttp.WSServerHandshakeError as error:
                if error.status == 401 and not renewed:
                    self._tokens.refused(token)
                    continue
                raise error_from(error.status, error.message) from error
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                raise ServiceUnavailableError(f"websocket {url} could not be opened: {error!r}") from error
        assert connection is not None  # noqa: S101 - the loop breaks or raises
        try:
            yield connection
        finally:
            await connection.close()

    def _headers(self, token: str) -> dict[str, str]:
        quota_project = self._tokens.quota_project
        return {
            "Authorization": f"Bearer {token}",
            **({"X-Goog-User-Project": quota_project} if quota_project else {}),
        }

    async def _token_for(self, url: str) -> str:
        if not self.addresses.token_may_go_to(url):
            raise InvalidArgumentError(
                "url",
                url,
                "an access token goes to Google's API hosts, a cluster's dashboard or the emulator only",
            )
        return await self._tokens.get()

    async def _send(
        self,
        method: str,
        url: str,
        token: str,
        params: dict[str, str] | None,
        body: Any,
        data: Callable[[], Any] | None,
        content_type: str | None,
        timeout: float | None,
        max_bytes: int,
    ) -> tuple[Answer, str | None]:
        import aiohttp

        async with self._session(MAX_CONNECTIONS).request(
            method,
            url,
            proxy=self._proxy_of(url),
            params=params,
            json=body,
            data=data() if data else None,
            headers={**self._headers(token), **({"Content-Type": content_type} if content_type else {})},
            # A redirect could carry the token to another host.
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout or self._timeout),
        ) as response:
            raw = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                raw += chunk
                if len(raw) >= max_bytes:
                    break
            text = raw[:max_bytes].decode(response.charset or "utf-8", "replace")
            headers = {key.lower(): value for key, value in response.headers.items()}
            return Answer(response.status, text, headers), response.headers.get("Retry-After")

    async def back_off(self, failures: int) -> None:
        """Wait as the retry policy says after so many failures; for callers that look before they try again."""
        await asyncio.sleep(self._retry.delay(failures, None))

    async def _pause(self, method: str, url: str, why: str, failures: int, retry_after: str | None) -> None:
        delay = self._retry.delay(failures, retry_after)
        log.info("%s %s: %s; trying again in %.1f s", method, url, why, delay)
        await asyncio.sleep(delay)

    def _session(self, limit: int) -> aiohttp.ClientSession:
        import aiohttp

        if limit not in self._sessions:
            self._sessions[limit] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit))
        return self._sessions[limit]

    def _proxy_of(self, url: str) -> str | None:
        """The environment's proxy for Google's hosts; the emulator is on this machine.

        Not aiohttp's ``trust_env``: that also reads ``~/.netrc``, and refuses each request when an entry there (such as
        ``default``) fits the host, because the token is in the header already.
        """
        if self.addresses.emulator_host is not None:
            return None
        parts = urlsplit(url)
        if proxy_bypass(parts.hostname or ""):
            return None
        return getproxies().get({"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme))


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    import aiohttp

    try:
        async for piece in response.content.iter_chunked(1 << 16):
            yield piece
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
        raise ServiceUnavailableError(f"GET {response.url} gave only a part of its answer: {error!r}") from error
