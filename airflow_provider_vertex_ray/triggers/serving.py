"""Triggers that wait for models and endpoints: the end of an operation, a deployment or an undeployment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.core.polling import Backoff, poll_until
from airflow_provider_vertex_ray.core.serving.resource_name import location_of
from airflow_provider_vertex_ray.errors import DeployFailedError, OperationTimeoutError
from airflow_provider_vertex_ray.triggers.base import KILL_SECONDS, WaitTrigger

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.calls.model import ModelCalls

CLEAN_UP_SECONDS = 3600.0
"""Seconds allowed for cleaning up a failed or killed deployment, which the service may have to finish first."""


class ServingTrigger(WaitTrigger):
    """Base of the triggers in this module.

    :param name: full resource name of what is waited for; it contains the project and the region.
    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param deadline: Unix time at which the wait fails; None for no limit.
    :param passthrough: JSON that is returned in the event unchanged.
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
    def hook(self) -> ModelCalls:
        """The model hook with the task's connection."""
        from airflow_provider_vertex_ray.hooks.calls.model import ModelCalls

        return ModelCalls(
            self.arguments["gcp_conn_id"],
            self.arguments["impersonation_chain"],
            self.name.split("/")[1],
            location_of(self.name),
        )


class VertexRayOperationTrigger(ServingTrigger):
    """Wait for a long-running operation; the result is its response.

    :raises OperationTimeoutError: the operation did not finish before the deadline.
    :raises ServiceError: the operation failed.
    """

    async def wait(self) -> dict[str, Any]:
        """Poll until the operation is done."""
        hook = self.hook
        async with hook.session():
            return await hook.finished(self.name, self.deadline)


class VertexRayEndpointTrigger(ServingTrigger):
    """Wait until an endpoint serves predictions; the result is ``endpoint_summary``.

    :param deployed_model_id: the deployed model that it must serve; None for any.
    :param operation: the operation of the deployment, if this task started it.
    :param poll_interval: seconds between two polls at most; the first ones follow each other faster.
    :param stop_on_kill: whether to undo the deployment when the task is killed.
    :param delete_endpoint: whether undoing the deployment also deletes the endpoint.
    :param previous_split: the endpoint's traffic split from before, which undoing the deployment restores.
    :raises DeployFailedError: the deployment failed.
    :raises OperationTimeoutError: the endpoint did not serve before the deadline.
    :raises EndpointNotFoundError: the endpoint does not exist.
    """

    def __init__(
        self,
        *,
        deployed_model_id: str | None = None,
        operation: str | None = None,
        poll_interval: float = 15.0,
        stop_on_kill: bool = False,
        delete_endpoint: bool = False,
        previous_split: dict[str, int] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(
            deployed_model_id=deployed_model_id,
            operation=operation,
            poll_interval=poll_interval,
            stop_on_kill=stop_on_kill,
            delete_endpoint=delete_endpoint,
            previous_split=previous_split,
            **arguments,
        )

    async def wait(self) -> dict[str, Any]:
        """Poll until the endpoint serves, or the deployment has failed."""
        hook = self.hook

        async def look() -> dict[str, Any] | None:
            found = await hook.get_endpoint(self.name)
            if serves(found, self.arguments["deployed_model_id"]):
                return endpoint_summary(found)
            await self._check_operation(hook)
            return None

        async with hook.session():
            return await poll_until(
                look,
                backoff=Backoff(self.arguments["poll_interval"], first=0.5),
                deadline=self.deadline,
                timed_out=self._timed_out,
                on_unreadable=self.on_unreadable,
            )

    def _timed_out(self) -> OperationTimeoutError:
        return OperationTimeoutError(
            f"Timed out waiting for endpoint {self.name} to serve predictions.", {"endpoint": self.name}
        )

    async def _check_operation(self, hook: ModelCalls) -> None:
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
        """Undo the deployment, which would otherwise incur charges indefinitely."""
        if not self.arguments["stop_on_kill"]:
            return
        self.log.info("The task was killed; undoing the deployment to endpoint %s", self.name)
        # With time left to say that the deployment did not end: it takes longer than a killed task may.
        await self.undo(KILL_SECONDS)

    async def undo(self, seconds: float) -> dict[str, Any]:
        """Cancel the deployment, undeploy its model, and delete the endpoint if it was created for it.

        :param seconds: seconds allowed for that.
        :raises OperationTimeoutError: the deployment has not ended by then; its model may incur charges later.
        """
        return await _undo(
            self.hook, self.name, [self.arguments["deployed_model_id"]], deadline_after(seconds), self.arguments
        )


class VertexRayUndeployTrigger(ServingTrigger):
    """Undeploy models, wait, and optionally delete the endpoint; see ``ModelCalls.undeploy``.

    :param deployed_model_ids: ids of the deployed models; None for all.
    :param delete_endpoint: whether to delete the endpoint as well.
    :param undo: whether this undoes a deployment: it is cancelled or waited for, until its model can be undeployed.
    :param operation: operation of that deployment, if it is known.
    :param previous_split: the endpoint's traffic split before that deployment, which is restored; None if not known.
    :raises OperationTimeoutError: the models were not undeployed before the deadline.
    """

    def __init__(
        self,
        *,
        deployed_model_ids: list[str] | None = None,
        delete_endpoint: bool = False,
        undo: bool = False,
        operation: str | None = None,
        previous_split: dict[str, int] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(
            deployed_model_ids=deployed_model_ids,
            delete_endpoint=delete_endpoint,
            undo=undo,
            operation=operation,
            previous_split=previous_split,
            **arguments,
        )

    async def wait(self) -> dict[str, Any]:
        """Undeploy; a trigger that takes over continues with what is left."""
        ids = self.arguments["deployed_model_ids"]
        if self.arguments["undo"]:
            return await _undo(self.hook, self.name, ids, self.deadline, self.arguments)
        hook = self.hook
        async with hook.session():
            return await hook.undeploy(self.name, ids, self.deadline, delete=self.arguments["delete_endpoint"])

    async def killed(self) -> None:
        """Undo the deployment in the time that is left; what a killed teardown has not undeployed stays."""
        if self.arguments["undo"]:
            deadline = deadline_after(KILL_SECONDS)
            await _undo(self.hook, self.name, self.arguments["deployed_model_ids"], deadline, self.arguments)


async def _undo(
    hook: ModelCalls, name: str, ids: list[str] | None, deadline: float | None, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Undo a deployment as a trigger's arguments describe it."""
    from airflow_provider_vertex_ray.hooks.calls.undeployment import Undo

    undo = Undo(arguments["operation"], arguments["previous_split"])
    async with hook.session():
        return await hook.undeploy(name, ids, deadline, delete=arguments["delete_endpoint"], undo=undo)


def serves(endpoint: dict[str, Any], deployed_model_id: str | None = None) -> bool:
    """Check whether an endpoint serves a deployed model (None: any that gets traffic)."""
    deployed = {str(each["id"]) for each in endpoint.get("deployedModels") or ()}
    if deployed_model_id is not None:
        # A model may be deployed without any traffic at first.
        return deployed_model_id in deployed
    return any(share and key in deployed for key, share in (endpoint.get("trafficSplit") or {}).items())


def endpoint_summary(endpoint: dict[str, Any]) -> dict[str, Any]:
    """Return an endpoint as tasks report it."""
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
