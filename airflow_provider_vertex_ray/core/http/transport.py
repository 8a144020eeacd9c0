"""HTTP transport of all clients: access tokens and their refresh, retries, timeouts, and typed answers and errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.body import (
    ACCEPTED_ENCODING,
    TooLargeError,
    beginning,
    pieces_of,
    whole_body,
)
from airflow_provider_vertex_ray.core.http.connections import MAX_CONNECTIONS, Connections, broken
from airflow_provider_vertex_ray.core.http.decoding import MAX_JSON_BYTES, check_shape, decode_off_loop
from airflow_provider_vertex_ray.core.http.raw_body import raw_body
from airflow_provider_vertex_ray.core.http.redact import Redactor, describe
from airflow_provider_vertex_ray.core.http.retry import TRANSIENT, RefusalGrace, RetryPolicy
from airflow_provider_vertex_ray.errors import (
    InvalidArgumentError,
    InvalidRequestError,
    NotAuthorisedError,
    ServiceUnavailableError,
    UnreadableAnswerError,
    VertexRayError,
)

if TYPE_CHECKING:
    import aiohttp

    from airflow_provider_vertex_ray.core.http.auth import TokenSource

__all__ = ["Answer", "ErrorFrom", "RetryPolicy", "Transport"]

log = logging.getLogger(__name__)

LONGEST_EXCERPT = 200
"""Characters of an unreadable answer that are quoted."""

TOKEN = "a token"  # noqa: S105 - not a token, but the name of the call that gets one
"""What ``RefusalGrace`` remembers token requests by."""

ErrorFrom = Callable[[int, str], VertexRayError]
"""Returns the typed error for an HTTP status and the body of an answer."""

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """A complete answer.

    :param status: HTTP status
    :param content: body
    :param headers: headers, by lower-case name
    """

    status: int
    content: bytes | bytearray | str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return the body as text; bytes that are not UTF-8 are replaced."""
        return self.content if isinstance(self.content, str) else self.content.decode("utf-8", "replace")


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
        self.redact = Redactor()
        """Takes the tokens that were sent to a server out of the texts that it sends."""
        self._connections = Connections(addresses, self.redact)
        self._grace = RefusalGrace()

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

    def for_another_loop(self) -> Transport:
        """Return a transport with this one's token, for the event loop of another thread."""
        from airflow_provider_vertex_ray.core.http.auth import for_another_loop

        return Transport(for_another_loop(self._tokens), self.addresses, retry=self._retry, timeout=self._timeout)

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()

    async def request(self, method: str, url: str, **options: Any) -> Answer:
        """Send a request and return its complete answer; the options are those of ``read``."""

        async def accept(answer: Answer) -> Answer:
            return answer

        return await self._ask(accept, method, url, **options)

    async def read(
        self,
        kind: type[T],
        method: str,
        url: str,
        *,
        error_from: ErrorFrom,
        shape: Any = None,
        max_bytes: int = MAX_JSON_BYTES,
        **options: Any,
    ) -> T:
        """Send a request and return its JSON answer as an instance of its model.

        An answer that cannot be read, such as a proxy's page, is treated like no answer: the request is repeated.

        :param kind: the model of the answer, see ``decoding.decode``
        :param method: HTTP method
        :param url: full URL
        :param error_from: returns the error for an answer with a status of 300 or above
        :param shape: a model that the answer must fit as well; for a ``kind`` that keeps the whole content
        :param max_bytes: maximum size of the answer, before and after decompression
        :param params: query parameters
        :param body: request body, sent as JSON
        :param data: returns the raw request body; called for each attempt, because an open file can be read only once
        :param content_type: content type of the raw body
        :param repeatable: whether an attempt with an unknown outcome may be repeated. A 401 is always followed by an
            attempt with a new token, because the rejected request had no effect.
        :param attempts: total number of attempts, instead of the policy's
        :param timeout: seconds for one attempt
        :raises ServiceUnavailableError: there was no answer, even to the last attempt
        :raises UnreadableAnswerError: the last answer could not be read, is a redirect, or refuses a call that had
            worked a short time ago
        :raises VertexRayError: the error that ``error_from`` returned for the last answer
        :raises InvalidArgumentError: the URL may not receive the token
        """

        async def accept(answer: Answer) -> T:
            found = await decode_off_loop(answer.content, kind)
            if shape is not None:
                check_shape(found, shape)
            return found

        return await self._ask(accept, method, url, error_from=error_from, max_bytes=max_bytes, **options)

    async def _ask(
        self,
        accept: Callable[[Answer], Awaitable[T]],
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
        max_bytes: int = MAX_JSON_BYTES,
    ) -> T:
        tries = (attempts or self._retry.attempts) if repeatable else 1
        # Only what may be repeated may also be waited out.
        call = f"{method} {url.partition('?')[0]}" if repeatable else ""
        failures = 0
        renewed = False
        while True:
            token = await self._token_for(url)
            answer: Answer | None = None
            try:
                answer, retry_after = await self._send(
                    method, url, token, params, body, data, content_type, timeout, max_bytes
                )
                if answer.status < 300:
                    found = await accept(answer)
                    self._grace.worked(call)
                    return found
            except UnreadableAnswerError as error:
                failures += 1
                if failures >= tries or isinstance(error, TooLargeError):
                    raise self._unreadable(method, url, error, answer) from None
                await self._pause(method, url, error.message, failures, None)
                continue
            except broken() as error:
                failures += 1
                why = self.redact(describe(error))
                if failures >= tries:
                    # Not chained: the library's error contains the request's headers.
                    raise ServiceUnavailableError(
                        f"{method} {url} was not answered: {why}{self._emulator_hint(error)}"
                    ) from None
                await self._pause(method, url, why, failures, None)
                continue
            if answer.status == 401 and not renewed:
                renewed = True
                self._tokens.refused(token)
                continue
            failures += 1
            if answer.status not in TRANSIENT or failures >= tries:
                raise self._refusal(call, error_from, answer.status, answer.text)
            await self._pause(method, url, f"status {answer.status}", failures, retry_after)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        error_from: ErrorFrom,
        quiet: float = 90.0,
        timeout: float | None = None,
        max_bytes: int | None = None,
        accept: str | None = None,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET an answer of any length, in pieces; a single attempt, and another one with a new token after a 401.

        :param url: full URL
        :param error_from: returns the error for an answer with a status of 300 or above
        :param quiet: seconds without a piece after which the connection counts as lost
        :param timeout: seconds for the whole answer; None for no limit
        :param max_bytes: maximum size of the answer, before and after decompression; None for no limit
        :param accept: content type of the answer, for one whose body does not tell; None for any
        :raises ServiceUnavailableError: there is no answer, or (while the pieces are read) only a part of it
        :raises UnreadableAnswerError: the answer refuses a call that had worked a short time ago, has another content
            type, or (while the pieces are read) is too large, or damaged
        :raises VertexRayError: the error that ``error_from`` returned for the answer
        """
        import aiohttp

        call = f"GET {url.partition('?')[0]}"
        for renewed in (False, True):
            token = await self._token_for(url)
            request = self._connections.session(MAX_CONNECTIONS).get(
                url,
                proxy=self._connections.proxy_of(url),
                headers=self._headers(token),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=30, sock_read=quiet),
            )
            async with contextlib.AsyncExitStack() as stack:
                try:
                    response = await stack.enter_async_context(request)
                    failed = b"" if response.status < 300 else await beginning(response)
                except broken() as error:
                    why = self.redact(describe(error))
                    raise ServiceUnavailableError(f"GET {url} was not answered: {why}") from None
                if response.status == 401 and not renewed:
                    self._tokens.refused(token)
                    continue
                if response.status >= 300:
                    text = self.redact.content(failed).decode("utf-8", "replace")
                    raise self._refusal(call, error_from, response.status, text)
                if accept not in (None, response.content_type):
                    raise UnreadableAnswerError(f"The answer to {call} is not {accept}, but probably a proxy's page.")
                yield self._pieces(response, max_bytes, call)
                return

    @contextlib.asynccontextmanager
    async def websocket(self, url: str, *, error_from: ErrorFrom) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a websocket; a single attempt, and another one with a new token after a 401. Redirects are not followed.

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
                connection = await self._connections.session(0).ws_connect(
                    url,
                    proxy=self._connections.proxy_of(url),
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
                raise self._refusal("", error_from, error.status, self.redact(error.message)) from None
            except broken() as error:
                raise ServiceUnavailableError(
                    f"Could not open websocket {url}: {self.redact(describe(error))}"
                ) from None
        assert connection is not None  # noqa: S101 - the loop breaks or raises
        try:
            yield connection
        finally:
            # What goes wrong while it closes is of no interest, and would hide the reason for closing.
            with contextlib.suppress(*broken()):
                await connection.close()

    def _headers(self, token: str) -> dict[str, str]:
        quota_project = self._tokens.quota_project
        return {
            "Authorization": f"Bearer {token}",
            "Accept-Encoding": ACCEPTED_ENCODING,
            **({"X-Goog-User-Project": quota_project} if quota_project else {}),
        }

    async def _token_for(self, url: str) -> str:
        if not self.addresses.token_may_go_to(url):
            raise InvalidArgumentError(
                "url",
                url,
                "Use a host of Google's APIs, a cluster's dashboard or the emulator; no other host receives a token.",
            )
        try:
            token = await self._tokens.get()
        except NotAuthorisedError as error:
            if not self._grace.tolerates(TOKEN):
                raise
            raise ServiceUnavailableError(self.redact(error.message), error.details) from None
        self._grace.worked(TOKEN)
        self.redact.add(token)
        return token

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

        async with self._connections.session(MAX_CONNECTIONS).request(
            method,
            url,
            proxy=self._connections.proxy_of(url),
            params=params,
            json=body,
            data=raw_body(data) if data else None,
            headers={**self._headers(token), **({"Content-Type": content_type} if content_type else {})},
            # A redirect could send the token to another host.
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout or self._timeout),
        ) as response:
            content = await whole_body(response, max_bytes) if response.status < 300 else await beginning(response)
            headers = {key.lower(): value for key, value in response.headers.items()}
            return Answer(response.status, self.redact.content(content), headers), response.headers.get("Retry-After")

    def _emulator_hint(self, error: Exception) -> str:
        """Return what to check when no connection to the emulator can be opened."""
        import aiohttp

        if self.addresses.emulator_host is None or not isinstance(error, aiohttp.ClientConnectorError):
            return ""
        return (
            f". VERTEX_RAY_EMULATOR_HOST is {self.addresses.emulator_host}; check with 'vertex-ray-emulator status' "
            "that the emulator is still running there."
        )

    def _unreadable(
        self, method: str, url: str, error: UnreadableAnswerError, answer: Answer | None
    ) -> UnreadableAnswerError:
        """Return the error for an answer that could not be read, with the beginning of a page that is not JSON."""
        start = answer.text[:LONGEST_EXCERPT].strip() if answer else ""
        # JSON is not quoted: it may contain what users give their jobs, such as passwords.
        quote = f" It begins with: {self.redact(start)!r}" if start[:1] == "<" else ""
        details = {**error.details, **({"http_status": answer.status} if answer else {})}
        text = f"The answer to {method} {url} could not be read. {error.message}{quote}"
        return type(error)(text, details)

    def _refusal(self, call: str, error_from: ErrorFrom, status: int, text: str) -> VertexRayError:
        """Return the error for an answer with a status of 300 or above."""
        if status < 400:
            # Such as the way to a login page; following it could send the token to another host.
            return UnreadableAnswerError(f"The service answered with a redirect ({status}).", {"http_status": status})
        error = error_from(status, text)
        refused = isinstance(error, NotAuthorisedError) or (
            isinstance(error, InvalidRequestError) and call.startswith("GET ")
        )
        if call and refused and self._grace.tolerates(call):
            return UnreadableAnswerError(f"{error.message} (the same call had worked before)", error.details)
        return error

    async def _pieces(self, response: aiohttp.ClientResponse, max_bytes: int | None, call: str) -> AsyncIterator[bytes]:
        try:
            async for piece in pieces_of(response, max_bytes):
                yield piece
        except broken() as error:
            raise ServiceUnavailableError(
                f"The answer to GET {response.url} is incomplete: {self.redact(describe(error))}"
            ) from None
        # Not before: half an answer does not show that the call works.
        self._grace.worked(call)

    async def back_off(self, failures: int) -> None:
        """Wait as long as the retry policy requires, for callers that check the outcome before they try again.

        :param failures: number of failed attempts
        """
        await asyncio.sleep(self._retry.delay(failures, None))

    async def _pause(self, method: str, url: str, why: str, failures: int, retry_after: str | None) -> None:
        delay = self._retry.delay(failures, retry_after)
        log.info("%s %s failed (%s); retrying in %.1f s", method, url, why, delay)
        await asyncio.sleep(delay)
