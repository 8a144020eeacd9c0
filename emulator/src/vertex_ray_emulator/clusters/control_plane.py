"""State machine of persistent resources, over the v1beta1 messages; served as REST and as gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.clusters import rules
from vertex_ray_emulator.clusters.autoscaler import Autoscaler
from vertex_ray_emulator.clusters.lifecycle import Cluster, Lifecycle, Publisher, now
from vertex_ray_emulator.clusters.project_rules import check_project
from vertex_ray_emulator.clusters.quotas import Quotas
from vertex_ray_emulator.outcomes import failure, internal
from vertex_ray_emulator.project.catalog import default_disk
from vertex_ray_emulator.project.plan import is_ray
from vertex_ray_emulator.project.project_script import Project
from vertex_ray_emulator.project.recorded_texts import BEING_CREATED, SAME_ID
from vertex_ray_emulator.project.scaling import autoscales
from vertex_ray_emulator.wire.background import cancel, shielded
from vertex_ray_emulator.wire.errors import ApiError, invalid
from vertex_ray_emulator.wire.names import PARENT, Names, pattern
from vertex_ray_emulator.wire.operations import LongRunningOperation, Operations
from vertex_ray_emulator.wire.paging import page
from vertex_ray_emulator.wire.protos import Api, PersistentResource, State

if TYPE_CHECKING:
    from vertex_ray_emulator.backends.backend import ClusterBackend
    from vertex_ray_emulator.faults import Faults
    from vertex_ray_emulator.settings import Settings

NAME = pattern("persistentResources")
HOLD_LIMIT_SECONDS = 600.0
"""Maximum time for which ``hold_get`` holds a Get: longer than any client waits, but not forever."""


class ControlPlane:
    """The persistent resources of one project, in all locations.

    :param settings: delays and the project.
    :param backend: starts and stops the nodes.
    :param publisher: makes dashboards reachable.
    :param faults: faults, which may decide the outcome of a create, resize or delete.
    :param project: what a test has scripted: limits, which a create or a resize may exceed, and what a create lacks.
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
        self._recorded_texts = settings.has("recorded-texts")
        self._project = project or Project(settings.project, settings.project_number)
        self.quotas = Quotas(self._project, self.clusters, recorded_texts=self._recorded_texts)
        self.operations = Operations(now)
        self._lifecycle = Lifecycle(settings, backend, publisher, self.operations)
        self._autoscaler = Autoscaler(self.clusters, self._lifecycle, backend, settings.autoscaling_idle_seconds)

    # Names ---------------------------------------------------------------------------------------------

    def canonical(self, name: str) -> str:
        """Return a resource name with the project's number in place of its id."""
        return self._names.canonical(name)

    def _find(self, name: str, verb: str) -> Cluster:
        name = self._names.check(NAME, name, f"persistentResources.{verb}")
        cluster = self._clusters.get(name)
        if cluster is None:
            raise ApiError("NOT_FOUND", f"The PersistentResource {name!r} does not exist.")
        return cluster

    def clusters(self) -> list[Cluster]:
        """Return all clusters, sorted by name."""
        return [cluster for _, cluster in sorted(self._clusters.items())]

    def by_id(self, cluster_id: str) -> Cluster | None:
        """Return the cluster with a full name, or the first with an id in any location; None if there is none."""
        wanted = self.canonical(cluster_id)
        return next((c for c in self.clusters() if wanted in (c.id, c.name)), None)

    # The API -------------------------------------------------------------------------------------------

    async def create(self, parent: str, cluster_id: str, body: Any, api: Api) -> LongRunningOperation:
        """Start to create a resource."""
        if self._closed:
            raise ApiError("UNAVAILABLE", "The emulator is stopping.")
        parent = self._names.check(PARENT, parent, "persistentResources.create")
        rules.check_id(cluster_id)
        resource = _accepted(body)
        region = parent.split("/")[3]
        rules.check_create(resource, region, strict=self._settings.has("strict-specs"))
        check_project(resource, region, self._project)
        name = f"{parent}/persistentResources/{cluster_id}"
        if name in self._clusters:
            text = SAME_ID.text.format(id=cluster_id)
            raise ApiError(
                SAME_ID.code, text if self._recorded_texts else f"The PersistentResource {name!r} already exists."
            )
        if self._tombstones.get(name, 0.0) > time.monotonic():
            raise ApiError(
                "FAILED_PRECONDITION",
                f"The PersistentResource ID {cluster_id!r} was deleted recently and cannot be used again "
                "yet. An ID can be used again up to 2 hours after the delete.",
            )
        self._tombstones.pop(name, None)
        fault = self._faults.take("provisioning", "CreatePersistentResource", name)
        fault = fault or self.quotas.exceeded(name, resource.resource_pools)
        resource.name = name
        resource.create_time.CopyFrom(now())
        operation = self.operations.begin(name, "Create", api)
        cluster = Cluster(resource, f"{cluster_id}-{secrets.token_hex(3)}", operation)
        cluster.listed = fault is None or fault.outcome not in ("stuck", "leak")
        if fault is not None and self._settings.has("leaked-creates"):
            cluster.listed = failure(fault, resource, cluster.region) is None and cluster.listed
        cluster.set_state("PROVISIONING")
        self._clusters[name] = cluster
        if autoscales(resource):
            self._autoscaler.start()
        self._lifecycle.spawn(cluster, self._lifecycle.provision(cluster, operation, fault))
        return operation

    async def get(self, name: str) -> Any:
        """Return the resource; with ``hold_get`` only once it is no longer PROVISIONING."""
        cluster = self._find(name, "get")
        if self._settings.hold_get:
            await self.wait_provisioned(cluster.name)
        return cluster.resource

    async def wait_provisioned(self, name: str) -> None:
        """Wait until a cluster is no longer PROVISIONING, but not forever; returns at once if it does not exist."""
        cluster = self._clusters.get(self.canonical(name))
        if cluster is not None and not cluster.settled.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(cluster.settled.wait(), HOLD_LIMIT_SECONDS)

    async def list_page(self, parent: str, page_size: int, page_token: str) -> tuple[list[Any], str]:
        """Return a page of a location's resources by name, and the token of the next page or an empty string."""
        parent = self._names.check(PARENT, parent, "persistentResources.list")
        found = [c.resource for c in self.clusters() if c.listed and c.name.startswith(parent + "/")]
        return page(found, page_size, page_token)

    async def update(self, wanted: Any, paths: list[str], api: Api) -> LongRunningOperation:
        """Start to change the replica counts."""
        cluster = self._find(wanted.name, "update")
        rules.check_mask(paths)
        rules.check_state_allows(cluster.id, cluster.state, ("RUNNING",), "updated")
        counts = rules.wanted_counts(cluster.resource, wanted)
        fault = self._faults.take("provisioning", "UpdatePersistentResource", cluster.name)
        pools = cluster.resource.resource_pools
        fault = fault or self.quotas.exceeded(cluster.name, _resized(cluster.resource, counts).resource_pools, pools)
        cluster.operation = self.operations.begin(cluster.name, "Update", api)
        cluster.set_state("UPDATING")
        self._lifecycle.spawn(cluster, self._lifecycle.resize(cluster, cluster.operation, counts, fault))
        return cluster.operation

    async def delete(self, name: str, api: Api) -> LongRunningOperation:
        """Start to delete a resource."""
        cluster = self._find(name, "delete")
        if self._recorded_texts and cluster.state == "PROVISIONING":
            raise ApiError(BEING_CREATED.code, BEING_CREATED.text.format(id=cluster.id))
        rules.check_state_allows(cluster.id, cluster.state, ("RUNNING", "UPDATING", "ERROR", "REBOOTING"), "deleted")
        # A fault for any method ("*") is meant for a create or a resize.
        fault = self._faults.take("provisioning", "DeletePersistentResource", cluster.name, explicit=True)
        # STOPPING before the first await, so that two deletes cannot both start.
        cluster.set_state("STOPPING")
        self.operations.fail(
            cluster.operation, ApiError("CANCELLED", "The PersistentResource was deleted in the meantime.")
        )
        running = cluster.task
        if running is not None:
            # At once; otherwise a resize that is just finishing would set it back to RUNNING.
            running.cancel()
        cluster.operation = self.operations.begin(cluster.name, "Delete", api)

        def forget() -> None:
            del self._clusters[cluster.name]
            self._tombstones[cluster.name] = time.monotonic() + self._settings.name_reuse_seconds

        self._lifecycle.spawn(cluster, self._lifecycle.remove(cluster, cluster.operation, running, fault, forget))
        return cluster.operation

    # For tests, through the admin API ------------------------------------------------------------------

    async def force_state(self, cluster: Cluster, state: str, error: ApiError | None = None) -> None:
        """Force a resource into a state, whatever operation is in progress.

        A cluster that never started is started before it becomes RUNNING.

        :param cluster: cluster to change.
        :param state: name of the state.
        :param error: error of the state ERROR; by default an internal error.
        :raises ApiError: INVALID_ARGUMENT if the state does not exist.
        """
        known = sorted(set(State.keys()) - {"STATE_UNSPECIFIED"})
        if state not in known:
            raise invalid(f"Invalid value for state: {state!r}. Use one of {', '.join(known)}.")
        # Not left half-way when the client disconnects, which cancels its request.
        await shielded(self._force_state(cluster, state, error))

    async def _force_state(self, cluster: Cluster, state: str, error: ApiError | None) -> None:
        await cancel(cluster.task)
        if state == "RUNNING" and cluster.addresses is None and is_ray(cluster.resource):
            await self._lifecycle.restart(cluster)
            return
        if state == "ERROR" and error is None:
            error = internal()
        cluster.set_state(state, error)
        if state == "ERROR" and error is not None:
            self.operations.fail(cluster.operation, error)
        elif state == "RUNNING":
            self.operations.succeed(cluster.operation, cluster.resource)

    async def purge(self, clusters: list[Cluster]) -> None:
        """Remove clusters whatever operation is in progress; their names can be reused at once."""
        # A client that disconnects cancels its request: what is no longer listed must not be left running.
        await shielded(self._purge(clusters))

    async def _purge(self, clusters: list[Cluster]) -> None:
        for cluster in clusters:
            await cancel(cluster.task)
            self.operations.fail(cluster.operation, ApiError("CANCELLED", "The PersistentResource was purged."))
            self._clusters.pop(cluster.name, None)
        await asyncio.gather(*(self._lifecycle.discard(cluster) for cluster in clusters))

    def forget_names(self) -> None:
        """Allow the names of all deleted clusters to be reused at once."""
        self._tombstones.clear()

    async def close(self) -> None:
        """Stop every cluster; when this returns, no process of them is left."""
        self._closed = True
        await self._autoscaler.close()
        await self._lifecycle.close(self.clusters())
        self._clusters.clear()


def _resized(resource: Any, counts: dict[str, int]) -> Any:
    """Return a copy of a resource with other replica counts."""
    target = PersistentResource()
    target.CopyFrom(resource)
    for pool in target.resource_pools:
        pool.replica_count = counts[pool.id]
    return target


def _accepted(body: Any) -> Any:
    """Return a caller's resource as it is stored: with defaults, and without the fields that only the service sets."""
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
        pool.disk_spec.boot_disk_type = pool.disk_spec.boot_disk_type or default_disk(pool.machine_spec.machine_type)
        pool.disk_spec.boot_disk_size_gb = pool.disk_spec.boot_disk_size_gb or rules.DISK_GB[0]
        if pool.HasField("autoscaling_spec") and not pool.replica_count:
            pool.replica_count = pool.autoscaling_spec.min_replica_count
    return resource
