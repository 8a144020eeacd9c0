"""One step towards a shared cluster that new work can use: find it, wait for it, or create its next generation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName, parse_cluster_name
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing.activity import Activity
from airflow_provider_vertex_ray.core.sharing.generations import (
    GENERATION_LABEL,
    SHARED_LABEL,
    SPEC_LABEL,
    ClusterRequest,
    Plan,
    Step,
    generation_id,
    newest_first,
    plan,
    shared_name_of,
)
from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    ClusterExistsError,
    ClusterNotFoundError,
    ClusterSpecMismatchError,
    NameNotReusableError,
    VertexRayError,
)

log = logging.getLogger(__name__)

QUIET_SECONDS = 600.0
"""Seconds for which a superseded cluster must have been idle where no leases are kept.

Somebody may have been given it a moment ago."""


@dataclass
class SharedClusterReconciler:
    """Comes to a cluster step by step.

    :param transport: The connection.
    :param project: Project of the clusters.
    :param location: Region of the clusters.
    :param wanted: What is asked for.
    :param spec: What a new generation looks like.
    :param labels: More labels of a new generation.
    :param store: Where leases are kept, or None.
    :param owner: Who holds the lease.
    :param ttl: Seconds for which a lease is held.
    :param notify: Gets a sentence for each thing that a user should know.
    """

    transport: Transport
    project: str
    location: str
    wanted: ClusterRequest
    spec: ClusterSpec
    labels: dict[str, str]
    store: LeaseStore | None
    owner: str
    ttl: float
    notify: Callable[[str], None] = field(default=log.info)
    made: dict[int, str | None] = field(default_factory=dict)
    """Generations that this has created, with their operations."""
    _blocked: set[int] = field(default_factory=set)
    _unlisted: set[int] = field(default_factory=set)
    _said: set[str] = field(default_factory=set)
    _held: tuple[ClusterName, float] | None = None

    async def step(self) -> Plan:
        """Look once, and do what is to be done now.

        :return: The plan; with ATTACH the cluster is RUNNING, and its lease is held.
        :raises ClusterSpecMismatchError: The cluster that is there is another one, and that is to fail.
        :raises VertexRayError: The generation that this has created failed, or the service refuses to create one.
        """
        clusters = await self._look()
        found = plan(clusters, self.wanted, time.time(), self._blocked)
        self._once(found.note)
        await self._check_own(found)
        if found.step is Step.FAIL:
            raise ClusterSpecMismatchError(f"shared_name={self.wanted.shared_name!r}: {found.note}")
        if found.step is Step.CREATE:
            await self._create(found.number)
            return found
        if found.cluster is not None and not await self._hold(parse_cluster_name(found.cluster.name)):
            return Plan(Step.WAIT, found.number, found.cluster, found.note)
        return found

    async def confirm(self, found: Plan) -> bool:
        """Hold the lease of the cluster for its full time from now on; False when it is about to be deleted."""
        self._held = self._held and (self._held[0], 0.0)
        return found.cluster is not None and await self._hold(parse_cluster_name(found.cluster.name))

    async def clean_up(self, found: Plan) -> None:
        """Delete the generations that nobody uses any more; what fails now is done by the next one, or the reaper."""
        deletion = GuardedDelete(self.transport, self.store, self.owner)

        def judge(cluster: Cluster, activity: Activity) -> str | None:
            if activity.busy:
                return None
            if cluster.state is ClusterState.ERROR:
                return f"it is in ERROR: {cluster.error_message}"
            if activity.idle_seconds(time.time()) < (0 if self.store else QUIET_SECONDS):
                return None
            return "a newer generation has taken its place"

        for cluster in (*found.superseded, *found.broken):
            try:
                outcome = await deletion.delete_if_unused(cluster, judge)
            except VertexRayError as error:
                self._once(f"Cluster {cluster.cluster_id} could not be deleted: {error.message}")
                continue
            if outcome.deleted:
                self._once(f"Deleting cluster {cluster.cluster_id}: {outcome.why}")
            else:
                why = "; ".join(outcome.activity.reasons) or outcome.why or "it was used a short time ago"
                self._once(f"Cluster {cluster.cluster_id} is of an older generation and stays for now: {why}")

    async def let_go(self) -> None:
        """Release the lease, if it is held: nobody will use the cluster."""
        if self._held is None or self.store is None:
            return
        name, self._held = self._held[0], None
        try:
            await self.store.change(name, lambda lease: lease.release(self.owner, time.time()))
        except VertexRayError as error:
            log.warning("The lease of %s is not released, it expires: %s", name.full, error)

    async def _look(self) -> list[Cluster]:
        api = ClustersApi(self.transport)
        clusters = [cluster for cluster in await api.list_all(self.project, self.location) if cluster.is_ray]
        listed = {cluster.cluster_id for cluster in clusters}
        # After a create that failed, the service may keep the cluster in PROVISIONING, and not list it.
        for number in sorted({*self._unlisted, *self.made}):
            name = self._name(number)
            if name.cluster_id in listed:
                continue
            try:
                clusters.append(await api.get(name))
            except ClusterNotFoundError:
                if number in self._unlisted:
                    self._unlisted.discard(number)
                    self._blocked.add(number)
        return clusters

    async def _check_own(self, found: Plan) -> None:
        """Raise when a generation that this has created failed: another try would fail as this one did."""
        for cluster in found.broken:
            if any(cluster.cluster_id == self._name(number).cluster_id for number in self.made):
                raise _with_cluster(cluster.failure(), cluster.name)
        operation = self.made.get(found.number)
        if found.step is Step.WAIT and operation:
            said = await ClustersApi(self.transport).operation(self.location, operation)
            error = said.get("error") if said.get("done") else None
            if error:
                failure = outcome_error(str(error.get("message", "")), error.get("code"))
                raise _with_cluster(failure, self._name(found.number).full)

    async def _create(self, number: int) -> None:
        name = self._name(number)
        labels = {
            **self.labels,
            SHARED_LABEL: self.wanted.shared_name,
            GENERATION_LABEL: str(number),
            SPEC_LABEL: self.spec.spec_hash(),
        }
        body = self.spec.with_labels(labels).to_persistent_resource(self.location)
        try:
            self.made[number] = await ClustersApi(self.transport).create(name, body)
        except NameNotReusableError:
            self._once(f"The id {name.cluster_id} is still blocked after a delete; trying the next one")
            self._blocked.add(number)
        except ClusterExistsError:
            self._once(f"Somebody else has created cluster {name.cluster_id}")
            self._unlisted.add(number)
        else:
            self.notify(f"Creating cluster {name.full} with {self.spec.node_count()} nodes")

    async def _hold(self, name: ClusterName) -> bool:
        """Hold the cluster's lease; False while somebody is about to delete it."""
        if self.store is None:
            return True
        now = time.time()
        if self._held is not None:
            if self._held[0] == name and now - self._held[1] < self.ttl / 3:
                return True
            if self._held[0] != name:
                await self.let_go()
        try:
            await self.store.change(name, lambda lease: lease.acquire(self.owner, time.time(), self.ttl))
        except ClusterClosingError as error:
            self._once(error.message)
            return False
        self._held = (name, now)
        return True

    def _name(self, number: int) -> ClusterName:
        return ClusterName(self.project, self.location, generation_id(self.wanted.shared_name, number))

    def _once(self, text: str) -> None:
        if text and text not in self._said:
            self._said.add(text)
            self.notify(text)


