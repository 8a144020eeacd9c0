"""Access tokens: fetched when first needed, and renewed in the background before they expire, or after a refusal."""

from __future__ import annotations

import asyncio
import copy
import datetime
import logging
import os
import time
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec

from airflow_provider_vertex_ray.core.http.decoding import decode
from airflow_provider_vertex_ray.core.http.redact import describe
from airflow_provider_vertex_ray.errors import (
    CredentialsError,
    EmulatorError,
    ServiceUnavailableError,
    UnreadableAnswerError,
    VertexRayError,
)

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

log = logging.getLogger(__name__)

REFRESH_MARGIN = 225.0
"""Seconds before expiry at which a token is renewed; google-auth's own threshold, so that it agrees to refresh."""

RETRY_SECONDS = 10.0
"""Seconds after a failed renewal until the next one, while the token is still valid."""

LAST_SECONDS = 10.0
"""Seconds before expiry from which a token is no longer used: it must still be valid when a request arrives."""

EXPIRED_LIFETIME = 20.0
"""Seconds for which a new token is used whose expiry seems to be past: the clocks may differ."""


class TokenSource(Protocol):
    """Source of a transport's access tokens.

    ``quota_project`` is the project that requests count against, if it is not the resource's own.
    """

    quota_project: str | None

    async def get(self) -> str:
        """Return a token that is not known to be invalid.

        :raises NotAuthorisedError: the credentials give no token
        :raises ServiceUnavailableError: the server that gives tokens could not be reached
        """
        ...

    def refused(self, token: str) -> None:
        """Discard a token to which the service answered 401, so that ``get`` fetches another one."""
        ...


def for_another_loop(tokens: TokenSource) -> TokenSource:
    """Return a source with the token that another one has, for the event loop of another thread."""
    found = copy.copy(tokens)
    if isinstance(found, _RefreshingSource):
        found.belong_to_no_loop()
    return found


class _RefreshingSource:
    """Base class that runs a single renewal at a time, regardless of the number of tasks that wait for it.

    While a token is valid, nobody waits for its renewal, and a renewal that fails is retried without an error.
    """

    quota_project: str | None = None

    def __init__(self) -> None:
        self._token: str | None = None
        self._renew_at = 0.0
        self._usable_until = 0.0
        self.belong_to_no_loop()

    def belong_to_no_loop(self) -> None:
        """Forget the event loop in which tokens were renewed so far."""
        self._lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None

    async def get(self) -> str:
        if self._token is not None and time.time() < self._usable_until:
            if time.time() >= self._renew_at and (self._renewal is None or self._renewal.done()):
                self._renewal = asyncio.create_task(self._renew_early())
            return self._token
        async with self._lock:
            if self._token is None or time.time() >= self._usable_until:
                return await self._renew()
            return self._token

    def refused(self, token: str) -> None:
        if token == self._token:
            self._token = None

    async def _renew(self) -> str:
        token, lifetime = await self._fetch()
        lifetime = lifetime if lifetime > 0 else EXPIRED_LIFETIME
        now = time.time()
        # Otherwise, a token that lives shorter than the margin would be fetched for every call.
        self._renew_at = now + max(lifetime - REFRESH_MARGIN, lifetime / 2)
        self._usable_until = now + lifetime - min(LAST_SECONDS, lifetime / 10)
        self._token = token
        return token

    async def _renew_early(self) -> None:
        async with self._lock:
            if self._token is None or time.time() < self._renew_at:
                return
            try:
                await self._renew()
            except VertexRayError as error:
                self._renew_at = time.time() + RETRY_SECONDS
                log.warning(
                    "Could not renew the access token; using the current one for up to %.0f s more, and retrying: %s",
                    self._usable_until - time.time(),
                    error.message,
                )

    async def _fetch(self) -> tuple[str, float]:
        raise NotImplementedError


