"""Calls for models and endpoints on Vertex AI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.core.polling import Backoff, poll_until
from airflow_provider_vertex_ray.core.serving.client import ServingApi
from airflow_provider_vertex_ray.core.serving.instances import encode
from airflow_provider_vertex_ray.core.serving.resource_name import resource_name
from airflow_provider_vertex_ray.errors import (
    OperationTimeoutError,
    PredictionError,
    ResourceExistsError,
    VertexRayError,
)
from airflow_provider_vertex_ray.hooks.calls.base import BaseCalls
from airflow_provider_vertex_ray.hooks.calls.undeployment import Undeployment, Undo

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""First and longest pause in seconds between two polls of an operation."""

REQUESTS_AT_ONCE = 4
"""Number of concurrent prediction requests."""


class ModelCalls(BaseCalls):
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

    async def ensure_endpoint(
        self, endpoint_id: str, endpoint: dict[str, Any], deadline: float | None
    ) -> tuple[dict[str, Any], bool]:
        """Return an endpoint, and create it if it does not exist.

        :param endpoint_id: id of the endpoint.
        :param endpoint: body of the REST request for a new endpoint.
        :param deadline: Unix time at which the wait for its creation fails; None for no limit.
        :return: the endpoint, and whether this call created it.
        :raises OperationTimeoutError: the endpoint was not created before the deadline.
        """
        made = True

        async def ensure(api: ServingApi, parent: str) -> dict[str, Any]:
            nonlocal made
            name = f"{parent}/endpoints/{endpoint_id}"
            try:
                await self.finished(await api.create_endpoint(parent, endpoint_id, endpoint), deadline)
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
        self,
        endpoint: str,
        deployed_ids: list[str] | None,
        deadline: float | None,
        *,
        delete: bool = False,
        undo: Undo | None = None,
    ) -> dict[str, Any]:
        """Undeploy models, wait for that, and optionally delete the endpoint.

        A model or endpoint that does not exist counts as done. But while a deployment is in progress on the endpoint,
        this waits, because the endpoint lists the model only afterwards. Models without traffic are undeployed first,
        so that the last one needs no traffic split.

        :param endpoint: id or full resource name.
        :param deployed_ids: ids of the deployed models; None for all.
        :param deadline: Unix time at which the wait fails; None for no limit.
        :param delete: whether to delete the endpoint as well, if no deployed model remains.
        :param undo: the deployment of these models, if it is undone: it is cancelled, waited for where the service does
            not cancel it, and the traffic split from before is restored.
        :return: ``undeployed`` (the ids of the models that this call undeployed) and ``endpoint_deleted``.
        :raises OperationTimeoutError: an operation did not finish before the deadline, or a deployment that may still
            be in progress; the model then incurs charges later.
        :raises TrafficError: a model has all the traffic, and a model without traffic is to remain.
        """
        if undo is not None and undo.operation is not None:
            await self.cancel_operation(undo.operation)

        async def work(api: ServingApi, parent: str) -> dict[str, Any]:
            return await Undeployment(
                api=api,
                name=self._name("endpoints", endpoint, parent),
                ids=deployed_ids,
                deadline=deadline,
                delete=delete,
                undo=undo,
                finished=self.finished,
                pauses=(FIRST_PAUSE, LONGEST_PAUSE),
            ).run()

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

        async def look() -> dict[str, Any] | None:
            found = await self.get_operation(operation)
            return found if found.get("done") else None

        found = await poll_until(
            look,
            backoff=Backoff(LONGEST_PAUSE, first=FIRST_PAUSE),
            deadline=deadline,
            timed_out=lambda: OperationTimeoutError(
                f"Timed out waiting for operation {operation}; it continues.", {"operation": operation}
            ),
            on_unreadable=lambda error, seconds: self.log.warning(
                "Could not reach the Vertex AI API; retrying in %.1f s: operation %s: %s",
                seconds,
                operation,
                error.message,
            ),
        )
        failure = found.get("error")
        if failure:
            raise outcome_error(str(failure.get("message", "")), failure.get("code"))
        return dict(found.get("response") or {})

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
