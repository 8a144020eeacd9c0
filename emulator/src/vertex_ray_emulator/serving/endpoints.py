"""EndpointService: endpoints, their deployed models and their traffic splits."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.clusters.lifecycle import now
from vertex_ray_emulator.google.filters import parse
from vertex_ray_emulator.serving import endpoint_rules as rules
from vertex_ray_emulator.serving.model_registry import WRITE_SECONDS, masked, ordered
from vertex_ray_emulator.serving.model_rules import check_update, found_errors, merge
from vertex_ray_emulator.serving.prebuilt import container
from vertex_ray_emulator.wire.background import cancel
from vertex_ray_emulator.wire.errors import ApiError
from vertex_ray_emulator.wire.names import PARENT, Names, pattern
from vertex_ray_emulator.wire.paging import page
from vertex_ray_emulator.wire.protos import V1BETA1, Api

if TYPE_CHECKING:
    from vertex_ray_emulator.faults import Faults
    from vertex_ray_emulator.serving.deployments import Deployments
    from vertex_ray_emulator.serving.model_registry import ModelRegistry
    from vertex_ray_emulator.wire.background import Background
    from vertex_ray_emulator.wire.operations import LongRunningOperation, Operations

NAME = pattern("endpoints")
Endpoint: Any = V1BETA1.message("Endpoint")
DeployedModel: Any = V1BETA1.message("DeployedModel")
_FIELDS: dict[str, Callable[[Any], str]] = {
    "endpoint": lambda endpoint: str(endpoint.name).rsplit("/", 1)[1],
    "display_name": lambda endpoint: str(endpoint.display_name),
}


@dataclass
class Deployed:
    """A model that is deployed or being deployed.

    :param message: DeployedModel message that callers see.
    :param model: version of the model in the registry.
    :param key: key of the predictor; None while the model is being deployed.
    :param task: background work of the latest deployment or undeployment.
    :param undeploying: whether the model is being undeployed.
    """

    message: Any
    model: Any
    key: str | None = None
    task: asyncio.Task[None] | None = None
    undeploying: bool = False


@dataclass
class Entry:
    """An endpoint.

    :param resource: endpoint message that callers see, with the models whose deployment has completed.
    :param deployed: models that are deployed or being deployed, by id.
    """

    resource: Any
    deployed: dict[str, Deployed] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the endpoint, with the project's number."""
        return str(self.resource.name)

    def refresh(self) -> None:
        """Update the message that callers see."""
        self.resource.ClearField("deployed_models")
        self.resource.deployed_models.extend(each.message for each in self.deployed.values() if each.key is not None)
        self.touch()

    def touch(self) -> None:
        """Update the time of the last change and the etag."""
        self.resource.update_time.CopyFrom(now())
        self.resource.etag = secrets.token_urlsafe(12)

    def set_traffic(self, split: dict[str, int]) -> None:
        """Replace the traffic split."""
        self.resource.ClearField("traffic_split")
        self.resource.traffic_split.update(split)


DEDICATED_SUFFIX = ".prediction.vertexai.goog"
"""End of the host names of dedicated endpoints."""

requested_host: ContextVar[str] = ContextVar("requested_host", default="")
"""Host of a dedicated endpoint at which the current request was sent; on the main port, it is the path's first part."""


