"""Base of the hooks: the Airflow connection's credentials, project and location, and one HTTP session per event loop.

Each API call is written once, as a coroutine of an asynchronous hook. The synchronous hooks list the same calls with
``sync_of``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, cast

from airflow.providers.common.compat.sdk import conf
from airflow.providers.google.common.hooks.base_google import GoogleBaseAsyncHook, GoogleBaseHook

from airflow_provider_vertex_ray.core.cluster.name import ClusterName, parse_cluster_name
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.auth import CredentialsTokenSource, EmulatorTokenSource, TokenSource
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.options import SECTION, read_options_with
from airflow_provider_vertex_ray.core.threads import in_airflow_thread
from airflow_provider_vertex_ray.errors import InvalidArgumentError

read_options_with(lambda name: str(conf.get(SECTION, name, fallback="")))

T = TypeVar("T")
P = ParamSpec("P")
A = TypeVar("A", bound="VertexRayBaseAsyncHook")


def check_connection(gcp_conn_id: object, impersonation_chain: object) -> None:
    """Validate what names the credentials, before anything is asked for.

    :raises InvalidArgumentError: the connection's id or the impersonation chain is not text.
    """
    if not isinstance(gcp_conn_id, str) or not gcp_conn_id:
        raise InvalidArgumentError("gcp_conn_id", gcp_conn_id, "Use the id of an Airflow connection.")
    chain = impersonation_chain
    accounts = [chain] if isinstance(chain, str) else chain if isinstance(chain, list | tuple) else None
    if chain is not None and not (accounts and all(isinstance(each, str) and each for each in accounts)):
        rule = "Use the e-mail address of a service account, a list of them, or None."
        raise InvalidArgumentError("impersonation_chain", chain, rule)


class VertexRayBaseHook(GoogleBaseHook):
    """Base hook for Ray on Vertex AI.

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
        super().__init__(gcp_conn_id=gcp_conn_id, impersonation_chain=impersonation_chain, **kwargs)
        self.default_project_id = project_id
        self.default_location = location

    def token_source(self) -> TokenSource:
        """Return the source of access tokens: the connection's credentials, or the emulator if one is configured.

        Blocks: the connection's secrets may come from Secret Manager.
        """
        addresses = Addresses.from_environment()
        if addresses.emulator_host:
            return EmulatorTokenSource(addresses.emulator_host)
        credentials, _ = self.get_credentials_and_project_id()
        return CredentialsTokenSource(credentials)

    def known_project(self) -> str | None:
        """Return the project for calls that name none. Blocks, as ``token_source`` does."""
        return self.default_project_id or self.connection_project()

    def connection_project(self) -> str | None:
        """Return the connection's project. Blocks, as ``token_source`` does."""
        named = self._get_field("project")
        if named or Addresses.from_environment().emulator_host:
            return named or None
        return self.get_credentials_and_project_id()[1]


@dataclass
class _Shared:
    """A transport, its project, and the number of its users."""

    transport: Transport
    project: str | None
    users: int = 0


# By event loop: many triggers that use one connection share one session and one token.
_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, _Shared]] = weakref.WeakKeyDictionary()
_opening: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


class VertexRayBaseAsyncHook(GoogleBaseAsyncHook):
    """Base hook for asynchronous code; the parameters are those of ``VertexRayBaseHook``.

    All hooks with the same connection share one HTTP session and one access token within an event loop.
    """

    sync_hook_class = VertexRayBaseHook

    def __init__(
        self,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        project_id: str | None = None,
        location: str | None = None,
    ) -> None:
        check_connection(gcp_conn_id, impersonation_chain)
        super().__init__(
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            project_id=project_id,
            location=location,
        )
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
        hook = self.sync_hook_class(*self._connection)
        # Not this hook's own project: the entry is shared with hooks for other projects.
        return hook.token_source(), hook.connection_project()

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


def _in_event_loop() -> bool:
    # A separate function, so that exceptions in run_sync are not chained to this RuntimeError.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_sync(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine from synchronous code, whether or not this thread has a running event loop.

    :param make: creates the coroutine, in the thread that runs it.
    :return: the coroutine's result.
    """
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


class VertexRaySyncHook(VertexRayBaseHook, Generic[A]):
    """Base of the synchronous hooks, which run the calls of an asynchronous hook one at a time."""

    async_hook_class: ClassVar[type[VertexRayBaseAsyncHook]]
    """The asynchronous hook with the calls."""

    def async_hook(self) -> A:
        """Return the asynchronous hook with this hook's connection, project and location."""
        return cast(
            "A",
            self.async_hook_class(
                self.gcp_conn_id, self.impersonation_chain, self.default_project_id, self.default_location
            ),
        )


def sync_of(
    call: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[VertexRaySyncHook[A], P], T]:
    """Return a synchronous method with the signature and the docstring of an asynchronous one.

    :param call: method of the hook's ``async_hook_class``.
    """

    @functools.wraps(call)
    def method(self: VertexRaySyncHook[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run_sync(lambda: call(self.async_hook(), *args, **kwargs))

    return method
