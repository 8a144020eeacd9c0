"""Lifecycle of clusters: the work of a create, a resize and a delete after the request was accepted."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from vertex_ray_emulator.outcomes import did_not_start, failure, internal
from vertex_ray_emulator.project.plan import count_by_pool, is_ray, node_plan, without_last_worker
from vertex_ray_emulator.wire.background import cancel
from vertex_ray_emulator.wire.errors import ApiError
from vertex_ray_emulator.wire.protos import PersistentResource, State, state_name

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from vertex_ray_emulator.backends.backend import ClusterAddresses, ClusterBackend
    from vertex_ray_emulator.faults import Fault
    from vertex_ray_emulator.project.plan import NodePlan
    from vertex_ray_emulator.settings import Settings
    from vertex_ray_emulator.wire.operations import LongRunningOperation, Operations

log = logging.getLogger(__name__)


def now() -> Any:
    """Return the current time as a protobuf timestamp."""
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp


@dataclass
class Cluster:
    """A persistent resource and its state in the emulator.

    :param resource: the v1beta1 message that callers see.
    :param key: key of the cluster in the backend and in the host name of its dashboard; never reused.
    :param operation: the latest operation.
    :param addresses: addresses in the backend; None before the cluster has started, and for a resource without Ray.
    :param task: background work of the latest operation.
    :param listed: whether List returns it; a leaked resource that hangs in PROVISIONING is not listed.
    :param nodes: nodes that the cluster has been given; empty before it has started.
    :param settled: set once the resource is no longer PROVISIONING.
    """

    resource: Any
    key: str
    operation: LongRunningOperation
    addresses: ClusterAddresses | None = None
    task: asyncio.Task[None] | None = None
    listed: bool = True
    nodes: list[NodePlan] = field(default_factory=list)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """Name of the resource, with the project's number."""
        return str(self.resource.name)

    @property
    def id(self) -> str:
        """Cluster id."""
        return self.name.rsplit("/", 1)[1]

    @property
    def region(self) -> str:
        """Location of the resource."""
        return self.name.split("/")[3]

    @property
    def state(self) -> str:
        """Name of the state."""
        return state_name(self.resource)

    def set_state(self, state: str, error: ApiError | None = None) -> None:
        """Change the state, and the timestamps that depend on it.

        :param state: name of the new state.
        :param error: error of the resource; None clears it.
        """
        self.resource.state = State.Value(state)
        self.resource.update_time.CopyFrom(now())
        self.resource.ClearField("error")
        if error is not None:
            self.resource.error.code, self.resource.error.message = error.number, error.message
        if state == "RUNNING" and not self.resource.HasField("start_time"):
            self.resource.start_time.CopyFrom(now())
        if state == "PROVISIONING":
            self.settled.clear()
        else:
            self.settled.set()

    def set_nodes(self, nodes: list[NodePlan]) -> None:
        """Set the nodes, and with them the number of live nodes of each pool."""
        self.nodes = nodes
        counts = count_by_pool(nodes)
        for pool in self.resource.resource_pools:
            pool.used_replica_count = counts.get(pool.id, 0)


class Publisher(Protocol):
    """Makes a started cluster reachable, and unreachable again."""

    async def publish(self, cluster: Cluster, addresses: ClusterAddresses) -> dict[str, str]:
        """Open the dashboard and the Ray Client to callers and return the access URIs."""
        ...

    async def withdraw(self, cluster: Cluster) -> None:
        """Close both again; does nothing for a cluster that is not published."""
        ...


