"""Hooks for models and endpoints on Vertex AI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.core.serving.client import ServingApi
from airflow_provider_vertex_ray.core.serving.instances import encode
from airflow_provider_vertex_ray.core.serving.resource_name import resource_name
from airflow_provider_vertex_ray.errors import (
    EndpointNotFoundError,
    OperationTimeoutError,
    PreconditionError,
    PredictionError,
    RateLimitedError,
    ResourceExistsError,
    ServiceUnavailableError,
    TrafficError,
    VertexRayError,
)
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRaySyncHook, sync_of

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""First and longest pause in seconds between two polls of an operation."""

REQUESTS_AT_ONCE = 4
"""Number of concurrent prediction requests."""


class VertexRayModelAsyncHook(VertexRayBaseAsyncHook):
    """Manage models and endpoints from asynchronous code.

    ``model`` and ``endpoint`` are ids, or full resource names (``projects/…/locations/…/endpoints/…``).
    """

    async def upload_model(self, request: dict[str, Any]) -> str:
        """Start the upload of a model.

        :param request: body of the REST request: ``model``, and optionally ``parentModel`` and ``modelId``.
        :return: name of the long-running operation.
        """
        return await self._do(lambda api, parent: api.upload_model(parent, request))

    async def get_model(self, model: str) -> dict[str, Any]:
        """Return a model.

        :param model: id or full resource name; append ``@version`` for a version other than the default.
        :raises ModelNotFoundError: the model does not exist.
        """
        return await self._do(lambda api, parent: api.get_model(self._name("models", model, parent)))

    async def find_models(self, labels: dict[str, str], parent_model: str | None = None) -> list[dict[str, Any]]:
        """Return the models that have all of the given labels.

        :param labels: the labels.
        :param parent_model: search the versions of this model instead.
        """
        condition = " AND ".join(f'labels.{key}="{value}"' for key, value in labels.items())
        if parent_model:
            return await self._do(
                lambda api, parent: api.list_versions(self._name("models", parent_model, parent), condition)
            )
        return await self._do(lambda api, parent: api.list_models(parent, condition))

    async def delete_model(self, model: str) -> str | None:
        """Start the deletion of a model.

        :param model: id or full resource name.
        :return: name of the long-running operation; None if the model does not exist.
        :raises PreconditionError: the model is deployed.
        """
        return await self._do(lambda api, parent: api.delete_model(self._name("models", model, parent)))

    async def ensure_endpoint(self, endpoint_id: str, endpoint: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Return an endpoint, and create it if it does not exist.

        :param endpoint_id: id of the endpoint.
        :param endpoint: body of the REST request for a new endpoint.
        :return: the endpoint, and whether this call created it.
        """
        made = True

        async def ensure(api: ServingApi, parent: str) -> dict[str, Any]:
            nonlocal made
            name = f"{parent}/endpoints/{endpoint_id}"
            try:
                await self.finished(await api.create_endpoint(parent, endpoint_id, endpoint), None)
            except ResourceExistsError:
                made = False
            return await api.get_endpoint(name)

        return await self._do(ensure), made

    async def get_endpoint(self, endpoint: str) -> dict[str, Any]:
        """Return an endpoint.

        :param endpoint: id or full resource name.
        :raises EndpointNotFoundError: the endpoint does not exist.
        """
        return await self._do(lambda api, parent: api.get_endpoint(self._name("endpoints", endpoint, parent)))

    async def deploy_model(
        self, endpoint: str, deployed: dict[str, Any], traffic_split: dict[str, int] | None
    ) -> str | None:
        """Start the deployment of a model to an endpoint.

        :param endpoint: id or full resource name.
        :param deployed: ``DeployedModel`` as in the REST API, with an ``id`` that the caller chooses.
        :param traffic_split: percentage of the traffic by deployed model id; ``"0"`` is the new one. None to leave the
            split unchanged, so that the new one gets no traffic.
        :return: name of the long-running operation; None if a deployment with that id is in progress or done.
        :raises EndpointNotFoundError: the endpoint does not exist.
        """
        name = endpoint

        async def deploy(api: ServingApi, parent: str) -> str | None:
            full = self._name("endpoints", name, parent)
            if any(each["id"] == deployed["id"] for each in (await api.get_endpoint(full)).get("deployedModels") or ()):
                return None
            try:
                return await api.deploy_model(full, deployed, traffic_split)
            except ResourceExistsError:
                return None

        return await self._do(deploy)

    async def undeploy(
        self, endpoint: str, deployed_ids: list[str] | None, deadline: float | None, *, delete: bool = False
    ) -> dict[str, Any]:
        """Undeploy models, wait for that, and optionally delete the endpoint.

        A model or endpoint that does not exist counts as done. Models without traffic are undeployed first, so that the
        last one needs no traffic split.

        :param endpoint: id or full resource name.
        :param deployed_ids: ids of the deployed models; None for all.
        :param deadline: Unix time at which the wait fails; None for no limit.
        :param delete: whether to delete the endpoint as well, if no deployed model remains.
        :return: ``undeployed`` (the ids of the models that this call undeployed) and ``endpoint_deleted``.
        :raises OperationTimeoutError: an operation did not finish before the deadline.
        :raises TrafficError: a model has all the traffic, and a model without traffic is to remain.
        """
        undeployed: list[str] = []

        async def work(api: ServingApi, parent: str) -> dict[str, Any]:
            name = self._name("endpoints", endpoint, parent)
            pause = FIRST_PAUSE
            while True:
                try:
                    there = await api.get_endpoint(name)
                except EndpointNotFoundError:
                    return {"undeployed": undeployed, "endpoint_deleted": False}
                have = [str(each["id"]) for each in there.get("deployedModels") or ()]
                shares = there.get("trafficSplit") or {}
                todo = [each for each in have if deployed_ids is None or each in deployed_ids]
                todo.sort(key=lambda each: int(shares.get(each) or 0))
                split = _split_without(shares, todo[0]) if todo else None
                idle = [each for each in have if each != todo[0]] if split == {} else []
                if idle:
                    # An empty split is the same as none, which the service rejects.
                    raise TrafficError(
                        f"Deployed model {todo[0]} has all the traffic of {name}, and {', '.join(idle)} would remain "
                        "without any.",
                        {"endpoint": name, "deployed_model_id": todo[0]},
                    )
                try:
                    if todo:
                        operation = await api.undeploy_model(name, todo[0], split)
                        if operation is not None:
                            await self.finished(operation, deadline)
                        undeployed.append(todo[0])
                        continue
                    if not delete or have:
                        return {"undeployed": undeployed, "endpoint_deleted": False}
                    operation = await api.delete_endpoint(name)
                    if operation is not None:
                        await self.finished(operation, deadline)
                    return {"undeployed": undeployed, "endpoint_deleted": True}
                except (PreconditionError, ServiceUnavailableError, RateLimitedError):
                    # Another operation is in progress on the endpoint, such as a deployment that is being cancelled.
                    if seconds_left(deadline) <= 0:
                        raise
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_PAUSE)

        return await self._do(work)

    async def cancel_operation(self, operation: str) -> None:
        """Request the cancellation of a long-running operation.

        An operation that has ended, or that cannot be cancelled, is not an error.

        :param operation: full name of the operation.
        """
        try:
            await self._do(lambda api, parent: api.cancel(operation), needs_parent=False)
        except VertexRayError as error:
            self.log.info("Operation %s was not cancelled: %s", operation, error)

    async def get_operation(self, operation: str) -> dict[str, Any]:
        """Return a long-running operation.

        :param operation: full name of the operation.
        """
        return await self._do(lambda api, parent: api.operation(operation), needs_parent=False)

    async def finished(self, operation: str, deadline: float | None) -> dict[str, Any]:
        """Wait for a long-running operation, and return its response.

        :param operation: full name of the operation.
        :param deadline: Unix time at which the wait fails; None for no limit.
        :raises OperationTimeoutError: the operation did not finish before the deadline.
        :raises ServiceError: the operation failed.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                found = await self.get_operation(operation)
            except (ServiceUnavailableError, RateLimitedError) as error:
                self.log.warning(
                    "Could not reach the Vertex AI API; retrying in %.1f s: operation %s: %s",
                    pause,
                    operation,
                    error.message,
                )
                found = {}
            if found.get("done"):
                failure = found.get("error")
                if failure:
                    raise outcome_error(str(failure.get("message", "")), failure.get("code"))
                return dict(found.get("response") or {})
            if seconds_left(deadline) <= 0:
                raise OperationTimeoutError(
                    f"Timed out waiting for operation {operation}; it continues.", {"operation": operation}
                )
            await asyncio.sleep(max(0.0, min(pause, seconds_left(deadline))))
            pause = min(pause * 1.5, LONGEST_PAUSE)

    async def predict(
        self, endpoint: str, chunks: list[list[Any]], parameters: Any = None, *, dns: str | None = None
    ) -> tuple[list[Any], list[str]]:
        """Request predictions for chunks of instances, several chunks at a time.

        :param endpoint: id or full resource name.
        :param chunks: instances, as one list for each request.
        :param parameters: prediction parameters, as in the REST API.
        :param dns: ``dedicatedEndpointDns`` of a dedicated endpoint, as ``get_endpoint`` returns it, which answers at
            no other host; default: the endpoint is read first.
        :return: the predictions in the order of the instances, and the ids of the deployed models that made them.
        :raises InvalidArgumentError: an instance cannot be represented as JSON; nothing was sent.
        :raises PredictionError: the endpoint rejected a chunk; the message names its instances.
        """
        turn = asyncio.Semaphore(REQUESTS_AT_ONCE)
        own_host = dns

        async def ask(api: ServingApi, name: str, chunk: list[Any], first: int) -> dict[str, Any]:
            async with turn:
                try:
                    answer = await api.predict(name, chunk, parameters, own_host)
                except PredictionError as error:
                    last = first + len(chunk) - 1
                    raise PredictionError(
                        f"The endpoint rejected instances {first} to {last}: {error.message}",
                        {**error.details, "first_instance": first},
                    ) from None
            found = answer.get("predictions") or []
            if len(found) != len(chunk):
                raise PredictionError(
                    f"The endpoint returned {len(found)} predictions for the {len(chunk)} instances from {first} on.",
                    {"first_instance": first},
                )
            return answer

        chunks = [encode(chunk, "instances") for chunk in chunks]
        parameters = None if parameters is None else encode(parameters, "parameters")

        async def all_of_them(api: ServingApi, parent: str) -> list[dict[str, Any]]:
            nonlocal own_host
            name = self._name("endpoints", endpoint, parent)
            if own_host is None:
                own_host = dedicated_dns(await api.get_endpoint(name))
            firsts = [sum(map(len, chunks[:place])) for place in range(len(chunks))]
            tasks = [
                asyncio.create_task(ask(api, name, chunk, first)) for chunk, first in zip(chunks, firsts, strict=True)
            ]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

        answers = await self._do(all_of_them)
        predictions = [each for answer in answers for each in answer["predictions"]]
        return predictions, sorted({str(answer.get("deployedModelId", "")) for answer in answers})

    async def artifact_files(self, uri: str) -> dict[str, dict[str, str]]:
        """Return the names of the files in an artifact folder in Cloud Storage, each with its own metadata.

        :param uri: the folder (``gs://bucket/folder``).
        """
        return await self._do(lambda api, parent: api.artifact_files(uri), needs_parent=False)

    async def _do(self, call: Callable[[ServingApi, str], Coroutine[Any, Any, T]], *, needs_parent: bool = True) -> T:
        async with self.session() as (transport, project):
            parent = ""
            if needs_parent:
                parent = f"projects/{validate_project(project)}/locations/{validate_location(self._location)}"
            return await call(ServingApi(transport), parent)

    def _name(self, kind: str, value: str, parent: str) -> str:
        _, project, _, location = parent.split("/")
        return resource_name(kind, value, kind.removesuffix("s"), project, location)


def dedicated_dns(endpoint: dict[str, Any]) -> str:
    """Return the host of a dedicated endpoint; an empty string for a shared one.

    :param endpoint: the Endpoint, as in the REST API.
    """
    return str(endpoint.get("dedicatedEndpointDns") or "") if endpoint.get("dedicatedEndpointEnabled") else ""


def _split_without(split: dict[str, int], gone: str) -> dict[str, int] | None:
    """Distribute the traffic of one deployed model over the others in proportion.

    :return: the new split; None if the model had no traffic.
    """
    if not split.get(gone):
        return None
    rest = {key: value for key, value in split.items() if key != gone and value}
    if not rest:
        return {}
    total = sum(rest.values())
    shares = {key: value * 100 // total for key, value in rest.items()}
    shares[next(iter(shares))] += 100 - sum(shares.values())
    return shares


class VertexRayModelHook(VertexRaySyncHook[VertexRayModelAsyncHook]):
    """Manage models and endpoints from synchronous code: the calls of ``VertexRayModelAsyncHook``."""

    async_hook_class = VertexRayModelAsyncHook

    upload_model = sync_of(VertexRayModelAsyncHook.upload_model)
    get_model = sync_of(VertexRayModelAsyncHook.get_model)
    find_models = sync_of(VertexRayModelAsyncHook.find_models)
    delete_model = sync_of(VertexRayModelAsyncHook.delete_model)
    ensure_endpoint = sync_of(VertexRayModelAsyncHook.ensure_endpoint)
    get_endpoint = sync_of(VertexRayModelAsyncHook.get_endpoint)
    deploy_model = sync_of(VertexRayModelAsyncHook.deploy_model)
    undeploy = sync_of(VertexRayModelAsyncHook.undeploy)
    finished = sync_of(VertexRayModelAsyncHook.finished)
    get_operation = sync_of(VertexRayModelAsyncHook.get_operation)
    cancel_operation = sync_of(VertexRayModelAsyncHook.cancel_operation)
    predict = sync_of(VertexRayModelAsyncHook.predict)
    artifact_files = sync_of(VertexRayModelAsyncHook.artifact_files)
