"""Reconcile a shared cluster for new work: find it, wait for it, or create its next generation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
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
"""Seconds for which a superseded cluster must have been idle if there are no leases.

A task may have attached to it a moment ago."""


@dataclass
class SharedClusterReconciler:
    """Reconciles a shared cluster step by step: finds, waits for, or creates its next generation.

    :param transport: the connection
    :param project: project of the clusters
    :param location: region of the clusters
    :param wanted: the request for a shared cluster
    :param spec: spec of a new generation
    :param labels: additional labels of a new generation
    :param store: the lease store; None if there are no leases
    :param owner: holder of the lease
    :param ttl: seconds for which a lease is acquired
    :param notify: receives log lines for the user
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
    """Generations that this reconciler has created, with their operations."""
    _blocked: set[int] = field(default_factory=set)
    _unlisted: set[int] = field(default_factory=set)
    _notified: set[str] = field(default_factory=set)
    _held: tuple[ClusterName, float] | None = None

    async def step(self) -> Plan:
        """Check the current generations once, and take the next step.

        :return: the plan; if its step is ATTACH, the cluster is RUNNING and its lease is held
        :raises ClusterSpecMismatchError: the existing cluster has another spec, and the request forbids that
        :raises VertexRayError: the generation that this reconciler created failed, or the service rejects a new one
        """
        clusters = await self._clusters()
        found = plan(clusters, self.wanted, time.time(), self._blocked)
        self._notify_once(found.note)
        await self._check_own(found)
        if found.step is Step.FAIL:
            raise ClusterSpecMismatchError(f"shared_name={self.wanted.shared_name!r}: {found.note}")
        if found.step is Step.CREATE:
            await self._create(found.number)
            return found
        if found.cluster is not None and not await self._acquire(found.cluster.resource_name):
            return Plan(Step.WAIT, found.number, found.cluster, found.note)
        return found

    async def confirm(self, found: Plan) -> bool:
        """Renew the lease of the cluster for its full time; return False if the cluster is about to be deleted."""
        self._held = self._held and (self._held[0], 0.0)
        return found.cluster is not None and await self._acquire(found.cluster.resource_name)

    async def clean_up(self, found: Plan) -> None:
        """Delete unused older generations; after a failure, the next reconciler or the reaper deletes them."""
        deletion = GuardedDelete(self.transport, self.store, self.owner)

        def judge(cluster: Cluster, activity: Activity) -> str | None:
            if activity.busy:
                return None
            if cluster.state is ClusterState.ERROR:
                return f"it is in ERROR: {cluster.error_message}"
            if activity.idle_seconds(time.time()) < (0 if self.store else QUIET_SECONDS):
                return None
            return "it was superseded by a newer generation"

        for cluster in (*found.superseded, *found.broken):
            try:
                outcome = await deletion.delete_if_unused(cluster, judge)
            except VertexRayError as error:
                self._notify_once(f"Could not delete cluster {cluster.cluster_id}: {error.message}")
                continue
            if outcome.deleted:
                self._notify_once(f"Deleting cluster {cluster.cluster_id}: {outcome.why}")
            else:
                why = "; ".join(outcome.activity.reasons) or outcome.why or "it was used recently"
                self._notify_once(f"Keeping cluster {cluster.cluster_id} of an older generation for now: {why}")

    async def release_lease(self) -> None:
        """Release the lease if it is held, because the cluster will not be used."""
        if self._held is None or self.store is None:
            return
        name, self._held = self._held[0], None
        try:
            await self.store.change(name, lambda lease: lease.release(self.owner, time.time()))
        except VertexRayError as error:
            log.warning("Could not release the lease of cluster %s; it stays held until it expires: %s", name, error)

    async def _clusters(self) -> list[Cluster]:
        api = ClustersApi(self.transport)
        clusters = [cluster for cluster in await api.list_all(self.project, self.location) if cluster.is_ray]
        listed = {cluster.cluster_id for cluster in clusters}
        # After a failed creation, the service may keep the cluster in PROVISIONING without listing it.
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
        """Raise if a generation that this reconciler created has failed, because another one would fail as well."""
        for cluster in found.broken:
            if any(cluster.cluster_id == self._name(number).cluster_id for number in self.made):
                raise _with_cluster(cluster.failure(), cluster.name)
        operation = self.made.get(found.number)
        if found.step is Step.WAIT and operation:
            answer = await ClustersApi(self.transport).operation(self.location, operation)
            error = answer.get("error") if answer.get("done") else None
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
            self._notify_once(f"The id {name.cluster_id} of a deleted cluster is still blocked; trying the next one")
            self._blocked.add(number)
        except ClusterExistsError:
            self._notify_once(f"Cluster {name.cluster_id} was created by another task; waiting for it")
            self._unlisted.add(number)
        else:
            self.notify(f"Creating cluster {name.full} with {self.spec.node_count()} nodes")

    async def _acquire(self, name: ClusterName) -> bool:
        """Acquire or renew the lease of the cluster; return False while the cluster is about to be deleted."""
        if self.store is None:
            return True
        now = time.time()
        if self._held is not None:
            if self._held[0] == name and now - self._held[1] < self.ttl / 3:
                return True
            if self._held[0] != name:
                await self.release_lease()
        try:
            await self.store.change(name, lambda lease: lease.acquire(self.owner, time.time(), self.ttl))
        except ClusterClosingError as error:
            self._notify_once(error.message)
            return False
        self._held = (name, now)
        return True

    def _name(self, number: int) -> ClusterName:
        return ClusterName(self.project, self.location, generation_id(self.wanted.shared_name, number))

    def _notify_once(self, text: str) -> None:
        if text and text not in self._notified:
            self._notified.add(text)
            self.notify(text)


def _with_cluster(error: VertexRayError, name: str) -> VertexRayError:
    """Mark an error as that of a cluster that this reconciler created, so that the cluster can be cleaned up."""
    error.details.update({"cluster": name, "made_here": True})
    return error


@dataclass(frozen=True)
class Successor:
    """The next generation of a shared cluster.

    :param shared_name: name of the shared cluster
    :param spec: ``ClusterSpec.to_dict()`` of the previous generation
    :param project: project of the cluster
    :param location: region of the cluster
    """

    shared_name: str
    spec: dict[str, Any]
    project: str
    location: str


async def successor_of(transport: Transport, name: ClusterName) -> Successor | None:
    """Return the next generation of a cluster; None if it is not shared, or no generation of it is left.

    :param transport: the connection
    :param name: the cluster, which may have been deleted
    """
    api = ClustersApi(transport)
    cluster: Cluster | None
    try:
        cluster = await api.get(name)
    except ClusterNotFoundError:
        # Only its id tells its shared name; an existing generation has the labels and the spec.
        shared = shared_name_of(name.cluster_id)
        generations = newest_first(await api.list_all(name.project, name.location), shared) if shared else []
        cluster = generations[0][1] if generations else None
    if cluster is None or not cluster.labels.get(SHARED_LABEL):
        return None
    spec = ClusterSpec.from_persistent_resource(cluster.resource)
    return Successor(cluster.labels[SHARED_LABEL], spec.to_dict(), cluster.project, cluster.location)
