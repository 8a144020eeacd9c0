"""Models, endpoints and predictions as a whole: wires the parts together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.serving.deployments import Deployments
from vertex_ray_emulator.serving.endpoints import Endpoints
from vertex_ray_emulator.serving.model_registry import ModelRegistry
from vertex_ray_emulator.serving.prediction import Prediction
from vertex_ray_emulator.serving.predictors import Predictors
from vertex_ray_emulator.serving.serving_api import Rpc, rpcs
from vertex_ray_emulator.wire.background import Background, shielded
from vertex_ray_emulator.wire.names import Names

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from vertex_ray_emulator.faults import Faults
    from vertex_ray_emulator.settings import Settings
    from vertex_ray_emulator.wire.operations import Operations


class Serving:
    """The model registry, the endpoints and their predictors.

    :param settings: delays, the project and the state directory.
    :param operations: long-running operations.
    :param faults: faults, which may decide the outcome of a deployment.
    :param storage_host: returns the address of Cloud Storage; None without one.
    """

    def __init__(
        self, settings: Settings, operations: Operations, faults: Faults, storage_host: Callable[[], str | None]
    ) -> None:
        names = Names(settings)
        self._background = Background(operations)
        self._predictors = Predictors(settings.state_dir, storage_host)
        self._predictors.clear()
        self.models = ModelRegistry(names, operations, self._background)
        deployments = Deployments(self._predictors, settings.deploy_seconds)
        self.endpoints = Endpoints(names, self.models, deployments, operations, self._background, faults)
        self._prediction = Prediction(self.endpoints, self._predictors)

    def rpcs(self) -> list[Rpc]:
        """Return the RPCs of the services."""
        return rpcs(self.models, self.endpoints, self._prediction)

    def describe(self) -> list[dict[str, Any]]:
        """Return all endpoints with their deployed models and process ids, as JSON objects."""
        return [
            {
                "name": entry.name,
                "id": entry.name.rsplit("/", 1)[1],
                "displayName": entry.resource.display_name,
                "trafficSplit": dict(entry.resource.traffic_split),
                "deployedModels": [
                    {
                        "id": deployed_id,
                        "model": f"{deployed.message.model}@{deployed.message.model_version_id}",
                        "state": _state(deployed.key, undeploying=deployed.undeploying),
                        "pid": self._predictors.pid(deployed.key) if deployed.key else None,
                    }
                    for deployed_id, deployed in sorted(entry.deployed.items())
                ],
            }
            for entry in self.endpoints.entries()
        ]

    def kill(self, endpoint_id: str, deployed_id: str | None, number: signal.Signals) -> list[int]:
        """Send a signal to predictors of an endpoint and return the process ids that received it.

        :param endpoint_id: id or full name of the endpoint.
        :param deployed_id: id of a deployed model; None for all of the endpoint.
        :param number: signal to send.
        :raises LookupError: if the endpoint does not exist.
        """
        entries = [e for e in self.endpoints.entries() if endpoint_id in (e.name, e.name.rsplit("/", 1)[1])]
        if not entries:
            raise LookupError(f"Endpoint {endpoint_id!r} does not exist.")
        return [
            pid
            for name, deployed in entries[0].deployed.items()
            if deployed.key and deployed_id in (None, name)
            for pid in self._predictors.kill(deployed.key, number)
        ]

    async def purge(self) -> None:
        """Remove all endpoints and all models, whatever operations are in progress."""
        # Also when the client disconnects, which cancels its request.
        await shielded(self._purge())

    async def _purge(self) -> None:
        await self.endpoints.purge()
        self.models.purge()

    async def close(self) -> None:
        """Cancel all work and stop every predictor; when this returns, no process of them is left."""
        await self._background.close()
        await self._predictors.close()


def _state(key: str | None, *, undeploying: bool) -> str:
    if undeploying:
        return "UNDEPLOYING"
    return "DEPLOYING" if key is None else "DEPLOYED"
