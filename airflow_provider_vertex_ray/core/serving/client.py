"""Client of the Vertex AI API for models, endpoints and predictions.

Sources: https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/projects.locations.models and
…/projects.locations.endpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from airflow_provider_vertex_ray.core.cluster.answers import OperationAnswer
from airflow_provider_vertex_ray.core.http.decoding import MAX_JSON_BYTES, JsonObject, check_shape
from airflow_provider_vertex_ray.core.http.paging import PageTokens
from airflow_provider_vertex_ray.core.http.service_errors import control_plane_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.serving.answers import (
    EndpointAnswer,
    ModelAnswer,
    ModelPage,
    ObjectPage,
    OperationPage,
    PredictionAnswer,
)
from airflow_provider_vertex_ray.core.serving.resource_name import location_of
from airflow_provider_vertex_ray.errors import (
    ArtifactNotFoundError,
    ClusterExistsError,
    ClusterNotFoundError,
    EndpointNotFoundError,
    InvalidRequestError,
    ModelNotFoundError,
    PreconditionError,
    PredictionError,
    ResourceExistsError,
    VertexRayError,
)

T = TypeVar("T")

MAX_PREDICTION_BYTES = 16 << 20
"""Maximum size of the answer to a prediction request in bytes; a dedicated endpoint accepts requests of 10 MB."""


class ServingApi:
    """Client for models and endpoints, by their full resource names; each call includes its retries.

    :param transport: the connection
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    # --- models -----------------------------------------------------------------------------------------------------

    async def upload_model(self, parent: str, request: dict[str, Any]) -> str:
        """Start the upload of a model, and return the name of the long-running operation."""
        return await self._start("POST", f"{parent}/models:upload", ModelNotFoundError, body=request, repeatable=False)

    async def get_model(self, name: str) -> dict[str, Any]:
        """Return a model, or one version of it (``…@2``).

        :raises ModelNotFoundError: the model or its version does not exist
        """
        return await self._call(JsonObject, "GET", name, ModelNotFoundError, shape=ModelAnswer)

    async def list_models(self, parent: str, condition: str) -> list[dict[str, Any]]:
        """Return the models that match a filter."""
        return await self._models(f"{parent}/models", condition)

    async def list_versions(self, model: str, condition: str) -> list[dict[str, Any]]:
        """Return the versions of a model that match a filter.

        :raises ModelNotFoundError: the model does not exist
        """
        return await self._models(f"{model.partition('@')[0]}:listVersions", condition)

    async def delete_model(self, name: str) -> str | None:
        """Start the deletion of a model, and return the name of the operation; None if the model does not exist."""
        return await self._delete(name, ModelNotFoundError)

    # --- endpoints --------------------------------------------------------------------------------------------------

    async def create_endpoint(self, parent: str, endpoint_id: str, endpoint: dict[str, Any]) -> str:
        """Start the creation of an endpoint, and return the name of the operation.

        :param parent: ``projects/…/locations/…``
        :param endpoint_id: id of the endpoint
        :param endpoint: the Endpoint to create
        :raises ResourceExistsError: the id is in use
        """
        return await self._start(
            "POST", f"{parent}/endpoints", EndpointNotFoundError, params={"endpointId": endpoint_id}, body=endpoint
        )

    async def get_endpoint(self, name: str) -> dict[str, Any]:
        """Return an endpoint.

        :raises EndpointNotFoundError: the endpoint does not exist
        """
        return await self._call(JsonObject, "GET", name, EndpointNotFoundError, shape=EndpointAnswer)

    async def deploy_model(self, endpoint: str, deployed: dict[str, Any], split: dict[str, int] | None) -> str:
        """Start the deployment of a model, with an id that the caller chose, and return the name of the operation.

        :param endpoint: the endpoint
        :param deployed: the DeployedModel, with its id
        :param split: percentage of the traffic by deployed model; ``"0"`` is this one
        :raises EndpointNotFoundError: the endpoint does not exist
        """
        body: dict[str, Any] = {"deployedModel": deployed}
        if split is not None:
            body["trafficSplit"] = split
        # The id makes a repeated request harmless: the service rejects it.
        return await self._start("POST", f"{endpoint}:deployModel", EndpointNotFoundError, body=body)

    async def undeploy_model(self, endpoint: str, deployed_id: str, split: dict[str, int] | None) -> str | None:
        """Start to undeploy a model, and return the name of the operation; None if there is nothing to undeploy.

        :param endpoint: the endpoint
        :param deployed_id: id of the deployed model
        :param split: percentage of the traffic by deployed model, afterwards
        """
        body: dict[str, Any] = {"deployedModelId": deployed_id}
        if split is not None:
            body["trafficSplit"] = split
        try:
            return await self._start("POST", f"{endpoint}:undeployModel", EndpointNotFoundError, body=body)
        except EndpointNotFoundError:
            return None

    async def clear_traffic(self, endpoint: str) -> None:
        """Remove the traffic split of an endpoint, so that none of its models gets traffic.

        An undeploy request cannot do that: its empty split means that the split is left unchanged.

        :param endpoint: the endpoint
        :raises EndpointNotFoundError: the endpoint does not exist
        """
        await self._call(
            JsonObject,
            "PATCH",
            endpoint,
            EndpointNotFoundError,
            shape=EndpointAnswer,
            params={"updateMask": "trafficSplit"},
            body={"trafficSplit": {}},
        )

    async def endpoint_operations(self, endpoint: str) -> list[dict[str, Any]]:
        """Return the long-running operations on an endpoint.

        :param endpoint: the endpoint
        """
        found: list[dict[str, Any]] = []
        tokens = PageTokens()
        token = ""
        while True:
            params = {"pageToken": token} if token else {}
            page = await self._call(
                OperationPage, "GET", f"{endpoint}/operations", EndpointNotFoundError, params=params
            )
            for operation in page.operations or []:
                check_shape(operation, OperationAnswer)
                found.append(operation)
            if not (token := tokens.follow(page.next_page_token)):
                return found

    async def delete_endpoint(self, name: str) -> str | None:
        """Start the deletion of an endpoint, and return the name of the operation; None if it does not exist.

        :raises PreconditionError: the endpoint still has deployed models
        """
        return await self._delete(name, EndpointNotFoundError)

    async def predict(
        self, endpoint: str, instances: list[Any], parameters: Any, dns: str | None = None
    ) -> dict[str, Any]:
        """Send one prediction request.

        :param endpoint: the endpoint
        :param instances: the instances
        :param parameters: parameters of the prediction; None for none
        :param dns: ``dedicatedEndpointDns`` of the endpoint, which then answers at no other host; None for a shared one
        :raises PredictionError: the model server rejects the instances; the message contains its own message
        """
        body = {"instances": instances, **({"parameters": parameters} if parameters is not None else {})}
        try:
            return await self._call(
                JsonObject,
                "POST",
                f"{endpoint}:predict",
                EndpointNotFoundError,
                shape=PredictionAnswer,
                body=body,
                max_bytes=MAX_PREDICTION_BYTES,
                dns=dns,
            )
        except (InvalidRequestError, PreconditionError) as error:
            raise PredictionError(_container_text(error.message), error.details) from None

    # --- both -------------------------------------------------------------------------------------------------------

    async def operation(self, name: str) -> dict[str, Any]:
        """Return a long-running operation: ``done``, then ``error`` or ``response``."""
        return await self._call(JsonObject, "GET", name, VertexRayError, shape=OperationAnswer)

    async def cancel(self, name: str) -> None:
        """Request the cancellation of a long-running operation."""
        await self._call(JsonObject, "POST", f"{name}:cancel", VertexRayError, body={})

    async def artifact_files(self, uri: str) -> dict[str, dict[str, str]]:
        """Return the names of the objects directly in a folder of Cloud Storage, each with its own metadata.

        :param uri: ``gs://`` URI of the folder
        :raises ArtifactNotFoundError: the bucket does not exist
        """
        bucket, _, folder = uri.removeprefix("gs://").partition("/")
        folder = folder.strip("/")
        prefix = f"{folder}/" if folder else ""
        url = f"{self._transport.addresses.storage()}/storage/v1/b/{quote(bucket)}/o"

        def failed(status: int, text: str) -> VertexRayError:
            if status == 404:
                return ArtifactNotFoundError(f"Bucket {bucket} of the artifact {uri} does not exist.", {"uri": uri})
            return control_plane_error(status, text)

        found: dict[str, dict[str, str]] = {}
        tokens = PageTokens()
        token = ""
        while True:
            params = {"prefix": prefix, "delimiter": "/", **({"pageToken": token} if token else {})}
            page = await self._transport.read(ObjectPage, "GET", url, params=params, error_from=failed)
            found |= {item.name.removeprefix(prefix): item.metadata or {} for item in page.items or ()}
            if not (token := tokens.follow(page.next_page_token)):
                return {name: found[name] for name in sorted(found) if name}

    async def _delete(self, name: str, missing: type[VertexRayError]) -> str | None:
        try:
            return await self._start("DELETE", name, missing)
        except missing:
            return None

    async def _models(self, path: str, condition: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        tokens = PageTokens()
        token = ""
        while True:
            params = {"filter": condition, **({"pageToken": token} if token else {})}
            page = await self._call(ModelPage, "GET", path, ModelNotFoundError, params=params)
            for model in page.models or []:
                check_shape(model, ModelAnswer)
                found.append(model)
            if not (token := tokens.follow(page.next_page_token)):
                return found

    async def _start(
        self,
        method: str,
        path: str,
        missing: type[VertexRayError],
        *,
        params: dict[str, str] | None = None,
        body: Any = None,
        repeatable: bool = True,
    ) -> str:
        """Start a long-running operation, and return its name."""
        found = await self._call(
            OperationAnswer, method, path, missing, params=params, body=body, repeatable=repeatable
        )
        return found.name

    async def _call(
        self,
        kind: type[T],
        method: str,
        path: str,
        missing: type[VertexRayError],
        *,
        shape: Any = None,
        params: dict[str, str] | None = None,
        body: Any = None,
        repeatable: bool = True,
        max_bytes: int = MAX_JSON_BYTES,
        dns: str | None = None,
    ) -> T:
        addresses = self._transport.addresses
        base = addresses.prediction(dns) if dns else addresses.control_plane(location_of(path))
        return await self._transport.read(
            kind,
            method,
            f"{base}/{path}",
            shape=shape,
            params=params,
            body=body,
            error_from=_error_from(missing),
            repeatable=repeatable,
            max_bytes=max_bytes,
        )


def _error_from(missing: type[VertexRayError]) -> Callable[[int, str], VertexRayError]:
    def error_from(status: int, text: str) -> VertexRayError:
        found = control_plane_error(status, text)
        if isinstance(found, ClusterNotFoundError):
            return missing(found.message, found.details)
        if isinstance(found, ClusterExistsError):
            return ResourceExistsError(found.message, found.details)
        return found

    return error_from


def _container_text(message: str) -> str:
    """Return the container's own message, which the service embeds in its message as JSON."""
    try:
        inner = json.loads(message)
    except (ValueError, RecursionError):
        return message
    return str(inner.get("error", inner) if isinstance(inner, dict) else inner)
