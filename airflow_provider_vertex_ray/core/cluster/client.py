"""Client of the control plane: persistentResources and their operations.

Source for all paths and fields:
https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/projects.locations.persistentResources
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

from airflow_provider_vertex_ray.core.cluster.answers import OperationAnswer, ResourceAnswer, ResourcePage
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.http.decoding import JsonObject
from airflow_provider_vertex_ray.core.http.paging import PageTokens
from airflow_provider_vertex_ray.core.http.service_errors import control_plane_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    ClusterNotFoundError,
    NameNotReusableError,
    PreconditionError,
    RateLimitedError,
    ServiceUnavailableError,
)

REPLICA_MASK = "resource_pools.replica_count"
"""The only update that the service supports."""

REQUEST_LABEL = "vertex-ray-request"
"""Label with the id of the create request; identifies the cluster of a request whose answer was lost."""

CHANGE_ATTEMPTS = 5
"""Attempts of a create or resize request whose answers were lost."""


class ClustersApi:
    """Client of the persistentResources API; each call includes its retries.

    :param transport: the connection
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(self, name: ClusterName, resource: dict[str, Any]) -> str | None:
        """Start the creation of a cluster.

        A request whose answer was lost is not repeated blindly: the cluster is looked up first. A label that is unique
        to each call tells whether an existing cluster comes from this call or has the same id by coincidence.

        :param name: the name of the cluster
        :param resource: the PersistentResource to create
        :return: name of the long-running operation; None if the answer was lost or does not name it, but this call
            created the cluster
        :raises ClusterExistsError: the id is in use
        :raises NameNotReusableError: the id belonged to a cluster that was deleted recently
        """
        url = f"{self._collection(name.project, name.location)}?persistentResourceId={quote(name.cluster_id)}"
        request_id = secrets.token_hex(8)
        body = {**resource, "labels": {**(resource.get("labels") or {}), REQUEST_LABEL: request_id}}
        failures = 0
        while True:
            try:
                answer = await self._transport.read(
                    OperationAnswer, "POST", url, body=body, error_from=control_plane_error, repeatable=False
                )
                return answer.name
            except ClusterExistsError as error:
                found = await self._find(name)
                if found is None:
                    # The service's message for a blocked id is not known; this is the effect it would have.
                    raise NameNotReusableError(error.message, error.details) from error
                if failures and found.labels.get(REQUEST_LABEL) == request_id:
                    return None
                raise
            except (ServiceUnavailableError, RateLimitedError):
                failures += 1
                if await self._created_by(name, request_id):
                    return None
                if failures >= CHANGE_ATTEMPTS:
                    raise
                await self._transport.back_off(failures)

    async def _created_by(self, name: ClusterName, request_id: str) -> bool:
        """Tell whether the cluster exists and was created by this request."""
        found = await self._find(name)
        return found is not None and found.labels.get(REQUEST_LABEL) == request_id

    async def _find(self, name: ClusterName) -> Cluster | None:
        try:
            return await self.get(name)
        except ClusterNotFoundError:
            return None

    async def get(self, name: ClusterName) -> Cluster:
        """Return one cluster.

        :raises ClusterNotFoundError: the cluster does not exist
        """
        answer = await self._transport.read(
            JsonObject, "GET", self._url(name), shape=ResourceAnswer, error_from=control_plane_error
        )
        return Cluster.from_resource(answer)

    async def list_all(self, project: str, location: str, *, page_size: int = 100) -> list[Cluster]:
        """Return all persistent resources of a region, including those without Ray."""
        found: list[Cluster] = []
        tokens = PageTokens()
        token = ""
        while True:
            params = {"pageSize": str(page_size), **({"pageToken": token} if token else {})}
            page = await self._transport.read(
                ResourcePage,
                "GET",
                self._collection(project, location),
                params=params,
                error_from=control_plane_error,
            )
            found += [Cluster.from_resource(item) for item in page.persistent_resources or []]
            if not (token := tokens.follow(page.next_page_token)):
                return found

    async def resize(self, name: ClusterName, pools: list[dict[str, Any]]) -> str | None:
        """Start to change the replica counts of a cluster.

        :param name: the name of the cluster
        :param pools: the cluster's ``resourcePools`` with the new ``replicaCount`` of each
        :return: name of the long-running operation; None if the answer was lost but the cluster is UPDATING
        :raises PreconditionError: the state of the cluster does not allow a resize
        """
        failures = 0
        while True:
            try:
                answer = await self._transport.read(
                    OperationAnswer,
                    "PATCH",
                    self._url(name),
                    params={"updateMask": REPLICA_MASK},
                    body={"name": name.full, "resourcePools": pools},
                    error_from=control_plane_error,
                    repeatable=False,
                )
                return answer.name
            except PreconditionError:
                # The service rejects a second resize while one is in progress, even if it is a repetition.
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

        :return: name of the long-running operation; None if the cluster does not exist, or is already being deleted
        :raises PreconditionError: the state of the cluster (PROVISIONING) does not allow a deletion
        """
        try:
            answer = await self._transport.read(
                OperationAnswer, "DELETE", self._url(name), error_from=control_plane_error
            )
        except ClusterNotFoundError:
            return None
        except PreconditionError:
            # The answer to an earlier request may have been lost.
            found = await self._find(name)
            if found is None or found.state is ClusterState.STOPPING:
                return None
            raise
        return answer.name

    async def operation(self, location: str, name: str) -> dict[str, Any]:
        """Return a long-running operation: ``done``, then ``error`` or ``response``."""
        url = f"{self._transport.addresses.control_plane(location)}/{name}"
        return await self._transport.read(JsonObject, "GET", url, shape=OperationAnswer, error_from=control_plane_error)

    def _collection(self, project: str, location: str) -> str:
        base = self._transport.addresses.control_plane(location)
        return f"{base}/projects/{quote(project)}/locations/{quote(location)}/persistentResources"

    def _url(self, name: ClusterName) -> str:
        return f"{self._collection(name.project, name.location)}/{quote(name.cluster_id)}"
