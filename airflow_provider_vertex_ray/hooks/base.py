"""Base of the public hooks, which are the Google provider's hooks too: what those offer, these offer as well.

Each API call is written once, as a coroutine (``hooks/calls``). The asynchronous hooks inherit the calls; the
synchronous hooks list the same calls with ``sync_of``. Operators and triggers use the calls alone, because importing
the Google provider's base hook costs a second of CPU time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, cast

from airflow.providers.google.common.hooks.base_google import GoogleBaseAsyncHook, GoogleBaseHook

from airflow_provider_vertex_ray.core.http.auth import TokenSource
from airflow_provider_vertex_ray.core.threads import run_sync
from airflow_provider_vertex_ray.hooks.calls.base import BaseCalls
from airflow_provider_vertex_ray.hooks.connection import check_connection, project_of, read_connection, token_source_of

T = TypeVar("T")
P = ParamSpec("P")
A = TypeVar("A", bound=BaseCalls, covariant=True)


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
        return token_source_of(self.gcp_conn_id, self.get_credentials_and_project_id)

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        """Return the Airflow connection; an empty one if there is none and the emulator, which needs none, is used.

        :raises InvalidArgumentError: the connection does not exist, or is one to something else than Google Cloud.
        """
        return read_connection(conn_id, super().get_connection)

    def known_project(self) -> str | None:
        """Return the project for calls that name none. Blocks, as ``token_source`` does."""
        return self.default_project_id or self.connection_project()

    def connection_project(self) -> str | None:
        """Return the connection's project. Blocks, as ``token_source`` does."""
        return project_of(self.gcp_conn_id, self._get_field("project"), self.get_credentials_and_project_id)


class VertexRayBaseAsyncHook(BaseCalls, GoogleBaseAsyncHook):
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
        super().__init__(gcp_conn_id, impersonation_chain, project_id, location)
        # The arguments with which get_sync_hook makes the synchronous hook.
        GoogleBaseAsyncHook.__init__(
            self,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            project_id=project_id,
            location=location,
        )

    def _token_source_and_project(self) -> tuple[TokenSource, str | None]:
        hook = self.sync_hook_class(*self._connection)
        # Not this hook's own project: the entry is shared with hooks for other projects.
        return hook.token_source(), hook.connection_project()


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
