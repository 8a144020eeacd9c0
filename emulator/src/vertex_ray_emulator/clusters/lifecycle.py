"""The lives of clusters: what goes on behind a create, a resize and a delete after they were accepted."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from vertex_ray_emulator.outcomes import failure, internal
from vertex_ray_emulator.project.plan import count_by_pool, is_ray, node_plan, one_short
from vertex_ray_emulator.wire.background import cancel
from vertex_ray_emulator.wire.errors import ApiError
from vertex_ray_emulator.wire.protos import PersistentResource, State, state_name

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from vertex_ray_emulator.backends.backend import ClusterAddresses, ClusterBackend
    from vertex_ray_emulator.faults import Fault
    from vertex_ray_emulator.project.plan import NodePlan
    from vertex_ray_emulator.settings import Settings
    from vertex_ray_emulator.wire.operations import Operations, Running

log = logging.getLogger(__name__)


def now() -> Any:
    """The present time as a protobuf timestamp."""
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp


@dataclass
class Cluster:
    """A persistent resource and what belongs to it here.

    :param resource: The v1beta1 message; what callers see.
    :param key: Names it for the backend and in its dashboard's host; never used twice.
    :param operation: The operation that is or was last under way.
    :param addresses: Where the backend serves it; None before it has started, and for one without Ray.
    :param listed: Whether List shows it; a leaked resource that hangs in PROVISIONING is not shown.
    :param settled: Set when it is no longer PROVISIONING.
    """

    resource: Any
    key: str
    operation: Running
    addresses: ClusterAddresses | None = None
    task: asyncio.Task[None] | None = None
    listed: bool = True
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """The resource's name, with the project's number."""
        return str(self.resource.name)

    @property
    def id(self) -> str:
        """The cluster id."""
        return self.name.rsplit("/", 1)[1]

    @property
    def region(self) -> str:
        """The location."""
        return self.name.split("/")[3]

    @property
    def state(self) -> str:
        """The state's name."""
        return state_name(self.resource)

    def become(self, state: str, error: ApiError | None = None) -> None:
        """Change the state."""
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
        """Say how many nodes of each pool are live."""
        counts = count_by_pool(nodes)
        for pool in self.resource.resource_pools:
            pool.used_replica_count = counts.get(pool.id, 0)


class Publisher(Protocol):
    """Makes a started cluster reachable, and unreachable again."""

    async def publish(self, cluster: Cluster, addresses: ClusterAddresses) -> dict[str, str]:
        """Open its dashboard and its Ray Client to callers; gives the access URIs."""
        ...

    async def withdraw(self, cluster: Cluster) -> None:
        """Close them. Does nothing for one that is not published."""
        ...


