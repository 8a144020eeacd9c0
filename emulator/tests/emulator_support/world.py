"""A control plane without a network, on a backend that the test controls."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format
from vertex_ray_emulator.backends.backend import ClusterAddresses
from vertex_ray_emulator.clusters.control_plane import ControlPlane
from vertex_ray_emulator.faults import Faults
from vertex_ray_emulator.project.plan import NodePlan
from vertex_ray_emulator.project.scaling import Demand
from vertex_ray_emulator.settings import Settings
from vertex_ray_emulator.wire.errors import ApiError
from vertex_ray_emulator.wire.protos import V1BETA1, PersistentResource

from emulator_support.process import cluster_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from vertex_ray_emulator.clusters.lifecycle import Cluster
    from vertex_ray_emulator.wire.operations import LongRunningOperation

PARENT = "projects/123456789012/locations/us-central1"


class ScriptedBackend:
    """A backend whose operations complete at once, wait or fail, as the test sets it."""

    def __init__(self) -> None:
        self.running: dict[str, list[str]] = {}
        self.stopped: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.failure: Exception | None = None
        self.wanted = Demand()

    async def _wait_or_fail(self) -> None:
        await self.hold.wait()
        if self.failure is not None:
            raise self.failure

    async def start(self, key: str, nodes: Sequence[NodePlan]) -> ClusterAddresses:
        await self._wait_or_fail()
        self.running[key] = [node.node_id for node in nodes]
        return ClusterAddresses(1, 2)

    async def resize(self, key: str, nodes: Sequence[NodePlan]) -> None:
        await self._wait_or_fail()
        self.running[key] = [node.node_id for node in nodes]

    async def stop(self, key: str) -> None:
        self.running.pop(key, None)
        self.stopped.append(key)

    async def nodes(self, key: str) -> list[dict[str, Any]]:
        return [{"node_id": node, "pool_id": "", "alive": True} for node in self.running.get(key, [])]

    async def demand(self, key: str) -> Demand:
        return self.wanted

    async def kill(self, key: str, part: str, signal_name: str, **target: str | None) -> list[int]:
        return []

    async def close(self) -> None:
        self.running.clear()


class Addresses:
    """A publisher that only remembers which clusters are published."""

    def __init__(self) -> None:
        self.published: set[str] = set()

    async def publish(self, cluster: Cluster, addresses: ClusterAddresses) -> dict[str, str]:
        self.published.add(cluster.key)
        return {"RAY_DASHBOARD_URI": "somewhere"}

    async def withdraw(self, cluster: Cluster) -> None:
        self.published.discard(cluster.key)


class World:
    """A control plane with its backend, publisher and faults."""

    def __init__(self, **settings: Any) -> None:
        quick = {"provisioning_seconds": 0.0, "name_reuse_seconds": 0.0, **settings}
        self.backend = ScriptedBackend()
        self.addresses = Addresses()
        self.faults = Faults()
        self.plane = ControlPlane(
            Settings(state_dir=Path("/nowhere"), **quick), self.backend, self.addresses, self.faults
        )

    async def create(self, cluster_id: str = "c1", body: dict[str, Any] | None = None) -> LongRunningOperation:
        return await self.plane.create(PARENT, cluster_id, parse(body or cluster_body()), V1BETA1)

    async def created(self, cluster_id: str = "c1", body: dict[str, Any] | None = None) -> Any:
        await finished(await self.create(cluster_id, body))
        return await self.get(cluster_id)

    async def get(self, cluster_id: str = "c1") -> Any:
        return await self.plane.get(f"{PARENT}/persistentResources/{cluster_id}")

    async def update(self, workers: int) -> LongRunningOperation:
        wanted = parse(cluster_body(workers))
        wanted.name = f"{PARENT}/persistentResources/c1"
        return await self.plane.update(wanted, ["resource_pools.replica_count"], V1BETA1)

    async def delete(self, cluster_id: str = "c1") -> LongRunningOperation:
        return await self.plane.delete(f"{PARENT}/persistentResources/{cluster_id}", V1BETA1)


def parse(body: dict[str, Any]) -> Any:
    return json_format.ParseDict(body, PersistentResource())


async def finished(operation: LongRunningOperation) -> LongRunningOperation:
    await asyncio.wait_for(operation.finished.wait(), 240)
    return operation


async def refused(work: Awaitable[Any], code: str, words: str = "") -> None:
    with pytest.raises(ApiError) as caught:
        await work
    assert caught.value.code == code
    assert words in caught.value.message
