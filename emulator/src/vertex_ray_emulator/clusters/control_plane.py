"""The state machine of persistent resources, over the v1beta1 messages; REST and gRPC are two faces of it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.clusters import rules
from vertex_ray_emulator.clusters.lifecycle import Cluster, Lifecycle, Publisher, now
from vertex_ray_emulator.clusters.quotas import Quotas
from vertex_ray_emulator.outcomes import internal
from vertex_ray_emulator.project.plan import is_ray
from vertex_ray_emulator.project.project_script import Project
from vertex_ray_emulator.wire.background import cancel
from vertex_ray_emulator.wire.errors import ApiError, invalid
from vertex_ray_emulator.wire.names import PARENT, Names, pattern
from vertex_ray_emulator.wire.operations import Operations, Running
from vertex_ray_emulator.wire.paging import page
from vertex_ray_emulator.wire.protos import Api, PersistentResource, State

if TYPE_CHECKING:
    from vertex_ray_emulator.backends.backend import ClusterBackend
    from vertex_ray_emulator.faults import Faults
    from vertex_ray_emulator.settings import Settings

NAME = pattern("persistentResources")
# Longer than any client waits for one answer; a Get that is held for ever would keep its connection.
HOLD_LIMIT_SECONDS = 600.0


class ControlPlane:
    """The persistent resources of one project, in all locations.

    :param settings: Times and the project.
    :param backend: Starts and stops the nodes.
    :param publisher: Makes dashboards reachable.
    :param faults: Asked for the outcome of each create, resize and delete.
    :param project: Has the limits that a create or a resize may exceed.
    """

    def __init__(
        self,
        settings: Settings,
        backend: ClusterBackend,
        publisher: Publisher,
        faults: Faults,
        project: Project | None = None,
    ) -> None:
        self._settings = settings
        self._names = Names(settings)
        self._faults = faults
        self._clusters: dict[str, Cluster] = {}
        self._tombstones: dict[str, float] = {}
        self._closed = False
        self.quotas = Quotas(project or Project(settings.project, settings.project_number), self.clusters)
        self.operations = Operations(now)
        self._life = Lifecycle(settings, backend, publisher, self.operations)

    # Names ---------------------------------------------------------------------------------------------

    def canonical(self, name: str) -> str:
        """A resource's name with the project's number in place of its id."""
        return self._names.canonical(name)

    def _find(self, name: str, verb: str) -> Cluster:
        name = self._names.check(NAME, name, f"persistentResources.{verb}")
        cluster = self._clusters.get(name)
        if cluster is None:
            raise ApiError("NOT_FOUND", f"The PersistentResource {name!r} does not exist.")
        return cluster

    def clusters(self) -> list[Cluster]:
        """All that exist, by name."""
        return [cluster for _, cluster in sorted(self._clusters.items())]

    def by_id(self, cluster_id: str) -> Cluster | None:
        """The one of an id (of the first location that has it) or of a full name."""
        wanted = self.canonical(cluster_id)
        return next((c for c in self.clusters() if wanted in (c.id, c.name)), None)

    # The API -------------------------------------------------------------------------------------------

    async def create(self, parent: str, cluster_id: str, body: Any, api: Api) -> Running:
        """Begin to create a resource."""
        if self._closed:
            raise ApiError("UNAVAILABLE", "The emulator is being stopped.")
        parent = self._names.check(PARENT, parent, "persistentResources.create")
        rules.check_id(cluster_id)
        resource = _accepted(body)
        rules.check_create(resource)
        name = f"{parent}/persistentResources/{cluster_id}"
        if name in self._clusters:
            raise ApiError("ALREADY_EXISTS", f"The PersistentResource {name!r} already exists.")
        if self._tombstones.get(name, 0.0) > time.monotonic():
            raise ApiError(
                "FAILED_PRECONDITION",
                f"The PersistentResource ID {cluster_id!r} was deleted recently and can not be used again "
                "yet. An ID can be used again up to 2 hours after the delete.",
            )
        self._tombstones.pop(name, None)
        fault = self._faults.take("provisioning", "CreatePersistentResource", name)
        fault = fault or self.quotas.exceeded(name, resource.resource_pools)
        resource.name = name
        resource.create_time.CopyFrom(now())
        operation = self.operations.begin(name, "Create", api)
        cluster = Cluster(resource, f"{cluster_id}-{secrets.token_hex(3)}", operation)
        cluster.listed = fault is None or fault.outcome != "stuck"
        cluster.become("PROVISIONING")
        self._clusters[name] = cluster
        self._life.spawn(cluster, self._life.provision(cluster, operation, fault))
        return operation

    async def get(self, name: str) -> Any:
        """The resource as it is; with ``hold_get`` only once it is no longer PROVISIONING."""
        cluster = self._find(name, "get")
        if self._settings.hold_get and not cluster.settled.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(cluster.settled.wait(), HOLD_LIMIT_SECONDS)
        return cluster.resource

    async def list_page(self, parent: str, page_size: int, page_token: str) -> tuple[list[Any], str]:
        """A page of a location's resources by name, and the token of the next page or an empty string."""
        parent = self._names.check(PARENT, parent, "persistentResources.list")
        found = [c.resource for c in self.clusters() if c.listed and c.name.startswith(parent + "/")]
        return page(found, page_size, page_token)

    async def update(self, wanted: Any, paths: list[str], api: Api) -> Running:
        """Begin to change the replica counts."""
        cluster = self._find(wanted.name, "update")
        rules.check_mask(paths)
        rules.check_state_allows(cluster.id, cluster.state, ("RUNNING",), "updated")
        counts = rules.wanted_counts(cluster.resource, wanted)
        fault = self._faults.take("provisioning", "UpdatePersistentResource", cluster.name)
        pools = cluster.resource.resource_pools
        fault = fault or self.quotas.exceeded(cluster.name, _resized(cluster.resource, counts).resource_pools, pools)
        cluster.operation = self.operations.begin(cluster.name, "Update", api)
        cluster.become("UPDATING")
        self._life.spawn(cluster, self._life.resize(cluster, cluster.operation, counts, fault))
        return cluster.operation

    async def delete(self, name: str, api: Api) -> Running:
        """Begin to delete a resource."""
        cluster = self._find(name, "delete")
        rules.check_state_allows(cluster.id, cluster.state, ("RUNNING", "UPDATING", "ERROR", "REBOOTING"), "deleted")
        # A fault for whatever comes next ("*") is meant for a create or a resize.
        fault = self._faults.take("provisioning", "DeletePersistentResource", cluster.name, explicit=True)
        # From here on it is STOPPING for everybody, before the first await: two deletes can not both begin.
        cluster.become("STOPPING")
        self.operations.fail(cluster.operation, ApiError("CANCELLED", "The PersistentResource was deleted meanwhile."))
        running = cluster.task
        if running is not None:
            # At once, or a resize that is just done would still put it back to RUNNING.
            running.cancel()
        cluster.operation = self.operations.begin(cluster.name, "Delete", api)

        def gone() -> None:
            del self._clusters[cluster.name]
            self._tombstones[cluster.name] = time.monotonic() + self._settings.name_reuse_seconds

        self._life.spawn(cluster, self._life.remove(cluster, cluster.operation, running, fault, gone))
        return cluster.operation

    async def reboot(self, name: str, api: Api) -> Running:
        """Begin to reboot a resource that is not a Ray cluster."""
        cluster = self._find(name, "update")
        if is_ray(cluster.resource):
            raise ApiError(
                "FAILED_PRECONDITION",
                f"The PersistentResource {cluster.id!r} is a Ray cluster; rebooting is not available for Ray clusters.",
            )
        rules.check_state_allows(cluster.id, cluster.state, ("RUNNING", "ERROR"), "rebooted")
        cluster.operation = self.operations.begin(cluster.name, "Reboot", api)
        cluster.become("REBOOTING")
        self._life.spawn(cluster, self._life.reboot(cluster, cluster.operation))
        return cluster.operation

    # For tests, through the admin API ------------------------------------------------------------------

    async def force_state(self, cluster: Cluster, state: str, error: ApiError | None = None) -> None:
        """Put a resource into a state, whatever it is doing.

        A cluster that never started and is forced to RUNNING is started first.

        :raises ApiError: INVALID_ARGUMENT for a state that there is not.
        """
        if state not in State.keys() or state == "STATE_UNSPECIFIED":  # noqa: SIM118 (an enum, not a dict)
            raise invalid(f"state must be one of {sorted(set(State.keys()) - {'STATE_UNSPECIFIED'})}")
        await cancel(cluster.task)
        if state == "RUNNING" and cluster.addresses is None and is_ray(cluster.resource):
            await self._life.restart(cluster)
            return
        if state == "ERROR" and error is None:
            error = internal()
        cluster.become(state, error)
        if state == "ERROR" and error is not None:
            self.operations.fail(cluster.operation, error)
        elif state == "RUNNING":
            self.operations.succeed(cluster.operation, cluster.resource)

    async def purge(self, clusters: list[Cluster]) -> None:
        """Remove clusters whatever they are doing; their names can be used again at once."""
        for cluster in clusters:
            await cancel(cluster.task)
            self.operations.fail(cluster.operation, ApiError("CANCELLED", "The PersistentResource was purged."))
            self._clusters.pop(cluster.name, None)
        await asyncio.gather(*(self._life.discard(cluster) for cluster in clusters))

    def forget_names(self) -> None:
        """Let the names of all deleted clusters be used again at once."""
        self._tombstones.clear()

    async def close(self) -> None:
        """Stop every cluster; nothing of them is left when it returns."""
        self._closed = True
        await self._life.close(self.clusters())
        self._clusters.clear()


def _resized(resource: Any, counts: dict[str, int]) -> Any:
    """A resource as it will be with other replica counts."""
    target = PersistentResource()
    target.CopyFrom(resource)
    for pool in target.resource_pools:
        pool.replica_count = counts[pool.id]
    return target


def _accepted(body: Any) -> Any:
    """A caller's resource as it is stored: without what only the service sets, and with the defaults."""
    resource = PersistentResource()
    resource.CopyFrom(body)
    for name in (
        "name", "state", "error", "create_time", "start_time", "update_time", "resource_runtime",
        "satisfies_pzs", "satisfies_pzi",
    ):  # fmt: skip
        resource.ClearField(name)
    for pool in resource.resource_pools:
        pool.ClearField("used_replica_count")
        pool.id = pool.id or f"pool-{secrets.token_hex(4)}"
        pool.disk_spec.boot_disk_type = pool.disk_spec.boot_disk_type or "pd-ssd"
        pool.disk_spec.boot_disk_size_gb = pool.disk_spec.boot_disk_size_gb or rules.DISK_GB[0]
        if pool.HasField("autoscaling_spec") and not pool.replica_count:
            pool.replica_count = pool.autoscaling_spec.min_replica_count
    return resource
