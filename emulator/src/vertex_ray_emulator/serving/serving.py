"""Models, endpoints and predictions as a whole: what is wired to what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.serving.deployments import Deployments
from vertex_ray_emulator.serving.endpoints import Endpoints
from vertex_ray_emulator.serving.model_registry import ModelRegistry
from vertex_ray_emulator.serving.prediction import Prediction
from vertex_ray_emulator.serving.predictors import Predictors
from vertex_ray_emulator.serving.serving_api import Rpc, rpcs
from vertex_ray_emulator.wire.background import Background
from vertex_ray_emulator.wire.names import Names

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from vertex_ray_emulator.faults import Faults
    from vertex_ray_emulator.settings import Settings
    from vertex_ray_emulator.wire.operations import Operations


class Serving:
    """The model registry, the endpoints and their predictors.

    :param settings: Times, the project and the state directory.
    :param operations: Where long-running operations are.
    :param faults: Asked for the outcome of each deployment.
    :param storage_host: Gives the address of Cloud Storage; None where there is none.
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
        """What callers can ask."""
        return rpcs(self.models, self.endpoints, self._prediction)

    def describe(self) -> list[dict[str, Any]]:
        """All endpoints with their deployed models and the processes behind them."""
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
                        "state": _state(deployed.key, leaving=deployed.leaving),
                        "pid": self._predictors.pid(deployed.key) if deployed.key else None,
                    }
                    for deployed_id, deployed in sorted(entry.deployed.items())
                ],
            }
            for entry in self.endpoints.entries()
        ]

    def kill(self, endpoint_id: str, deployed_id: str | None, number: signal.Signals) -> list[int]:
        """Send a signal to the predictors of an endpoint, or to one of them; gives the pids that got it.

        :raises LookupError: There is no such endpoint.
        """
        entries = [e for e in self.endpoints.entries() if endpoint_id in (e.name, e.name.rsplit("/", 1)[1])]
        if not entries:
            raise LookupError(f"there is no endpoint {endpoint_id!r}")
        return [
            pid
            for name, deployed in entries[0].deployed.items()
            if deployed.key and deployed_id in (None, name)
            for pid in self._predictors.kill(deployed.key, number)
        ]

    async def purge(self) -> None:
        """Remove all endpoints and all models, whatever they are doing."""
        await self.endpoints.purge()
        self.models.purge()

    async def close(self) -> None:
        """Give up all work and end every predictor; nothing of them is left when it returns."""
        await self._background.close()
        await self._predictors.close()


def _state(key: str | None, *, leaving: bool) -> str:
    if leaving:
        return "UNDEPLOYING"
    return "DEPLOYING" if key is None else "DEPLOYED"
