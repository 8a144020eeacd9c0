"""Connections of the configured sources: each is opened once, in a thread, and reopened every few minutes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.name import validate_project
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.auth import TokenSource
from airflow_provider_vertex_ray.core.http.transport import RetryPolicy, Transport
from airflow_provider_vertex_ray.plugins.page.sources import Source

LIFE = 300.0
"""Seconds after which a connection is read again, because it may have been changed in Airflow."""

LINGER = 60.0
"""Seconds for which a replaced transport stays open for calls in progress."""

ATTEMPT_SECONDS = 5.0
"""Seconds for one attempt of a read call: the page shows what it has, and retries later."""

LOOK = RetryPolicy(attempts=2, first_delay=0.2, longest_delay=1.0)


@dataclass
class Opened:
    """An open connection.

    :param transport: transport for read calls.
    :param project: the connection's project.
    :param tokens: token source for other transports.
    :param since: monotonic time at which the connection was opened.
    """

    transport: Transport
    project: str | None
    tokens: TokenSource
    since: float

    def project_of(self, source: Source) -> str:
        """Return the project of a source's clusters.

        :raises InvalidArgumentError: neither the source nor the connection names one.
        """
        return validate_project(source.project_id or self.project)

    def acting(self) -> Transport:
        """Return a transport for actions, with the usual retries; the caller must close it."""
        return Transport(self.tokens, self.transport.addresses)


class Connections:
    """The open connections of one event loop."""

    def __init__(self) -> None:
        self._opened: dict[Hashable, Opened] = {}
        self._opening: dict[Hashable, asyncio.Task[Opened]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, source: Source) -> Opened:
        """Return the connection of a source, and open it if necessary.

        :raises NotAuthorisedError: the connection has no usable credentials.
        """
        addresses = Addresses.from_environment()
        key = (source.gcp_conn_id, source.impersonation_chain, addresses)
        found = self._opened.get(key)
        if found is not None and time.monotonic() - found.since < LIFE:
            return found
        if key not in self._opening:
            # One thread per connection, however many requests wait for it, and however often they give up.
            task = self._opening[key] = asyncio.create_task(self._open(key, source, addresses))
            task.add_done_callback(lambda _: self._opening.pop(key, None))
        return await asyncio.shield(self._opening[key])

    async def close(self) -> None:
        """Close all transports."""
        tasks = {*self._opening.values(), *self._closing}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for opened in self._opened.values():
            await opened.transport.close()

    async def _open(self, key: Hashable, source: Source, addresses: Addresses) -> Opened:
        tokens, project = await asyncio.to_thread(_read_connection, source)
        before = self._opened.get(key)
        transport = Transport(tokens, addresses, retry=LOOK, timeout=ATTEMPT_SECONDS)
        self._opened[key] = Opened(transport, project, tokens, time.monotonic())
        if before is not None:
            closing = asyncio.create_task(_close_later(before.transport))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        return self._opened[key]


async def _close_later(transport: Transport) -> None:
    try:
        await asyncio.sleep(LINGER)
    finally:
        await transport.close()


def _read_connection(source: Source) -> tuple[TokenSource, str | None]:
    """Read the connection as a hook does, from the API server's secrets backends and Airflow's database."""
    from airflow_provider_vertex_ray.hooks.connection import GoogleConnection

    return GoogleConnection(source.gcp_conn_id, source.impersonation_chain).token_source_and_project()