class Endpoints:
    """The endpoints of one project, in all locations.

    :param names: checks the resource names that callers send.
    :param models: registry of the models.
    :param deployments: starts and stops predictors.
    :param operations: long-running operations.
    :param background: runs the work of operations.
    :param faults: faults, which may decide the outcome of a deployment.
    """

    def __init__(
        self,
        names: Names,
        models: ModelRegistry,
        deployments: Deployments,
        operations: Operations,
        background: Background,
        faults: Faults,
    ) -> None:
        self._names = names
        self._models = models
        self._deployments = deployments
        self._operations = operations
        self._background = background
        self._faults = faults
        self._endpoints: dict[str, Entry] = {}

    def entries(self) -> list[Entry]:
        """Return all endpoints, sorted by name."""
        return [entry for _, entry in sorted(self._endpoints.items())]

    def find(self, name: str, permission: str) -> Entry:
        """Return the endpoint with a name.

        :param name: name that the caller sent.
        :param permission: permission that the caller needs, such as ``endpoints.get``.
        :raises ApiError: NOT_FOUND if it does not exist.
        """
        name = self._names.check(NAME, name, permission)
        entry = self._endpoints.get(name)
        if entry is None:
            raise ApiError("NOT_FOUND", f"The Endpoint does not exist: {name!r}.")
        return entry

    def route(self, name: str) -> Deployed:
        """Choose the deployed model for a prediction at random, by the traffic split.

        :raises ApiError: NOT_FOUND if the endpoint does not exist; FAILED_PRECONDITION if no model has traffic.
        """
        entry = self.find(name, "endpoints.predict")
        dns = entry.resource.dedicated_endpoint_dns
        if dns and requested_host.get() != dns:
            # The service's text, from reports of users who asked at the shared host.
            raise ApiError(
                "FAILED_PRECONDITION",
                "This endpoint is a dedicated endpoint via CloudESF and cannot be accessed through the Vertex AI API. "
                f"Please access the endpoint using its dedicated dns name '{dns}'",
            )
        if not dns and requested_host.get():
            raise ApiError("NOT_FOUND", f"The Endpoint does not exist: {entry.name!r}.")
        split = {key: share for key, share in entry.resource.traffic_split.items() if share and key in entry.deployed}
        if not split:
            raise ApiError("FAILED_PRECONDITION", f"Endpoint {entry.name} doesn't have traffic_split.")
        chosen = random.choices(list(split), list(split.values()))[0]  # noqa: S311 - no secret
        return entry.deployed[chosen]

    # The API -------------------------------------------------------------------------------------------

    async def create(self, request: Any, api: Api) -> LongRunningOperation:
        """Start to create an endpoint."""
        parent = self._names.check(PARENT, request.parent, "endpoints.create")
        rules.check_endpoint(request.endpoint, request.endpoint_id)
        name = f"{parent}/endpoints/{request.endpoint_id or _new_id()}"
        if name in self._endpoints:
            raise ApiError("ALREADY_EXISTS", f"The Endpoint already exists: {name!r}.")
        resource = Endpoint()
        resource.CopyFrom(request.endpoint)
        for output_only in (
            "create_time", "update_time", "etag", "model_deployment_monitoring_job", "dedicated_endpoint_dns",
        ):  # fmt: skip
            resource.ClearField(output_only)
        resource.name = name
        if resource.dedicated_endpoint_enabled:
            _, project, _, location, _, endpoint_id = name.split("/")
            resource.dedicated_endpoint_dns = f"{endpoint_id}.{location}-{project}{DEDICATED_SUFFIX}"
        resource.create_time.CopyFrom(now())
        entry = self._endpoints[name] = Entry(resource)
        entry.touch()
        operation = self._operations.begin(name, "CreateEndpoint", api)
        return self._background.finish(operation, WRITE_SECONDS, lambda: resource)

    async def get(self, request: Any, api: Api) -> Any:
        """Return the endpoint."""
        return self.find(request.name, "endpoints.get").resource

    async def list_page(self, request: Any, api: Api) -> Any:
        """Return a page of a location's endpoints."""
        parent = self._names.check(PARENT, request.parent, "endpoints.list")
        test = parse(request.filter, _FIELDS, "an Endpoint")
        found = [each.resource for each in self.entries() if each.name.startswith(parent + "/") and test(each.resource)]
        found = ordered(found, getattr(request, "order_by", ""), ("create_time", "update_time", "display_name"))
        shown, token = page(found, request.page_size, request.page_token)
        return V1BETA1.message("ListEndpointsResponse")(
            endpoints=masked(shown, request.read_mask), next_page_token=token
        )

    async def update(self, request: Any, api: Api) -> Any:
        """Update the fields in a mask: display name, description, labels and traffic split."""
        entry = self.find(request.endpoint.name, "endpoints.update")
        paths = check_update(list(request.update_mask.paths), rules.UPDATABLE)
        wanted = Endpoint()
        wanted.CopyFrom(entry.resource)
        merge(wanted, request.endpoint, paths)
        rules.check_settings(wanted)
        if "traffic_split" in paths:
            rules.check_traffic(wanted.traffic_split, _serving(entry))
        entry.resource.CopyFrom(wanted)
        entry.touch()
        return entry.resource

    async def delete(self, request: Any, api: Api) -> LongRunningOperation:
        """Start to delete an endpoint without deployed models."""
        entry = self.find(request.name, "endpoints.delete")
        if entry.deployed:
            raise ApiError(
                "FAILED_PRECONDITION",
                f'The Endpoint "{entry.name}" has deployed or being-deployed DeployedModel(s): '
                f"{', '.join(sorted(entry.deployed))}. Undeploy them first.",
            )
        del self._endpoints[entry.name]
        operation = self._operations.begin(entry.name, "Delete", api)
        return self._background.finish(operation, WRITE_SECONDS, lambda: None)

    async def deploy(self, request: Any, api: Api) -> LongRunningOperation:
        """Start to deploy a model."""
        entry = self.find(request.endpoint, "endpoints.deploy")
        rules.check_deployed_model(request.deployed_model)
        model = self._models.find(request.deployed_model.model, "models.get")[1]
        # The model may be in another location, according to the API's reference.
        image = model.container_spec.image_uri
        found = container(image)
        if found is None:
            raise found_errors(
                "deployed_model.model",
                f'Invalid image "{image}" for deployment. Please use a Model with a valid image.',
            )
        message = _accepted(request.deployed_model, model)
        if message.id in entry.deployed:
            raise ApiError("ALREADY_EXISTS", f"The Endpoint {entry.name!r} already has a DeployedModel {message.id!r}.")
        split = dict(request.traffic_split)
        rules.check_traffic(split, {*_serving(entry), rules.NEW})
        fault = self._faults.take("deployment", "DeployModel", entry.name)
        deployed = entry.deployed[message.id] = Deployed(message, model)
        model.deployed_models.add(endpoint=entry.name, deployed_model_id=message.id)
        operation = self._operations.begin(entry.name, "DeployModel", api)

        async def work() -> None:
            try:
                key = await self._deployments.start(entry.name, message, found, model.artifact_uri, fault)
                self._complete_deployment(entry, deployed, key, split)
            except (ApiError, asyncio.CancelledError) as error:
                await self._remove_deployed(entry, deployed)
                gone = ApiError("CANCELLED", "The Endpoint was purged.")
                self._operations.fail(operation, error if isinstance(error, ApiError) else gone)
                if isinstance(error, asyncio.CancelledError):
                    raise
                return
            response = V1BETA1.message("DeployModelResponse")(deployed_model=message)
            self._operations.succeed(operation, response)

        deployed.task = self._background.spawn(work(), operation.name)
        return operation

    def _complete_deployment(self, entry: Entry, deployed: Deployed, key: str, split: dict[str, int]) -> None:
        deployed.key = key
        message = deployed.message
        message.create_time.CopyFrom(now())
        message.status.available_replica_count = message.dedicated_resources.min_replica_count
        if split:
            # Other models in the split may have been undeployed in the meantime.
            rules.check_traffic(split, {*_serving(entry), rules.NEW})
            entry.set_traffic({message.id if name == rules.NEW else name: share for name, share in split.items()})
        entry.refresh()

    async def _remove_deployed(self, entry: Entry, deployed: Deployed) -> None:
        if deployed.key is not None:
            await self._deployments.stop(deployed.key)
        entry.deployed.pop(deployed.message.id, None)
        for reference in list(deployed.model.deployed_models):
            if (reference.endpoint, reference.deployed_model_id) == (entry.name, deployed.message.id):
                deployed.model.deployed_models.remove(reference)
        entry.refresh()

    async def undeploy(self, request: Any, api: Api) -> LongRunningOperation:
        """Start to undeploy a model."""
        entry = self.find(request.endpoint, "endpoints.undeploy")
        deployed_id = request.deployed_model_id
        deployed = entry.deployed.get(deployed_id)
        if deployed is None:
            raise ApiError("NOT_FOUND", f"The Endpoint {entry.name!r} has no DeployedModel {deployed_id!r}.")
        if deployed.key is None or deployed.undeploying:
            doing = "deployed" if deployed.key is None else "undeployed"
            raise ApiError(
                "FAILED_PRECONDITION", f"The DeployedModel {deployed_id!r} of {entry.name!r} is being {doing}."
            )
        others = _serving(entry) - {deployed_id}
        split = dict(request.traffic_split) if others else {}
        rules.check_traffic(split, others)
        if others and not split and entry.resource.traffic_split.get(deployed_id):
            raise ApiError(
                "FAILED_PRECONDITION",
                f"The DeployedModel {deployed_id!r} has traffic assigned to it. Send a traffic_split without it.",
            )
        if split or not others:
            entry.set_traffic(split)
        elif deployed_id in entry.resource.traffic_split:
            del entry.resource.traffic_split[deployed_id]
        deployed.undeploying = True
        entry.touch()
        operation = self._operations.begin(entry.name, "UndeployModel", api)

        async def work() -> None:
            await self._remove_deployed(entry, deployed)
            self._operations.succeed(operation, V1BETA1.message("UndeployModelResponse")())

        deployed.task = self._background.spawn(work(), operation.name)
        return operation

    async def purge(self) -> None:
        """Remove every endpoint and its deployed models, whatever operation is in progress."""
        for entry in self.entries():
            for deployed in list(entry.deployed.values()):
                await cancel(deployed.task)
                await self._remove_deployed(entry, deployed)
            self._endpoints.pop(entry.name, None)


def _accepted(given: Any, model: Any) -> Any:
    """Return a caller's deployed model as it is stored: with defaults, without fields that only the service sets."""
    message = DeployedModel()
    message.CopyFrom(given)
    for name in ("create_time", "private_endpoints", "status"):
        message.ClearField(name)
    message.id = message.id or str(secrets.randbelow(9 * 10**18) + 10**18)
    message.model, message.model_version_id = model.name, model.version_id
    message.display_name = message.display_name or model.display_name
    resources = message.dedicated_resources
    resources.max_replica_count = resources.max_replica_count or resources.min_replica_count
    return message


def _serving(entry: Entry) -> set[str]:
    return {name for name, each in entry.deployed.items() if each.key is not None and not each.undeploying}


def _new_id() -> str:
    return str(secrets.randbelow(9 * 10**18) + 10**18)
