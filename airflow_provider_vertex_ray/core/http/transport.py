"""HTTP transport of all clients: access tokens and their refresh, retries, timeouts, and typed errors."""

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
"""HTTP statuses after which a repeated request may succeed; a dashboard's front end answers 524 while Ray starts."""

MAX_CONNECTIONS = 100
"""Maximum number of simultaneous connections for requests, without websockets."""

ErrorFrom = Callable[[int, str], VertexRayError]
"""Returns the typed error for an HTTP status and the body of an answer."""


@dataclass(frozen=True)
class RetryPolicy:
    """Retry policy of calls that may be repeated.

    :param attempts: total number of attempts
    :param first_delay: seconds before the second attempt; doubles with each further attempt, with jitter
    :param longest_delay: maximum number of seconds between two attempts, also for the server's Retry-After
    """

    attempts: int = 6
    first_delay: float = 0.5
    longest_delay: float = 20.0

    def delay(self, failures: int, retry_after: str | None) -> float:
        """Return the seconds to wait before the next attempt.

        :param failures: number of failed attempts
        :param retry_after: value of the server's Retry-After header, if there is one
        """
        if retry_after is not None and retry_after.isdigit():
            return min(float(retry_after), self.longest_delay)
        ceiling: float = min(self.first_delay * 2 ** (failures - 1), self.longest_delay)
        return ceiling * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, not a secret


@dataclass(frozen=True)
class Answer:
    """A complete answer.

    :param status: HTTP status
    :param text: body
    :param headers: headers, by lower-case name
    """

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Return the body as JSON; an empty body is an empty object.

        :raises ServiceError: the body is not JSON, such as a login page, or was truncated at ``max_bytes``
        """
        try:
            return json.loads(self.text) if self.text.strip() else {}
        except ValueError as error:
            raise ServiceError(
                f"The service answered {self.status} with something that is not JSON: {self.text[:200]!r}"
            ) from error


class Transport:
    """Sends requests to the services within one event loop; use it with ``async with``, or call ``close``.

    :param tokens: source of the access tokens
    :param addresses: the services' hosts; the token is sent to no other host
    :param retry: retry policy of calls that may be repeated
    :param timeout: seconds for one attempt of one call
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
        """Return the e-mail address of the account, if it is known; it may be known only after the first token."""
        return getattr(self._tokens, "account", None)

    async def authenticate(self) -> None:
        """Get a token without calling any service.

        :raises NotAuthorisedError: the credentials give no token
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

        :param method: HTTP method
        :param url: full URL
        :param error_from: returns the error for an answer with a status of 300 or above
        :param params: query parameters
        :param body: request body, sent as JSON
        :param data: returns the raw request body; called for each attempt, because an open file can be read only once
        :param content_type: content type of the raw body
        :param repeatable: whether an attempt with an unknown outcome may be repeated. A 401 is always followed by an
            attempt with a new token, because the rejected request had no effect.
        :param attempts: total number of attempts, instead of the policy's
        :param timeout: seconds for one attempt
        :param max_bytes: length at which an answer is truncated, to limit the use of memory
        :raises ServiceUnavailableError: there was no answer, even to the last attempt
        :raises VertexRayError: the error that ``error_from`` returned for the last answer
        :raises InvalidArgumentError: the URL may not receive the token
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
                    raise ServiceUnavailableError(f"{method} {url} was not answered: {error!r}") from error
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
        """GET an answer of any length, in pieces; a single attempt, and another one with a new token after a 401.

        :param url: full URL
        :param error_from: returns the error for an answer with a status of 300 or above
        :param quiet: seconds without a piece after which the connection counts as lost
        :raises ServiceUnavailableError: there is no answer, or (while the pieces are read) only a part of it
        :raises VertexRayError: the error that ``error_from`` returned for the answer
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
                    raise ServiceUnavailableError(f"GET {url} was not answered: {error!r}") from error
                if response.status == 401 and not renewed:
                    self._tokens.refused(token)
                    continue
                if response.status >= 300:
                    raise error_from(response.status, failed)
                yield _pieces(response)
                return

    @contextlib.asynccontextmanager
    async def websocket(self, url: str, *, error_from: ErrorFrom) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a websocket; a single attempt, and another one with a new token after a 401.

        :param url: full URL
        :param error_from: returns the error for an answer with a status of 300 or above
        :raises ServiceUnavailableError: the connection could not be opened
        :raises VertexRayError: the error that ``error_from`` returned for the answer
        """
        import aiohttp

        connection: aiohttp.ClientWebSocketResponse | None = None
        for renewed in (False, True):
            token = await self._token_for(url)
            try:
                # Each waiting job holds a websocket: with a limit, no connections would be left for requests.
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
                raise ServiceUnavailableError(f"Could not open websocket {url}: {error!r}") from error
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
                "Use a host of Google's APIs, a cluster's dashboard or the emulator; no other host receives a token.",
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
            # A redirect could send the token to another host.
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
        """Wait as long as the retry policy requires, for callers that check the outcome before they try again.

        :param failures: number of failed attempts
        """
        await asyncio.sleep(self._retry.delay(failures, None))

    async def _pause(self, method: str, url: str, why: str, failures: int, retry_after: str | None) -> None:
        delay = self._retry.delay(failures, retry_after)
        log.info("%s %s failed (%s); retrying in %.1f s", method, url, why, delay)
        await asyncio.sleep(delay)

    def _session(self, limit: int) -> aiohttp.ClientSession:
        import aiohttp

        if limit not in self._sessions:
            self._sessions[limit] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit))
        return self._sessions[limit]

    def _proxy_of(self, url: str) -> str | None:
        """Return the environment's proxy for Google's hosts; None for the emulator, which runs on this machine.

        aiohttp's ``trust_env`` is not used: it also reads ``~/.netrc``, and rejects each request if an entry there
        (such as ``default``) matches the host, because the header already contains the token.
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
        raise ServiceUnavailableError(f"The answer to GET {response.url} is incomplete: {error!r}") from error
