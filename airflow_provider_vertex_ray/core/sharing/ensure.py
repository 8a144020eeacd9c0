"""Reconcile a shared cluster for new work: find it, wait for it, or create its next generation."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.state import GONE_STATES, Cluster, ClusterState
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing.activity import QUIET_SECONDS, Activity
from airflow_provider_vertex_ray.core.sharing.generations import (
    GENERATION_LABEL,
    SHARED_LABEL,
    SPEC_LABEL,
    ClusterRequest,
    Plan,
    Step,
    generation_id,
    generation_in,
    newest_first,
    plan,
    shared_name_of,
)
from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete
from airflow_provider_vertex_ray.core.sharing.lease import HolderId
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    ClusterExistsError,
    ClusterNotFoundError,
    ClusterSpecMismatchError,
    LeaseStoreError,
    LeaseStoreUnavailableError,
    NameNotReusableError,
    VertexRayError,
)

log = logging.getLogger(__name__)

UNLISTED_GRACE = 60.0
"""Seconds after a create request in which a cluster that cannot be found yet is waited for."""


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
    :param who: the hold on the cluster
    :param ttl: seconds for which the hold lasts at least
    :param shares_hold: whether other tasks use the same hold, such as the jobs of a group; it is then neither taken
        back nor released on other generations
    :param notify: receives log lines for the user
    """

    transport: Transport
    project: str
    location: str
    wanted: ClusterRequest
    spec: ClusterSpec
    labels: dict[str, str]
    store: LeaseStore | None
    who: HolderId
    ttl: float
    shares_hold: bool = False
    notify: Callable[[str], None] = field(default=log.info)
    made: dict[int, str | None] = field(default_factory=dict)
    """Generations that this reconciler has created, with their operations."""
    latest: Plan | None = None
    """The last plan, for the report of a failure."""
    _created_at: dict[int, float] = field(default_factory=dict)
    _blocked: set[int] = field(default_factory=set)
    _unlisted: set[int] = field(default_factory=set)
    _notified: set[str] = field(default_factory=set)
    _held: tuple[ClusterName, float] | None = None
    _store_works: bool = False
    _writer: str = ""

    def __post_init__(self) -> None:
        self._writer = "" if self.shares_hold else secrets.token_hex(8)

    async def step(self) -> Plan:
        """Check the current generations once, and take the next step.

        :return: the plan; if its step is ATTACH, the cluster is RUNNING and its lease is held
        :raises ClusterSpecMismatchError: the existing cluster has another spec, and the request forbids that
        :raises LeaseStoreError: the lease store cannot be used; raised before a cluster is created
        :raises VertexRayError: the generation that this reconciler created failed, or the service rejects a new one
        """
        clusters = await self._clusters()
        found = self.latest = self._planned(clusters)
        self._notify_once(found.note)
        await self._check_own(found)
        if found.step is Step.FAIL:
            raise ClusterSpecMismatchError(f"shared_name={self.wanted.shared_name!r}: {found.note}")
        if found.step is Step.CREATE:
            await self._check_store()
            await self._create(found.number)
            return found
        if found.cluster is not None and not await self._acquire(found.cluster):
            return Plan(Step.WAIT, found.number, found.cluster, found.note)
        return found

    def _planned(self, clusters: list[Cluster]) -> Plan:
        now = time.time()
        found = plan(clusters, self.wanted, now, self._blocked)
        if found.step is Step.CREATE:
            seen = {cluster.cluster_id for cluster in clusters}
            for number, since in self._created_at.items():
                if now - since < UNLISTED_GRACE and self._name(number).cluster_id not in seen:
                    return Plan(Step.WAIT, number, None, found.note, found.superseded, found.broken)
        return found

    async def confirm(self, found: Plan) -> bool:
        """Renew the lease of the cluster for its full time, and read the cluster again.

        :return: False if the cluster can no longer be used
        """
        self._held = self._held and (self._held[0], 0.0)
        if found.cluster is None or not await self._acquire(found.cluster):
            return False
        return self.store is not None or await self._usable(found.cluster)

    async def clean_up(self, found: Plan) -> None:
        """Delete unused older generations; after a failure, the next reconciler or the reaper deletes them."""
        deletion = GuardedDelete(self.transport, self.store, self.who.owner)

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

    async def release_elsewhere(self, found: Plan) -> None:
        """Release what an earlier try of this task holds on other generations; a failure is logged only.

        A try that Airflow fails after its cluster was ready leaves its hold there, which would keep that cluster.
        """
        if self.store is None or self.shares_hold or found.cluster is None:
            return
        try:
            every = newest_first(
                await ClustersApi(self.transport).list_all(self.project, self.location), self.wanted.shared_name
            )
            for _, cluster in every:
                if cluster.cluster_id != found.cluster.cluster_id:
                    await self.store.release(cluster.resource_name, self.who)
        except VertexRayError as error:
            log.warning("Could not release what an earlier try may hold; it stays held until it expires: %s", error)

    async def release_lease(self) -> None:
        """Take back the lease if this reconciler holds it, because the cluster will not be used."""
        if self._held is None or self.store is None or self.shares_hold:
            return
        name, self._held = self._held[0], None
        try:
            await self.store.take_back(name, self.who, self._writer)
        except VertexRayError as error:
            log.warning("Could not release the lease of cluster %s; it stays held until it expires: %s", name, error)

    async def _clusters(self) -> list[Cluster]:
        api = ClustersApi(self.transport)
        every = await api.list_all(self.project, self.location)
        listed = {cluster.cluster_id for cluster in every}
        # After a failed creation, the service may keep the cluster in PROVISIONING without listing it.
        for number in sorted({*self._unlisted, *self.made}):
            name = self._name(number)
            if name.cluster_id in listed:
                continue
            try:
                every.append(await api.get(name))
            except ClusterNotFoundError:
                if number in self._unlisted:
                    self._unlisted.discard(number)
                    self._blocked.add(number)
        self._skip_foreign(every)
        return [cluster for cluster in every if cluster.is_ray]

    def _skip_foreign(self, clusters: list[Cluster]) -> None:
        """Block the numbers whose ids belong to resources that are not generations of this shared cluster."""
        ours = {number for number, _ in newest_first(clusters, self.wanted.shared_name)}
        for cluster in clusters:
            number = generation_in(cluster.cluster_id, self.wanted.shared_name)
            if number is not None and number not in ours:
                self._unlisted.discard(number)
                self._blocked.add(number)
                self._notify_once(
                    f"The id {cluster.cluster_id} belongs to a resource without the label "
                    f"{SHARED_LABEL}={self.wanted.shared_name}, so it is not used; trying the next one"
                )

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
            self._created_at[number] = time.time()
            self.notify(f"Creating cluster {name.full} with {self.spec.node_count()} nodes")

    async def _check_store(self) -> None:
        """Validate that leases can be written, before something that bills is created.

        :raises LeaseStoreError: they cannot
        """
        if self.store is not None and not self._store_works:
            await self.store.check()
            self._store_works = True

    async def _acquire(self, cluster: Cluster) -> bool:
        """Acquire or renew the lease of the cluster; return False while the cluster cannot be used."""
        if self.store is None:
            return True
        name = cluster.resource_name
        now = time.time()
        if self._held is not None:
            if self._held[0] == name and now - self._held[1] < self.ttl / 3:
                return True
            if self._held[0] != name:
                await self.release_lease()
        # Even a hold that is not confirmed below is ours, and would keep the cluster.
        self._held = (name, 0.0)
        try:
            await self.store.acquire(name, self.who, self.ttl, writer=self._writer)
        except ClusterClosingError as error:
            self._notify_once(error.message)
            await self.release_lease()
            return False
        except LeaseStoreUnavailableError:
            raise
        except LeaseStoreError as error:
            if self._store_works and error.details.get("http_status") in (401, 403):
                raise LeaseStoreUnavailableError(error.message, error.details) from error
            raise
        self._store_works = True
        # It may have been deleted, together with its lease, before this hold was written.
        if not await self._usable(cluster):
            await self.release_lease()
            return False
        self._held = (name, now)
        return True

    async def _usable(self, cluster: Cluster) -> bool:
        """Read a cluster again; return False if it is gone, is being deleted, or has failed."""
        try:
            now = await ClustersApi(self.transport).get(cluster.resource_name)
        except ClusterNotFoundError:
            return False
        return now.create_time == cluster.create_time and now.state not in GONE_STATES

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
