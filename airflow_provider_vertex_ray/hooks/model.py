"""Models and endpoints, through an Airflow connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.core.serving.client import ServingApi
from airflow_provider_vertex_ray.core.serving.resource_name import resource_name
from airflow_provider_vertex_ray.errors import (
    EndpointNotFoundError,
    OperationTimeoutError,
    PreconditionError,
    PredictionError,
    RateLimitedError,
    ResourceExistsError,
    ServiceUnavailableError,
    VertexRayError,
)
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRayBaseHook, run_sync

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two looks at an operation."""

REQUESTS_AT_ONCE = 4
"""Prediction requests that are under way at a time."""


class VertexRayModelAsyncHook(VertexRayBaseAsyncHook):
    """Models and endpoints, for an event loop. ``model`` and ``endpoint`` are ids or full resource names."""

    async def upload_model(self, request: dict[str, Any]) -> str:
        """Start the upload of a model; gives the operation's name.

        :param request: ``model``, and ``parentModel`` and ``modelId`` where wanted, as in the REST API.
        """
        return await self._do(lambda api, parent: api.upload_model(parent, request))

    async def get_model(self, model: str) -> dict[str, Any]:
        """Read a model; ``@version`` behind its id reads that version.

        :raises ModelNotFoundError: There is none.
        """
        return await self._do(lambda api, parent: api.get_model(self._name("models", model, parent)))

    async def find_models(self, labels: dict[str, str], parent_model: str | None = None) -> list[dict[str, Any]]:
        """The models with all of these labels.

        :param parent_model: Look among this model's versions.
        """
        condition = " AND ".join(f'labels.{key}="{value}"' for key, value in labels.items())
        if parent_model:
            return await self._do(
                lambda api, parent: api.list_versions(self._name("models", parent_model, parent), condition)
            )
        return await self._do(lambda api, parent: api.list_models(parent, condition))

    async def delete_model(self, model: str) -> str | None:
        """Start the deletion of a model; the operation's name, or None when there is no such model.

        :raises PreconditionError: It is deployed.
        """
        return await self._do(lambda api, parent: api.delete_model(self._name("models", model, parent)))

    async def ensure_endpoint(self, endpoint_id: str, endpoint: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The endpoint of an id, made if it is not there, and whether this call has made it."""
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
        """Read an endpoint.

        :raises EndpointNotFoundError: There is none.
        """
        return await self._do(lambda api, parent: api.get_endpoint(self._name("endpoints", endpoint, parent)))

    async def deploy_model(
        self, endpoint: str, deployed: dict[str, Any], traffic_split: dict[str, int] | None
    ) -> str | None:
        """Start a deployment; the operation's name, or None when this very deployment is under way or done.

        :param deployed: The ``DeployedModel`` of the REST API, with an id of the caller's.
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
        """Undeploy models, wait, and delete the endpoint where that is wanted; what is gone is no error.

        :param deployed_ids: Ids of deployed models; None for all.
        :param delete: Whether the endpoint goes as well, if nothing is deployed to it any more.
        :return: ``undeployed`` and ``endpoint_deleted``.
        :raises OperationTimeoutError: The deadline passed.
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
                todo = [each for each in have if deployed_ids is None or each in deployed_ids]
                try:
                    if todo:
                        split = _split_without(there.get("trafficSplit") or {}, todo[0])
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
                    # Another operation is at work on the endpoint, such as a deployment that is being cancelled.
                    if seconds_left(deadline) <= 0:
                        raise
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_PAUSE)

        return await self._do(work)

    async def cancel_operation(self, operation: str) -> None:
        """Ask an operation to stop; one that has ended, or that can not be stopped, is left as it is."""
        try:
            await self._do(lambda api, parent: api.cancel(operation), needs_parent=False)
        except VertexRayError as error:
            self.log.info("%s was not cancelled: %s", operation, error)

    async def get_operation(self, operation: str) -> dict[str, Any]:
        """Read a long-running operation by its full name."""
        return await self._do(lambda api, parent: api.operation(operation), needs_parent=False)

    async def finished(self, operation: str, deadline: float | None) -> dict[str, Any]:
        """Wait for an operation; gives its response.

        :param deadline: Unix time; None for no limit.
        :raises OperationTimeoutError: The deadline passed.
        :raises ServiceError: It came to an error.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                found = await self.get_operation(operation)
            except (ServiceUnavailableError, RateLimitedError) as error:
                self.log.warning("%s can not be read for the moment: %s", operation, error)
                found = {}
            if found.get("done"):
                failure = found.get("error")
                if failure:
                    raise outcome_error(str(failure.get("message", "")), failure.get("code"))
                return dict(found.get("response") or {})
            if seconds_left(deadline) <= 0:
                raise OperationTimeoutError(f"{operation} did not end in time; it goes on.", {"operation": operation})
            await asyncio.sleep(max(0.0, min(pause, seconds_left(deadline))))
            pause = min(pause * 1.5, LONGEST_PAUSE)

    async def predict(
        self, endpoint: str, chunks: list[list[Any]], parameters: Any = None
    ) -> tuple[list[Any], list[str]]:
        """Predict for all chunks, some at a time; the predictions in the instances' order, and the deployed models.

        :raises PredictionError: A chunk was refused; it says with which instance that begins.
        """
        turn = asyncio.Semaphore(REQUESTS_AT_ONCE)

        async def ask(api: ServingApi, name: str, chunk: list[Any], first: int) -> dict[str, Any]:
            async with turn:
                try:
                    answer = await api.predict(name, chunk, parameters)
                except PredictionError as error:
                    last = first + len(chunk) - 1
                    raise PredictionError(
                        f"The endpoint refuses instances {first} to {last}: {error.message}",
                        {**error.details, "first_instance": first},
                    ) from None
            found = answer.get("predictions") or []
            if len(found) != len(chunk):
                raise PredictionError(
                    f"For the {len(chunk)} instances from {first} on there came {len(found)} predictions.",
                    {"first_instance": first},
                )
            return answer

        async def all_of_them(api: ServingApi, parent: str) -> list[dict[str, Any]]:
            name = self._name("endpoints", endpoint, parent)
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

    async def artifact_files(self, uri: str) -> list[str]:
        """The names in an artifact folder in Cloud Storage."""
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


def _split_without(split: dict[str, int], gone: str) -> dict[str, int] | None:
    """The traffic without one deployed model: its share goes to the others in proportion; None when it had none."""
    if not split.get(gone):
        return None
    rest = {key: value for key, value in split.items() if key != gone and value}
    if not rest:
        return {}
    total = sum(rest.values())
    shares = {key: value * 100 // total for key, value in rest.items()}
    shares[next(iter(shares))] += 100 - sum(shares.values())
    return shares


class VertexRayModelHook(VertexRayBaseHook):
    """Models and endpoints, from synchronous code: the calls of ``VertexRayModelAsyncHook``, each waited for."""

    def _async(self) -> VertexRayModelAsyncHook:
        return VertexRayModelAsyncHook(
            self.gcp_conn_id, self.impersonation_chain, self.default_project_id, self.default_location
        )

    def upload_model(self, request: dict[str, Any]) -> str:
        """Start the upload of a model; see ``VertexRayModelAsyncHook.upload_model``."""
        return run_sync(lambda: self._async().upload_model(request))

    def get_model(self, model: str) -> dict[str, Any]:
        """Read a model; see ``VertexRayModelAsyncHook.get_model``."""
        return run_sync(lambda: self._async().get_model(model))

    def find_models(self, labels: dict[str, str], parent_model: str | None = None) -> list[dict[str, Any]]:
        """Models by their labels; see ``VertexRayModelAsyncHook.find_models``."""
        return run_sync(lambda: self._async().find_models(labels, parent_model))

    def delete_model(self, model: str) -> str | None:
        """Start the deletion of a model; see ``VertexRayModelAsyncHook.delete_model``."""
        return run_sync(lambda: self._async().delete_model(model))

    def ensure_endpoint(self, endpoint_id: str, endpoint: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """An endpoint, made if need be; see ``VertexRayModelAsyncHook.ensure_endpoint``."""
        return run_sync(lambda: self._async().ensure_endpoint(endpoint_id, endpoint))

    def get_endpoint(self, endpoint: str) -> dict[str, Any]:
        """Read an endpoint; see ``VertexRayModelAsyncHook.get_endpoint``."""
        return run_sync(lambda: self._async().get_endpoint(endpoint))

    def deploy_model(self, endpoint: str, deployed: dict[str, Any], traffic_split: dict[str, int] | None) -> str | None:
        """Start a deployment; see ``VertexRayModelAsyncHook.deploy_model``."""
        return run_sync(lambda: self._async().deploy_model(endpoint, deployed, traffic_split))

    def undeploy(
        self, endpoint: str, deployed_ids: list[str] | None, deadline: float | None, *, delete: bool = False
    ) -> dict[str, Any]:
        """Undeploy models and wait; see ``VertexRayModelAsyncHook.undeploy``."""
        return run_sync(lambda: self._async().undeploy(endpoint, deployed_ids, deadline, delete=delete))

    def finished(self, operation: str, deadline: float | None) -> dict[str, Any]:
        """Wait for an operation; see ``VertexRayModelAsyncHook.finished``."""
        return run_sync(lambda: self._async().finished(operation, deadline))

    def get_operation(self, operation: str) -> dict[str, Any]:
        """Read a long-running operation; see ``VertexRayModelAsyncHook.get_operation``."""
        return run_sync(lambda: self._async().get_operation(operation))

    def cancel_operation(self, operation: str) -> None:
        """Ask an operation to stop; see ``VertexRayModelAsyncHook.cancel_operation``."""
        run_sync(lambda: self._async().cancel_operation(operation))

    def predict(self, endpoint: str, chunks: list[list[Any]], parameters: Any = None) -> tuple[list[Any], list[str]]:
        """Predict; see ``VertexRayModelAsyncHook.predict``."""
        return run_sync(lambda: self._async().predict(endpoint, chunks, parameters))

    def artifact_files(self, uri: str) -> list[str]:
        """The names in an artifact folder; see ``VertexRayModelAsyncHook.artifact_files``."""
        return run_sync(lambda: self._async().artifact_files(uri))
