"""The control plane: persistentResources and their operations.

Source for all paths and fields:
https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/projects.locations.persistentResources
"""

from __future__ import annotations

import json
import secrets
from typing import Any
from urllib.parse import quote

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.http.service_errors import service_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    ClusterNotFoundError,
    NameNotReusableError,
    PreconditionError,
    RateLimitedError,
    ServiceUnavailableError,
    VertexRayError,
)

REPLICA_MASK = "resource_pools.replica_count"
"""The only update that the service knows."""

REQUEST_LABEL = "vertex-ray-request"
"""Label with an id of the create request, by which a create whose answer was lost knows its cluster."""

CHANGE_ATTEMPTS = 5
"""Tries of a create or a resize whose answers were lost."""


def control_plane_error(status: int, text: str) -> VertexRayError:
    """The typed error for an answer of the Vertex AI API."""
    try:
        error = json.loads(text)["error"]
        return service_error(str(error.get("message", "")), status=error.get("status"), http_status=status)
    except (ValueError, KeyError, TypeError, AttributeError):
        return service_error(f"The Vertex AI API answered {status}: {text[:300]}", http_status=status)


class ClustersApi:
    """Calls on persistentResources, each with its retries."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(self, name: ClusterName, resource: dict[str, Any]) -> str | None:
        """Start the creation of a cluster.

        A try whose answer was lost is not repeated blindly: the cluster is looked for first. A label that is new with
        each call tells whether the cluster that is found is this call's, and not somebody else's of the same id.

        :return: The long-running operation's name; None when the answer was lost but this call made the cluster.
        :raises ClusterExistsError: The id is in use.
        :raises NameNotReusableError: The id belonged to a cluster that was deleted a short time ago.
        """
        url = f"{self._collection(name.project, name.location)}?persistentResourceId={quote(name.cluster_id)}"
        request_id = secrets.token_hex(8)
        body = {**resource, "labels": {**(resource.get("labels") or {}), REQUEST_LABEL: request_id}}
        failures = 0
        while True:
            try:
                answer = await self._transport.request(
                    "POST", url, body=body, error_from=control_plane_error, repeatable=False
                )
                return str(answer.json().get("name"))
            except ClusterExistsError as error:
                found = await self._find(name)
                if found is None:
                    # How the service words the block of a deleted name is not known; this is what it would come to.
                    raise NameNotReusableError(error.message, error.details) from error
                if failures and found.labels.get(REQUEST_LABEL) == request_id:
                    return None
                raise
            except (ServiceUnavailableError, RateLimitedError):
                failures += 1
                if await self._made_by(name, request_id):
                    return None
                if failures >= CHANGE_ATTEMPTS:
                    raise
                await self._transport.back_off(failures)

    async def _made_by(self, name: ClusterName, request_id: str) -> bool:
        """Whether the cluster is there and comes from this very request."""
        found = await self._find(name)
        return found is not None and found.labels.get(REQUEST_LABEL) == request_id

    async def _find(self, name: ClusterName) -> Cluster | None:
        try:
            return await self.get(name)
        except ClusterNotFoundError:
            return None

    async def get(self, name: ClusterName) -> Cluster:
        """Read one cluster.

        :raises ClusterNotFoundError: There is none of that name.
        """
        answer = await self._transport.request("GET", self._url(name), error_from=control_plane_error)
        return Cluster.from_resource(answer.json())

    async def list_all(self, project: str, location: str, *, page_size: int = 100) -> list[Cluster]:
        """All persistent resources of a region, those without Ray included."""
        found: list[Cluster] = []
        token = ""
        while True:
            params = {"pageSize": str(page_size), **({"pageToken": token} if token else {})}
            answer = await self._transport.request(
                "GET", self._collection(project, location), params=params, error_from=control_plane_error
            )
            body = answer.json()
            found += [Cluster.from_resource(item) for item in body.get("persistentResources") or []]
            token = body.get("nextPageToken") or ""
            if not token:
                return found

    async def resize(self, name: ClusterName, pools: list[dict[str, Any]]) -> str | None:
        """Start a change of replica counts.

        :param pools: The cluster's ``resourcePools`` with the new ``replicaCount`` of each.
        :return: The long-running operation's name; None when the answer was lost but the cluster is UPDATING.
        :raises PreconditionError: The cluster's state does not allow it.
        """
        failures = 0
        while True:
            try:
                answer = await self._transport.request(
                    "PATCH",
                    self._url(name),
                    params={"updateMask": REPLICA_MASK},
                    body={"name": name.full, "resourcePools": pools},
                    error_from=control_plane_error,
                    repeatable=False,
                )
                return str(answer.json().get("name"))
            except PreconditionError:
                # The service refuses a second resize while the first one goes on, also one that repeats it.
                if failures and (await self.get(name)).state is ClusterState.UPDATING:
                    return None
                raise
            except (ServiceUnavailableError, RateLimitedError):
                failures += 1
                if failures >= CHANGE_ATTEMPTS:
                    raise
                await self._transport.back_off(failures)

    async def delete(self, name: ClusterName) -> str | None:
        """Start the deletion of a cluster.

        :return: The long-running operation's name; None when there is no such cluster.
        :raises PreconditionError: Its state does not allow it (PROVISIONING).
        """
        try:
            answer = await self._transport.request("DELETE", self._url(name), error_from=control_plane_error)
        except ClusterNotFoundError:
            return None
        return str(answer.json().get("name"))

    async def operation(self, location: str, name: str) -> dict[str, Any]:
        """Read a long-running operation: ``done``, then ``error`` or ``response``."""
        url = f"{self._transport.addresses.control_plane(location)}/{name}"
        answer = await self._transport.request("GET", url, error_from=control_plane_error)
        return dict(answer.json())

    def _collection(self, project: str, location: str) -> str:
        base = self._transport.addresses.control_plane(location)
        return f"{base}/projects/{quote(project)}/locations/{quote(location)}/persistentResources"

    def _url(self, name: ClusterName) -> str:
        return f"{self._collection(name.project, name.location)}/{quote(name.cluster_id)}"
