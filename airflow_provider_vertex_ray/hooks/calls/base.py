"""Base of the calls: an Airflow connection, and one HTTP session per event loop for all that use the same one."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.compat.sdk import BaseHook, conf

from airflow_provider_vertex_ray.core.cluster.name import ClusterName, parse_cluster_name
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.auth import TokenSource
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.options import SECTION, read_options_with
from airflow_provider_vertex_ray.core.threads import in_airflow_thread
from airflow_provider_vertex_ray.hooks.connection import GoogleConnection, check_connection

read_options_with(lambda name: str(conf.get(SECTION, name, fallback="")))


@dataclass
class _Shared:
    """A transport, its project, and the number of its users."""

    transport: Transport
    project: str | None
    users: int = 0


# By event loop: many triggers that use one connection share one session and one token.
_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, _Shared]] = weakref.WeakKeyDictionary()
_opening: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


class BaseCalls(BaseHook):
    """Base of the calls that operators and triggers make.

    All objects with the same connection share one HTTP session and one access token within an event loop.

    :param gcp_conn_id: Airflow connection to Google Cloud (type ``google_cloud_platform``).
    :param impersonation_chain: Service account to impersonate, or a chain of them; default: the connection's.
    :param project_id: Google Cloud project of the clusters; default: the connection's.
    :param location: region of the clusters, such as ``us-central1``; not needed for full resource names.
    :raises InvalidArgumentError: the connection's id or the impersonation chain is not text.
    """

    def __init__(
        self,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        project_id: str | None = None,
        location: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_connection(gcp_conn_id, impersonation_chain)
        super().__init__(**kwargs)
        self._project_id = project_id
        self._location = location
        chain = impersonation_chain
        self._connection = (gcp_conn_id, impersonation_chain)
        self._key = (gcp_conn_id, chain if chain is None or isinstance(chain, str) else tuple(chain))

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[Transport, str | None]]:
        """Open the shared transport, and yield it with the project; it is closed when its last user leaves."""
        loop = asyncio.get_running_loop()
        addresses = Addresses.from_environment()
        key = (*self._key, addresses)
        users = _shared.setdefault(loop, {})
        async with _opening.setdefault(loop, asyncio.Lock()):
            if key not in users:
                tokens, project = await in_airflow_thread(self._token_source_and_project)
                users[key] = _Shared(Transport(tokens, addresses), project)
            entry = users[key]
            entry.users += 1
        try:
            yield entry.transport, self._project_id or entry.project
        finally:
            entry.users -= 1
            if entry.users == 0:
                del users[key]
                await entry.transport.close()

    def _token_source_and_project(self) -> tuple[TokenSource, str | None]:
        # Not this object's own project: the entry is shared with those for other projects.
        return GoogleConnection(*self._connection).token_source_and_project()

    def cluster_name(
        self, cluster_id: str | ClusterName, project: str | None, location: str | None = None
    ) -> ClusterName:
        """Return the cluster's full resource name.

        :param cluster_id: id, or full resource name.
        :param project: project for an id.
        :param location: region for an id; default: the hook's.
        :raises InvalidArgumentError: the id is malformed, or the project or region is missing.
        """
        return parse_cluster_name(cluster_id, project, location or self._location)