class CredentialsTokenSource(_RefreshingSource):
    """Tokens of Google credentials (service account, impersonation, workload identity, …).

    google-auth refreshes with blocking I/O, so this runs in a thread, and the triggerer's event loop is not blocked.

    :param credentials: the credentials
    """

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self._credentials = credentials
        self.quota_project = getattr(credentials, "quota_project_id", None)

    @property
    def account(self) -> str | None:
        """Return the e-mail address of the account, if known; a machine's credentials know it after the first token."""
        found = getattr(self._credentials, "service_account_email", None) or getattr(self._credentials, "account", None)
        return found if isinstance(found, str) and "@" in found else None

    async def _fetch(self) -> tuple[str, float]:
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.auth.transport.requests import Request

        try:
            await asyncio.to_thread(self._credentials.refresh, Request())
        except GoogleAuthError as error:
            text = f"The credentials could not be refreshed: {error}"
            if isinstance(error, TransportError) or getattr(error, "retryable", False):
                raise ServiceUnavailableError(text) from None
            raise CredentialsError(text) from None
        except (OSError, ValueError, LookupError, TypeError) as error:
            # The answer of the token server was not what google-auth expects.
            raise ServiceUnavailableError(f"The credentials could not be refreshed: {describe(error)}") from None
        token, expiry = self._credentials.token, self._credentials.expiry
        if not isinstance(token, str) or not token:
            raise CredentialsError("The credentials give no access token.")
        if not isinstance(expiry, datetime.datetime):
            return token, 3600.0
        # google-auth's expiry is naive, in UTC.
        return token, expiry.replace(tzinfo=datetime.timezone.utc).timestamp() - time.time()


class _TokenAnswer(msgspec.Struct):
    """Answer of the metadata server (https://cloud.google.com/compute/docs/access/authenticate-workloads)."""

    access_token: Annotated[str, msgspec.Meta(min_length=1)]
    expires_in: Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class EmulatorTokenSource(_RefreshingSource):
    """Tokens of the local emulator's metadata server, without Google credentials.

    :param emulator_host: ``host:port`` of the emulator
    """

    def __init__(self, emulator_host: str) -> None:
        super().__init__()
        self._host = emulator_host
        self._url = f"http://{emulator_host}/computeMetadata/v1/instance/service-accounts/default/token"

    async def _fetch(self) -> tuple[str, float]:
        import aiohttp

        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
                session.get(self._url, headers={"Metadata-Flavor": "Google"}, allow_redirects=False) as answer,
            ):
                status, content = answer.status, await answer.content.read(1 << 16)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            refused = isinstance(error, aiohttp.ClientConnectorError) and error.errno
            raise no_emulator(self._host, os.strerror(refused) if refused else describe(error)) from None
        if status in _OF_ANOTHER_SERVER:
            raise EmulatorError(_another_server(self._host, f"it answered {status} to the request for a token"))
        if status != 200:
            raise EmulatorError(f"The emulator's token server answered {status} at {self._url}.")
        try:
            found = decode(content, _TokenAnswer)
        except UnreadableAnswerError:
            # It says nothing for sure, so a wait goes on.
            text = _another_server(self._host, "its answer to the request for a token is not one")
            raise UnreadableAnswerError(text) from None
        return found.access_token, found.expires_in


_OF_ANOTHER_SERVER = frozenset({*range(300, 400), 400, 404, 405, 501})
"""Statuses that no token server answers with."""


def no_emulator(host: str, why: str) -> EmulatorError:
    """Return the error for a host that does not answer.

    :param host: value of VERTEX_RAY_EMULATOR_HOST
    :param why: what went wrong
    """
    return EmulatorError(
        f"No emulator answers at {host}, the value of VERTEX_RAY_EMULATOR_HOST ({why}). Start one with "
        f"'vertex-ray-emulator start', or set the variable to the address that 'vertex-ray-emulator status' shows; "
        "unset it to use Google Cloud."
    )


def _another_server(host: str, why: str) -> str:
    return (
        f"What answers at {host}, the value of VERTEX_RAY_EMULATOR_HOST, is not the Vertex Ray emulator: {why}. Set "
        "it to the address that 'vertex-ray-emulator status' shows, or unset it to use Google Cloud."
    )