class Lifecycle:
    """Carries out the operations that the control plane accepted.

    :param settings: minimum durations.
    :param backend: starts and stops the nodes.
    :param publisher: makes dashboards reachable.
    :param operations: operations that the work completes.
    """

    def __init__(
        self, settings: Settings, backend: ClusterBackend, publisher: Publisher, operations: Operations
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._publisher = publisher
        self._operations = operations
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, cluster: Cluster, work: Coroutine[Any, Any, None]) -> None:
        """Run work on a cluster in the background."""
        cluster.task = asyncio.get_running_loop().create_task(work, name=cluster.key)
        self._tasks.add(cluster.task)
        cluster.task.add_done_callback(self._tasks.discard)

    async def provision(self, cluster: Cluster, operation: LongRunningOperation, fault: Fault | None) -> None:
        """Create a cluster: PROVISIONING, then RUNNING or ERROR."""
        try:
            await self._apply_fault(fault, cluster)
            if is_ray(cluster.resource):
                nodes = node_plan(cluster.resource)
                if fault is not None and fault.outcome == "partial":
                    nodes = without_last_worker(nodes)
                addresses, _ = await asyncio.gather(
                    self._backend.start(cluster.key, nodes),
                    asyncio.sleep(self._settings.provisioning_seconds),
                )
                uris = await self._publisher.publish(cluster, addresses)
                cluster.addresses = addresses
                cluster.resource.resource_runtime.access_uris.update(uris)
                cluster.set_nodes(nodes)
            else:
                await asyncio.sleep(self._settings.provisioning_seconds)
        except ApiError as error:
            await asyncio.sleep(self._settings.provisioning_seconds)
            if (seconds := self._leaks_for(fault)) is not None:
                self._operations.fail(operation, error)
                await asyncio.sleep(seconds)
            await self._fail(cluster, operation, error)
        except Exception as error:
            log.exception("Cluster %s did not start", cluster.key)
            await self._fail(cluster, operation, did_not_start(error))
        else:
            cluster.listed = True
            cluster.set_state("RUNNING")
            self._operations.succeed(operation, cluster.resource)

    def _leaks_for(self, fault: Fault | None) -> float | None:
        """Return for how long what a failed create leaves behind stays PROVISIONING; None if it turns to ERROR."""
        if fault is None:
            return None
        if fault.outcome == "leak":
            return fault.delay or self._settings.leak_seconds
        leaks = self._settings.has("leaked-creates") and fault.outcome in ("quota", "stockout", "internal")
        return self._settings.leak_seconds if leaks else None

    async def _apply_fault(self, fault: Fault | None, cluster: Cluster) -> None:
        """Apply a provisioning fault, except for the outcome ``partial``."""
        if fault is None:
            return
        if fault.outcome == "stuck":
            await (asyncio.sleep(fault.delay) if fault.delay else asyncio.Event().wait())
            raise internal()
        if fault.outcome == "leak":
            raise internal()
        await asyncio.sleep(fault.delay)
        recorded = self._settings.has("recorded-texts")
        if error := failure(fault, cluster.resource, cluster.region, recorded=recorded):
            raise error

    async def _fail(self, cluster: Cluster, operation: LongRunningOperation, error: ApiError) -> None:
        try:
            await self._publisher.withdraw(cluster)
            await self._backend.stop(cluster.key)
        except Exception:
            log.exception("Cluster %s could not be stopped", cluster.key)
        cluster.addresses = None
        cluster.listed = True
        cluster.nodes = []
        cluster.resource.ClearField("resource_runtime")
        cluster.set_state("ERROR", error)
        self._operations.fail(operation, error)

    async def resize(
        self, cluster: Cluster, operation: LongRunningOperation, counts: dict[str, int], fault: Fault | None
    ) -> None:
        """Resize a cluster: UPDATING, then RUNNING, with the old counts if the resize is refused."""
        target = PersistentResource()
        target.CopyFrom(cluster.resource)
        for pool in target.resource_pools:
            pool.replica_count = counts[pool.id]
        try:
            await self._apply_fault(fault, cluster)
            nodes = node_plan(target, [node.node_id for node in cluster.nodes])
            if fault is not None and fault.outcome == "partial":
                nodes = without_last_worker(nodes)
            work = [asyncio.sleep(self._settings.resize_seconds)]
            if is_ray(cluster.resource):
                work.append(self._backend.resize(cluster.key, nodes))
            await asyncio.gather(*work)
        except ApiError as error:
            # All nodes are still there, so the cluster keeps running as before.
            await asyncio.sleep(self._settings.resize_seconds)
            cluster.set_state("RUNNING")
            self._operations.fail(operation, error)
        except Exception as error:
            log.exception("Cluster %s could not be resized", cluster.key)
            await self._fail(cluster, operation, did_not_start(error))
        else:
            for pool in cluster.resource.resource_pools:
                pool.replica_count = counts[pool.id]
            if is_ray(cluster.resource):
                cluster.set_nodes(nodes)
            cluster.set_state("RUNNING")
            self._operations.succeed(operation, cluster.resource)

    async def scale(self, cluster: Cluster, wanted: dict[str, list[str]]) -> None:
        """Give autoscaling pools other nodes: UPDATING, then RUNNING.

        :param cluster: cluster, which is UPDATING.
        :param wanted: ids of the nodes of each pool that changes.
        """
        target = PersistentResource()
        target.CopyFrom(cluster.resource)
        ids = {node.node_id for node in cluster.nodes if node.pool_id not in wanted}
        for pool in target.resource_pools:
            if pool.id in wanted:
                pool.replica_count = len(wanted[pool.id])
                ids.update(wanted[pool.id])
        nodes = node_plan(target, ids)
        before, after = len(cluster.nodes), len(nodes)
        log.info("Autoscaling cluster %s from %d to %d nodes", cluster.key, before, after)
        try:
            await asyncio.gather(self._backend.resize(cluster.key, nodes), asyncio.sleep(self._settings.resize_seconds))
        except Exception:
            # The next look at its demand tries again.
            log.exception("Cluster %s could not be scaled", cluster.key)
        else:
            for pool in cluster.resource.resource_pools:
                if pool.id in wanted:
                    pool.replica_count = len(wanted[pool.id])
            cluster.set_nodes(nodes)
        cluster.set_state("RUNNING")

    async def remove(
        self,
        cluster: Cluster,
        operation: LongRunningOperation,
        running: asyncio.Task[None] | None,
        fault: Fault | None,
        forget: Callable[[], None],
    ) -> None:
        """Delete a cluster: STOPPING, then gone. Work in progress is cancelled first."""
        await cancel(running)
        await self._publisher.withdraw(cluster)
        try:
            await asyncio.gather(self._backend.stop(cluster.key), asyncio.sleep(self._settings.delete_seconds))
        except Exception:
            log.exception("Cluster %s could not be stopped", cluster.key)
            cluster.set_state("ERROR", internal())
            self._operations.fail(operation, internal())
            return
        if fault is not None and fault.outcome == "stuck":
            await (asyncio.sleep(fault.delay) if fault.delay else asyncio.Event().wait())
        forget()
        self._operations.succeed(operation, None)

    async def discard(self, cluster: Cluster) -> None:
        """Stop everything that runs for a cluster."""
        await self._publisher.withdraw(cluster)
        await self._backend.stop(cluster.key)

    async def restart(self, cluster: Cluster) -> None:
        """Start a cluster that never started or was put into ERROR; return once it is RUNNING or in ERROR."""
        cluster.set_state("PROVISIONING")
        await self._backend.stop(cluster.key)
        self.spawn(cluster, self.provision(cluster, cluster.operation, None))
        await cluster.settled.wait()

    async def close(self, clusters: list[Cluster]) -> None:
        """Cancel all work and stop every cluster; when this returns, no process of them is left."""
        for task in list(self._tasks):
            await cancel(task)
        for cluster in clusters:
            await self._publisher.withdraw(cluster)
        await self._backend.close()
