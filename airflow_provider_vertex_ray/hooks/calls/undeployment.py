"""Undeploy models from an endpoint, also those whose deployment is still in progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_vertex_ray.core.polling import TRANSIENT_ERRORS, Backoff, poll_until
from airflow_provider_vertex_ray.core.serving.client import ServingApi
from airflow_provider_vertex_ray.core.serving.traffic import restored_split, split_without
from airflow_provider_vertex_ray.errors import (
    EndpointNotFoundError,
    OperationTimeoutError,
    PreconditionError,
    RateLimitedError,
    ServiceUnavailableError,
    TrafficError,
    VertexRayError,
)

log = logging.getLogger(__name__)

SETTLE_SECONDS = 300.0
"""Seconds for which an endpoint must show no deployment, before one that may have been requested counts as none."""


@dataclass(frozen=True)
class Undo:
    """A deployment that is undone: the endpoint lists its model only once the deployment has ended.

    :param operation: the operation of the deployment; None if it is not known, as after a lost answer.
    :param previous_split: traffic split of the endpoint before the deployment, to be restored; None if not known.
    """

    operation: str | None = None
    previous_split: dict[str, int] | None = None


@dataclass
class Undeployment:
    """Undeploy models, wait for that, and optionally delete the endpoint; see ``ModelCalls.undeploy``.

    :param api: the client.
    :param name: full resource name of the endpoint.
    :param ids: ids of the deployed models; None for all.
    :param deadline: Unix time at which the wait fails; None for no limit.
    :param delete: whether to delete the endpoint as well, if no deployed model remains.
    :param undo: the deployment that is undone, if this is about one.
    :param finished: waits for an operation until the deadline.
    :param pauses: first and longest pause in seconds between two polls.
    """

    api: ServingApi
    name: str
    ids: list[str] | None
    deadline: float | None
    delete: bool
    undo: Undo | None
    finished: Callable[[str, float | None], Awaitable[dict[str, Any]]]
    pauses: tuple[float, float]

    def __post_init__(self) -> None:
        self._undeployed: list[str] = []
        self._operation = self.undo.operation if self.undo else None
        self._begin = time.monotonic()

    async def run(self) -> dict[str, Any]:
        """Undeploy, wait, and return the ids of the undeployed models and whether the endpoint was deleted."""
        first, longest = self.pauses
        last: VertexRayError | None = None

        async def look() -> dict[str, Any] | None:
            nonlocal last
            try:
                # Asked before the endpoint is read: a deployment that ends in between is seen with the next poll.
                ended = await self._deployment_ended()
                found = await self._step(ended)
            except EndpointNotFoundError:
                return self._result(False)
            last = None
            return found

        def on_unreadable(error: VertexRayError, seconds: float) -> None:
            # Another operation is in progress on the endpoint, such as a deployment that is being cancelled.
            nonlocal last
            last = error
            if seconds > 0:
                log.info("Endpoint %s cannot be changed yet; retrying in %.1f s: %s", self.name, seconds, error)

        return await poll_until(
            look,
            backoff=Backoff(longest, first=first),
            deadline=self.deadline,
            timed_out=lambda: last or self._late(),
            on_unreadable=on_unreadable,
            transient=(PreconditionError, *TRANSIENT_ERRORS),
            cut_off=False,
        )

    def _late(self) -> OperationTimeoutError:
        model = f"the model {self.ids[0]}" if self.ids else "the model"
        return OperationTimeoutError(
            f"Timed out waiting for a deployment to {self.name} to end; {model} may still be deployed, and then incurs "
            "charges until it is undeployed.",
            {"endpoint": self.name, "deployed_model_ids": self.ids},
        )

    async def _step(self, ended: bool) -> dict[str, Any] | None:
        """Undeploy what the endpoint lists; return the result, or None while a model may still be deployed."""
        while True:
            there = await self.api.get_endpoint(self.name)
            have = [str(each["id"]) for each in there.get("deployedModels") or ()]
            shares: dict[str, int] = {key: int(share) for key, share in (there.get("trafficSplit") or {}).items()}
            todo = [each for each in have if self.ids is None or each in self.ids]
            # The last one then needs no traffic split.
            todo.sort(key=lambda each: shares.get(each) or 0)
            if not todo:
                break
            await self._undeploy(todo[0], [each for each in have if each != todo[0]], shares)
        if self.delete and not have:
            # The service rejects this while a model is being deployed.
            operation = await self.api.delete_endpoint(self.name)
            if operation is not None:
                await self.finished(operation, self.deadline)
            return self._result(True)
        return self._result(False) if ended or self._all_undeployed() else None

    async def _undeploy(self, gone: str, left: list[str], shares: dict[str, int]) -> None:
        previous = self.undo.previous_split if self.undo else None
        split = split_without(shares, gone) if previous is None else restored_split(shares, previous, gone, left)
        if split == {} and left:
            # An empty split is the same as none, which the service rejects.
            if previous is None:
                raise TrafficError(
                    f"Deployed model {gone} has all the traffic of {self.name}, and {', '.join(left)} would remain "
                    "without any.",
                    {"endpoint": self.name, "deployed_model_id": gone},
                )
            log.warning("Endpoint %s gets no traffic, because no model that remains had any before", self.name)
            await self.api.clear_traffic(self.name)
            split = None
        operation = await self.api.undeploy_model(self.name, gone, split)
        if operation is not None:
            await self.finished(operation, self.deadline)
        self._undeployed.append(gone)

    async def _deployment_ended(self) -> bool:
        """Tell whether no model that is to be undeployed can still be added by a deployment."""
        if self._all_undeployed():
            return True
        if self._operation is not None:
            try:
                return bool((await self.api.operation(self._operation)).get("done"))
            except TRANSIENT_ERRORS:
                raise
            except VertexRayError as error:
                log.warning("Could not read operation %s: %s", self._operation, error.message)
                self._operation = None
        return await self._no_deployment_shown()

    def _all_undeployed(self) -> bool:
        return self.ids is not None and set(self.ids) <= set(self._undeployed)

    async def _no_deployment_shown(self) -> bool:
        """Tell by the list of the endpoint's operations whether no deployment is in progress."""
        try:
            operations = await self.api.endpoint_operations(self.name)
        except (EndpointNotFoundError, ServiceUnavailableError, RateLimitedError):
            raise
        except VertexRayError as error:
            log.warning("Could not list the operations of endpoint %s: %s", self.name, error.message)
            return self.undo is None
        if any(_deploys(each) and not each.get("done") for each in operations):
            return False
        if self.undo is None:
            return True
        # A request whose answer was lost may take effect late. An empty list proves nothing: each endpoint has had an
        # operation.
        return bool(operations) and time.monotonic() - self._begin >= SETTLE_SECONDS

    def _result(self, deleted: bool) -> dict[str, Any]:
        return {"undeployed": self._undeployed, "endpoint_deleted": deleted}


def _deploys(operation: dict[str, Any]) -> bool:
    kind = str((operation.get("metadata") or {}).get("@type", ""))
    return kind.endswith(".DeployModelOperationMetadata")
