"""Access tokens: fetched when first needed, and refreshed before they expire or after they were rejected."""

from __future__ import annotations

import asyncio
import datetime
import time
from typing import TYPE_CHECKING, Protocol

from airflow_provider_vertex_ray.errors import NotAuthorisedError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

REFRESH_MARGIN = 225.0
"""Seconds before expiry at which a token is renewed; google-auth's own threshold, so that it agrees to refresh."""


class TokenSource(Protocol):
    """Source of a transport's access tokens.

    ``quota_project`` is the project that requests count against, if it is not the resource's own.
    """

    quota_project: str | None

    async def get(self) -> str:
        """Return a token that is not known to be invalid.

        :raises NotAuthorisedError: the credentials give no token
        """
        ...

    def refused(self, token: str) -> None:
        """Discard a token to which the service answered 401, so that ``get`` fetches another one."""
        ...


class _RefreshingSource:
    """Base class that runs a single refresh at a time, regardless of the number of tasks that wait for it."""

    quota_project: str | None = None

    def __init__(self) -> None:
        self._token: str | None = None
        self._renew_at = 0.0
        self._lock = asyncio.Lock()

    async def get(self) -> str:
        if self._token is not None and time.time() < self._renew_at:
            return self._token
        async with self._lock:
            if self._token is None or time.time() >= self._renew_at:
                self._token, lifetime = await self._fetch()
                # Otherwise, a token that lives shorter than the margin would be fetched for every call.
                self._renew_at = time.time() + max(lifetime - REFRESH_MARGIN, lifetime / 2)
            return self._token

    def refused(self, token: str) -> None:
        if token == self._token:
            self._token = None

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
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        try:
            await asyncio.to_thread(self._credentials.refresh, Request())
        except GoogleAuthError as error:
            raise NotAuthorisedError(f"The credentials could not be refreshed: {error}") from error
        expiry: datetime.datetime | None = self._credentials.expiry
        if expiry is None:
            return self._credentials.token, 3600.0
        # google-auth's expiry is naive, in UTC.
        return self._credentials.token, expiry.replace(tzinfo=datetime.timezone.utc).timestamp() - time.time()


class EmulatorTokenSource(_RefreshingSource):
    """Tokens of the local emulator's metadata server, without Google credentials.

    :param emulator_host: ``host:port`` of the emulator
    """

    def __init__(self, emulator_host: str) -> None:
        super().__init__()
        self._url = f"http://{emulator_host}/computeMetadata/v1/instance/service-accounts/default/token"

    async def _fetch(self) -> tuple[str, float]:
        import aiohttp

        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
                session.get(self._url, headers={"Metadata-Flavor": "Google"}) as answer,
            ):
                if answer.status != 200:
                    raise NotAuthorisedError(f"The emulator's token server answered {answer.status} at {self._url}.")
                body = await answer.json()
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise NotAuthorisedError(
                f"The emulator at {self._url} does not respond ({error!r}). Start it with 'vertex-ray-emulator start', "
                "or unset VERTEX_RAY_EMULATOR_HOST."
            ) from error
        return str(body["access_token"]), float(body["expires_in"])