class Lifecycle:
    """Carries out what the control plane accepted.

    :param settings: How long things take at least.
    :param backend: Starts and stops the nodes.
    :param publisher: Makes dashboards reachable.
    :param operations: Where each piece of work ends its operation.
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
        """Carry out a piece of work on a cluster, in the background."""
        cluster.task = asyncio.get_running_loop().create_task(work, name=cluster.key)
        self._tasks.add(cluster.task)
        cluster.task.add_done_callback(self._tasks.discard)

    async def provision(self, cluster: Cluster, operation: Running, fault: Fault | None) -> None:
        """Create: PROVISIONING, then RUNNING or ERROR."""
        try:
            await self._meet(fault, cluster)
            if is_ray(cluster.resource):
                nodes = node_plan(cluster.resource)
                if fault is not None and fault.outcome == "partial":
                    nodes = one_short(nodes)
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
            await self._fail(cluster, operation, error)
        except Exception:
            log.exception("the cluster %s did not start", cluster.key)
            await self._fail(cluster, operation, internal())
        else:
            cluster.listed = True
            cluster.become("RUNNING")
            self._operations.succeed(operation, cluster.resource)

    async def _meet(self, fault: Fault | None, cluster: Cluster) -> None:
        """Let a provisioning fault have its effect, as far as that is not a smaller cluster."""
        if fault is None:
            return
        if fault.outcome == "stuck":
            await (asyncio.sleep(fault.delay) if fault.delay else asyncio.Event().wait())
            raise internal()
        await asyncio.sleep(fault.delay)
        if error := failure(fault, cluster.resource, cluster.region):
            raise error

    async def _fail(self, cluster: Cluster, operation: Running, error: ApiError) -> None:
        try:
            await self._publisher.withdraw(cluster)
            await self._backend.stop(cluster.key)
        except Exception:
            log.exception("the cluster %s was not stopped", cluster.key)
        cluster.addresses = None
        cluster.listed = True
        cluster.resource.ClearField("resource_runtime")
        cluster.become("ERROR", error)
        self._operations.fail(operation, error)

    async def resize(self, cluster: Cluster, operation: Running, counts: dict[str, int], fault: Fault | None) -> None:
        """Update: UPDATING, then RUNNING with the new counts; a refused resize leaves it as it was."""
        target = PersistentResource()
        target.CopyFrom(cluster.resource)
        for pool in target.resource_pools:
            pool.replica_count = counts[pool.id]
        try:
            await self._meet(fault, cluster)
            nodes = node_plan(target)
            if fault is not None and fault.outcome == "partial":
                nodes = one_short(nodes)
            work = [asyncio.sleep(self._settings.resize_seconds)]
            if is_ray(cluster.resource):
                work.append(self._backend.resize(cluster.key, nodes))
            await asyncio.gather(*work)
        except ApiError as error:
            # The nodes that there were are still there: the cluster runs on as it was.
            await asyncio.sleep(self._settings.resize_seconds)
            cluster.become("RUNNING")
            self._operations.fail(operation, error)
        except Exception:
            log.exception("the cluster %s was not resized", cluster.key)
            await self._fail(cluster, operation, internal())
        else:
            for pool in cluster.resource.resource_pools:
                pool.replica_count = counts[pool.id]
            if is_ray(cluster.resource):
                cluster.set_nodes(nodes)
            cluster.become("RUNNING")
            self._operations.succeed(operation, cluster.resource)

    async def remove(
        self,
        cluster: Cluster,
        operation: Running,
        running: asyncio.Task[None] | None,
        fault: Fault | None,
        gone: Callable[[], None],
    ) -> None:
        """Delete: STOPPING, then gone; work that was under way is given up first."""
        await cancel(running)
        await self._publisher.withdraw(cluster)
        try:
            await asyncio.gather(self._backend.stop(cluster.key), asyncio.sleep(self._settings.delete_seconds))
        except Exception:
            log.exception("the cluster %s was not stopped", cluster.key)
            cluster.become("ERROR", internal())
            self._operations.fail(operation, internal())
            return
        if fault is not None and fault.outcome == "stuck":
            await (asyncio.sleep(fault.delay) if fault.delay else asyncio.Event().wait())
        gone()
        self._operations.succeed(operation, None)

    async def reboot(self, cluster: Cluster, operation: Running) -> None:
        """Reboot: REBOOTING, then RUNNING."""
        await asyncio.sleep(self._settings.provisioning_seconds)
        cluster.become("RUNNING")
        self._operations.succeed(operation, cluster.resource)

    async def discard(self, cluster: Cluster) -> None:
        """Leave nothing of a cluster running."""
        await self._publisher.withdraw(cluster)
        await self._backend.stop(cluster.key)

    async def restart(self, cluster: Cluster) -> None:
        """Start a cluster that never came up, or was put into ERROR; returns once that is decided."""
        cluster.become("PROVISIONING")
        await self._backend.stop(cluster.key)
        self.spawn(cluster, self.provision(cluster, cluster.operation, None))
        await cluster.settled.wait()

    async def close(self, clusters: list[Cluster]) -> None:
        """Give up all work and stop every cluster; nothing of them is left when it returns."""
        for task in list(self._tasks):
            await cancel(task)
        for cluster in clusters:
            await self._publisher.withdraw(cluster)
        await self._backend.close()
