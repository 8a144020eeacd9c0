"""Waiting for models and endpoints: an operation's end, a deployment, an endpoint that serves, an undeployment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.deadlines import deadline_after, seconds_left
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.core.serving.resource_name import location_of
from airflow_provider_vertex_ray.errors import (
    DeployFailedError,
    EndpointNotFoundError,
    OperationTimeoutError,
    RateLimitedError,
    ServiceUnavailableError,
)
from airflow_provider_vertex_ray.triggers.base import WaitTrigger, pause

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.model import VertexRayModelAsyncHook

CLEAN_UP_SECONDS = 3600.0
"""Seconds for the clean-up after a deployment that failed: the service may first have to end it."""


class ServingTrigger(WaitTrigger):
    """Base of the waits here.

    :param name: Full resource name of what is waited for; says the project and the region.
    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain.
    :param deadline: Unix time at which the wait ends with an error; None for never.
    :param passthrough: JSON that is handed back in the event as it is.
    """

    def __init__(
        self,
        *,
        name: str,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        deadline: float | None = None,
        passthrough: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(
            name=name,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            deadline=deadline,
            passthrough=passthrough,
            **more,
        )
        self.name = name
        self.deadline = deadline

    @property
    def hook(self) -> VertexRayModelAsyncHook:
        """Models and endpoints, through the task's connection."""
        from airflow_provider_vertex_ray.hooks.model import VertexRayModelAsyncHook

        return VertexRayModelAsyncHook(
            self.arguments["gcp_conn_id"],
            self.arguments["impersonation_chain"],
            self.name.split("/")[1],
            location_of(self.name),
        )


class VertexRayOperationTrigger(ServingTrigger):
    """Waits for a long-running operation; the result is its response.

    Errors: OperationTimeoutError, and what the operation came to.
    """

    async def wait(self) -> dict[str, Any]:
        """Look until it is done."""
        hook = self.hook
        async with hook.session():
            return await hook.finished(self.name, self.deadline)


class VertexRayEndpointTrigger(ServingTrigger):
    """Waits until an endpoint serves; the result is ``endpoint_summary``.

    :param deployed_model_id: The deployed model that it shall serve; None: any.
    :param operation: The deployment's operation, where this task has started it.
    :param poll_interval: Seconds between two looks; the first ones come sooner.
    :param stop_on_kill: Whether a kill undoes the deployment.
    :param delete_endpoint: Whether that deletes the endpoint, too.

    Errors: DeployFailedError, OperationTimeoutError, EndpointNotFoundError.
    """

    def __init__(
        self,
        *,
        deployed_model_id: str | None = None,
        operation: str | None = None,
        poll_interval: float = 15.0,
        stop_on_kill: bool = False,
        delete_endpoint: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(
            deployed_model_id=deployed_model_id,
            operation=operation,
            poll_interval=poll_interval,
            stop_on_kill=stop_on_kill,
            delete_endpoint=delete_endpoint,
            **arguments,
        )
        self._interval = min(0.5, poll_interval)

    async def wait(self) -> dict[str, Any]:
        """Look until it serves, or the deployment has failed."""
        hook = self.hook
        async with hook.session():
            while True:
                try:
                    found = await hook.get_endpoint(self.name)
                    if serves(found, self.arguments["deployed_model_id"]):
                        return endpoint_summary(found)
                    await self._check_operation(hook)
                except (ServiceUnavailableError, RateLimitedError) as error:
                    self.log.warning("The service can not be read for the moment: %s", error)
                if seconds_left(self.deadline) <= 0:
                    raise OperationTimeoutError(f"{self.name} did not serve in time.", {"endpoint": self.name})
                await pause(self._interval, self.deadline)
                self._interval = min(self._interval * 1.5, self.arguments["poll_interval"])

    async def _check_operation(self, hook: VertexRayModelAsyncHook) -> None:
        operation = self.arguments["operation"]
        if operation is None:
            return
        found = await hook.get_operation(operation)
        error = found.get("error")
        if found.get("done") and error:
            typed = outcome_error(str(error.get("message", "")), error.get("code"))
            raise DeployFailedError(
                f"The model was not deployed: {typed.message}",
                {**typed.details, "endpoint": self.name, "reason": type(typed).__name__},
            )

    async def killed(self) -> None:
        """Undo the deployment: it would bill for ever."""
        if not self.arguments["stop_on_kill"]:
            return
        self.log.info("The task was killed; undoing the deployment to %s", self.name)
        await self.undo()

    async def undo(self) -> dict[str, Any]:
        """Cancel the deployment, undeploy what it came to, and delete the endpoint that was made for it."""
        hook = self.hook
        async with hook.session():
            if self.arguments["operation"]:
                await hook.cancel_operation(self.arguments["operation"])
            try:
                return await hook.undeploy(
                    self.name,
                    [self.arguments["deployed_model_id"]],
                    deadline_after(CLEAN_UP_SECONDS),
                    delete=self.arguments["delete_endpoint"],
                )
            except EndpointNotFoundError:
                return {"undeployed": [], "endpoint_deleted": False}


class VertexRayUndeployTrigger(ServingTrigger):
    """Undeploys models, waits, and deletes the endpoint where that is wanted; see ``VertexRayModelAsyncHook.undeploy``.

    :param deployed_model_ids: Which; None for all.
    :param delete_endpoint: Whether the endpoint goes as well.
    :param operation: A deployment that is cancelled first.
    """

    def __init__(
        self,
        *,
        deployed_model_ids: list[str] | None = None,
        delete_endpoint: bool = False,
        operation: str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(
            deployed_model_ids=deployed_model_ids, delete_endpoint=delete_endpoint, operation=operation, **arguments
        )

    async def wait(self) -> dict[str, Any]:
        """Do it; whoever takes over goes on where this one was."""
        hook = self.hook
        async with hook.session():
            if self.arguments["operation"]:
                await hook.cancel_operation(self.arguments["operation"])
            return await hook.undeploy(
                self.name,
                self.arguments["deployed_model_ids"],
                self.deadline,
                delete=self.arguments["delete_endpoint"],
            )


def serves(endpoint: dict[str, Any], deployed_model_id: str | None = None) -> bool:
    """Whether an endpoint has the deployed model, or any, with traffic for it."""
    deployed = {str(each["id"]) for each in endpoint.get("deployedModels") or ()}
    if deployed_model_id is not None:
        # Someone may deploy a model without any traffic at first.
        return deployed_model_id in deployed
    return any(share and key in deployed for key, share in (endpoint.get("trafficSplit") or {}).items())


def endpoint_summary(endpoint: dict[str, Any]) -> dict[str, Any]:
    """What a task returns of an endpoint."""
    return {
        "endpoint": endpoint["name"],
        "endpoint_id": endpoint["name"].rsplit("/", 1)[-1],
        "display_name": endpoint.get("displayName", ""),
        "deployed_models": {
            str(each["id"]): {"model": each.get("model"), "display_name": each.get("displayName", "")}
            for each in endpoint.get("deployedModels") or ()
        },
        "traffic_split": dict(endpoint.get("trafficSplit") or {}),
        "labels": dict(endpoint.get("labels") or {}),
    }