def _with_cluster(error: VertexRayError, name: str) -> VertexRayError:
    """The error of a cluster that was created here, which whoever cleans up has to find."""
    error.details.update({"cluster": name, "made_here": True})
    return error


@dataclass(frozen=True)
class Successor:
    """What a shared cluster's next generation is to be.

    :param shared_name: Its name.
    :param spec: ``ClusterSpec.to_dict()`` of the generation before.
    :param project: Project.
    :param location: Region.
    """

    shared_name: str
    spec: dict[str, Any]
    project: str
    location: str


async def successor_of(transport: Transport, name: ClusterName) -> Successor | None:
    """What takes the place of a cluster; None for one that is not shared, or of which nothing is left to tell.

    :param name: The cluster, which may be gone.
    """
    api = ClustersApi(transport)
    cluster: Cluster | None
    try:
        cluster = await api.get(name)
    except ClusterNotFoundError:
        # Only its id says what it was; a generation that is there still has the labels and the spec.
        shared = shared_name_of(name.cluster_id)
        generations = newest_first(await api.list_all(name.project, name.location), shared) if shared else []
        cluster = generations[0][1] if generations else None
    if cluster is None or not cluster.labels.get(SHARED_LABEL):
        return None
    spec = ClusterSpec.from_persistent_resource(cluster.resource)
    found = parse_cluster_name(cluster.name)
    return Successor(cluster.labels[SHARED_LABEL], spec.to_dict(), found.project, found.location)
