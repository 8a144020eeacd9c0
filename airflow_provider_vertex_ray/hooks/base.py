"""The Airflow connection as the API clients need it: credentials, project, location, and one shared session."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow.providers.google.common.hooks.base_google import GoogleBaseAsyncHook, GoogleBaseHook

from airflow_provider_vertex_ray.core.cluster.name import ClusterName, parse_cluster_name
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.auth import CredentialsTokenSource, EmulatorTokenSource, TokenSource
from airflow_provider_vertex_ray.core.http.transport import Transport

T = TypeVar("T")


class VertexRayBaseHook(GoogleBaseHook):
    """The Google connection, for Ray on Vertex AI.

    :param gcp_conn_id: The Airflow connection (type ``google_cloud_platform``).
    :param impersonation_chain: Service account to act as, or a chain of them; default: the connection's.
    :param project_id: Project of the clusters; default: the connection's.
    :param location: Region of the clusters, such as ``us-central1``; a full cluster name brings its own.
    """

    def __init__(
        self,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        project_id: str | None = None,
        location: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(gcp_conn_id=gcp_conn_id, impersonation_chain=impersonation_chain, **kwargs)
        self.default_project_id = project_id
        self.default_location = location

    def token_source(self) -> TokenSource:
        """Access tokens of the connection's credentials; of the emulator's where one is set.

        Blocks: the connection's secrets may come from Secret Manager.
        """
        addresses = Addresses.from_environment()
        if addresses.emulator_host:
            return EmulatorTokenSource(addresses.emulator_host)
        credentials, _ = self.get_credentials_and_project_id()
        return CredentialsTokenSource(credentials)

    def known_project(self) -> str | None:
        """The project to use when a call names none. Blocks, as ``token_source`` does."""
        return self.default_project_id or self.connection_project()

    def connection_project(self) -> str | None:
        """The connection's project. Blocks, as ``token_source`` does."""
        named = self._get_field("project")
        if named or Addresses.from_environment().emulator_host:
            return named or None
        return self.get_credentials_and_project_id()[1]


@dataclass
class _Shared:
    """One transport and who uses it."""

    transport: Transport
    project: str | None
    users: int = 0


# Per event loop: the waits of many triggers on one connection share one session and one token.
_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, _Shared]] = weakref.WeakKeyDictionary()
_opening: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


class VertexRayBaseAsyncHook(GoogleBaseAsyncHook):
    """The Google connection for calls from an event loop; arguments as for ``VertexRayBaseHook``.

    All hooks with the same connection in one event loop use one HTTP session and one access token.
    """

    sync_hook_class = VertexRayBaseHook

    def __init__(
        self,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        project_id: str | None = None,
        location: str | None = None,
    ) -> None:
        super().__init__(
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            project_id=project_id,
            location=location,
        )
        self._project_id = project_id
        self._location = location
        chain = impersonation_chain
        self._key = (gcp_conn_id, chain if chain is None or isinstance(chain, str) else tuple(chain))

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[Transport, str | None]]:
        """The shared transport and the connection's project; closed when its last user leaves."""
        loop = asyncio.get_running_loop()
        addresses = Addresses.from_environment()
        key = (*self._key, addresses)
        users = _shared.setdefault(loop, {})
        async with _opening.setdefault(loop, asyncio.Lock()):
            if key not in users:
                hook = await self.get_sync_hook()
                from asgiref.sync import sync_to_async

                tokens = await sync_to_async(hook.token_source)()
                # Not this hook's own project: the entry is shared with hooks for other projects.
                project = await sync_to_async(hook.connection_project)()
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

    def cluster_name(self, cluster_id: str, project: str | None, location: str | None = None) -> ClusterName:
        """The cluster's full name from an id or a full name and what the hook knows.

        :raises InvalidArgumentError: The id is malformed, or project or location is missing.
        """
        return parse_cluster_name(cluster_id, project, location or self._location)


def _in_event_loop() -> bool:
    # On its own, so that what run_sync raises is not chained to this RuntimeError.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_sync(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine from synchronous code, whether or not this thread has a running event loop."""
    if not _in_event_loop():
        return asyncio.run(make())
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(asyncio.run(make()))
        except BaseException as error:  # noqa: BLE001 - handed over to the calling thread
            failure.append(error)

    thread = threading.Thread(target=work, name="vertex-ray-sync")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
