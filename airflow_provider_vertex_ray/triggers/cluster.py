"""Triggers that wait for a cluster: ready, resized, deleted, or in a given state."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.state import USABLE_STATES, Cluster, ClusterState
from airflow_provider_vertex_ray.core.polling import Backoff, poll_until
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    ClusterNotFoundError,
    DashboardNotReadyError,
    OperationTimeoutError,
    ProvisioningTimeoutError,
    ResizeFailedError,
    ServiceError,
    ServiceUnavailableError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers.base import WaitTrigger
from airflow_provider_vertex_ray.triggers.cluster_deletion import ClusterDeletion, Leftovers, operation_failure
from airflow_provider_vertex_ray.triggers.kill_lease import reopen_after_kill
from airflow_provider_vertex_ray.triggers.progress import CreationProgress

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

NOT_FOUND_GRACE = 60.0
"""Seconds after a create request in which a 404 does not mean that the cluster is gone."""


def dashboard_not_ready(cluster: Cluster, waited: float, problem: str) -> DashboardNotReadyError:
    """Return the error of a cluster whose dashboard has not answered in time.

    :param cluster: the cluster.
    :param waited: seconds since it reached RUNNING.
    :param problem: what its dashboard answered last.
    """
    return DashboardNotReadyError(
        f"Cluster {cluster.cluster_id} is {cluster.state.value}, but its dashboard did not answer for {waited:.0f} s. "
        f"{problem}",
        {"cluster": cluster.name},
    )


class ClusterTrigger(WaitTrigger):
    """Base of the triggers that wait for one cluster.

    :param cluster_name: full resource name (``projects/…/locations/…/persistentResources/…``).
    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param poll_interval: seconds between two polls at most; the first ones follow each other faster.
    :param deadline: Unix time at which the wait fails; None for no limit.
    :param operation: name of the long-running operation that the wait belongs to, if it is known.
    :param passthrough: JSON that is returned in the event unchanged.
    """

    def __init__(
        self,
        *,
        cluster_name: str,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        poll_interval: float = 15.0,
        deadline: float | None = None,
        operation: str | None = None,
        passthrough: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(
            cluster_name=cluster_name,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            poll_interval=poll_interval,
            deadline=deadline,
            operation=operation,
            passthrough=passthrough,
            **more,
        )
        self.cluster_name = cluster_name
        self.cluster_id = cluster_name.rsplit("/", 1)[-1]
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.operation = operation
        self._backoff = Backoff(poll_interval)

    async def wait(self) -> dict[str, Any]:
        """Poll until the condition is met."""
        from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

        hook = ClusterCalls(self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"])
        # Held for the whole wait, so that the session and its token outlive each call.
        async with hook.session():
            return await poll_until(
                lambda: self.look(hook),
                backoff=self._backoff,
                deadline=self.deadline,
                timed_out=self.timed_out,
                on_unreadable=self.on_unreadable,
            )

    async def look(self, hook: ClusterCalls) -> dict[str, Any] | None:
        """Poll once: return the result, or None while the condition is not met."""
        raise NotImplementedError

    def timed_out(self) -> VertexRayError:
        """Return the error for a deadline that has passed."""
        return OperationTimeoutError(f"Timed out waiting for cluster {self.cluster_id}.")


class VertexRayClusterReadyTrigger(ClusterTrigger):
    """Wait until a cluster is RUNNING and its dashboard serves the Jobs API; the result is ``Cluster.summary()``.

    :param dashboard_timeout: seconds that the dashboard may take to answer after RUNNING; up to five minutes have been
        seen.
    :param created_at: Unix time of the create request, if this task made it: shortly afterwards, a 404 does not end
        the wait.
    :param leftovers: full names of clusters of failed attempts, to delete meanwhile. Those that are not known to be
        gone at the end are in ``leftovers`` of the result.
    :param labels: labels that the cluster and the leftovers have, such as that of their owner; clusters without them
        are not deleted.
    :param delete_on_kill: whether to delete the cluster when the task is killed.
    :param prices: a price table as JSON, for the cost in the log; None for no cost.
    :raises QuotaExceededError: the quota does not suffice for the cluster.
    :raises StockoutError: the region has no capacity for the cluster at the moment.
    :raises NetworkExhaustedError: the network has no free IP range for the cluster.
    :raises ClusterFailedError: the cluster failed for another reason, or is being deleted.
    :raises ProvisioningTimeoutError: the cluster did not reach RUNNING before the deadline.
    :raises DashboardNotReadyError: the cluster is RUNNING, but its dashboard did not answer in time.
    :raises ClusterNotFoundError: the cluster does not exist.
    """

    def __init__(
        self,
        *,
        dashboard_timeout: float = 600.0,
        created_at: float | None = None,
        leftovers: Sequence[str] = (),
        labels: dict[str, str] | None = None,
        delete_on_kill: bool = False,
        prices: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(
            dashboard_timeout=dashboard_timeout,
            created_at=created_at,
            leftovers=list(leftovers),
            labels=labels,
            delete_on_kill=delete_on_kill,
            prices=prices,
            **arguments,
        )
        self._dashboard_timeout = dashboard_timeout
        self._created_at = created_at
        self._progress = CreationProgress(self.log, prices)
        self._running_since: float | None = None
        self._problem = ""
        self._leftovers = Leftovers(leftovers, self.log, labels)

    async def look(self, hook: ClusterCalls) -> dict[str, Any] | None:
        """Read the state; once it is RUNNING, or UPDATING while it autoscales, check the dashboard."""
        await self._leftovers.step(hook)
        try:
            cluster = await hook.get_cluster(self.cluster_name)
        except ClusterNotFoundError:
            failure = await self._creation_failure(hook)
            if failure is not None:
                raise failure from None
            if self._created_at is not None and time.time() - self._created_at < NOT_FOUND_GRACE:
                return None
            raise
        self._progress.note(cluster)
        if cluster.state is ClusterState.ERROR:
            raise cluster.failure()
        if cluster.state is ClusterState.STOPPING:
            raise ClusterFailedError(f"Cluster {self.cluster_id} is being deleted.", {"cluster": cluster.name})
        if cluster.state not in USABLE_STATES:
            failure = await self._creation_failure(hook)
            if failure is not None:
                raise failure
            return None
        return await self._check_dashboard(hook, cluster.require_ray())

    async def killed(self) -> None:
        """Delete the cluster, as far as the service allows that in the seconds that a kill leaves."""
        if self.arguments["delete_on_kill"]:
            from airflow_provider_vertex_ray.triggers.kill_deletion import delete_after_kill

            names = [self.cluster_name, *self._leftovers.remaining]
            labels = self.arguments["labels"]
            await delete_after_kill(self, [ClusterDeletion(name, self.log, labels=labels) for name in names])

    async def _creation_failure(self, hook: ClusterCalls) -> VertexRayError | None:
        failure = await operation_failure(hook, self.operation)
        if failure is None:
            return None
        # The same type and details as those of a cluster in ERROR, which may be read before or after its operation.
        kind = ClusterFailedError if type(failure) is ServiceError else type(failure)
        message = f"Cluster {self.cluster_id} could not be created: {failure.message}"
        return kind(message, {"cluster": self.cluster_name, **failure.details})

    async def _check_dashboard(self, hook: ClusterCalls, cluster: Cluster) -> dict[str, Any] | None:
        if self._running_since is None:
            self._running_since = time.time()
            self._backoff.reset()
        problem = await hook.dashboard_problem(cluster)
        if problem is None:
            self._progress.ready(cluster)
            remaining = self._leftovers.remaining
            return {**cluster.summary(), **({"leftovers": remaining} if remaining else {})}
        waited = time.time() - self._running_since
        if waited > self._dashboard_timeout:
            raise dashboard_not_ready(cluster, waited, problem)
        if problem != self._problem:
            self._problem = problem
            self.log.info("The dashboard of cluster %s is not ready yet: %s", self.cluster_id, problem)
        return None

    def timed_out(self) -> VertexRayError:
        """Name the state in which the cluster is stuck."""
        seen = self._progress.state
        state = seen.value if seen else "unknown"
        kind = DashboardNotReadyError if seen in USABLE_STATES else ProvisioningTimeoutError
        text = f"Timed out waiting for cluster {self.cluster_id} to become ready; its state is {state}. {self._problem}"
        return kind(text.strip(), {"cluster": self.cluster_name})


class VertexRayClusterDeleteTrigger(ClusterTrigger):
    """Delete a cluster and wait until it is gone; the result contains ``existed``.

    The delete request is sent from here because Vertex AI rejects it while the cluster is PROVISIONING: it is repeated
    until the service accepts it. A cluster that does not exist counts as deleted.

    :param also: full names of further clusters to delete: those that an earlier try created under another id.
    :param created: the ``create_time`` of each of the clusters, by full name; empty for one that does not exist. It is
        stored because the wait may take hours, and be moved to another triggerer, while another run creates a cluster
        with an id that is free again. None, or a name that is missing: the first cluster that is read is deleted.
    :param began: Unix time at which the task started: a cluster that was created later is not deleted.
    :param lease: the lease of the cluster, which was closed for the deletion: ``uri``, ``cluster``, ``owner`` and
        ``token``; None for no lease. It is closed again before each request, as the wait may have been interrupted.
    :raises LeaseHeldError: a run has acquired the lease since.
    :raises ClusterClosingError: another run has closed the lease since.
    :raises LeaseStoreError: the lease cannot be read or written.
    :raises OperationTimeoutError: the cluster was not deleted before the deadline.
    :raises NotAuthorisedError: the account may not delete clusters.
    :raises ServiceError: the deletion failed for another reason.
    """

    def __init__(
        self,
        *,
        also: Sequence[str] = (),
        created: dict[str, str] | None = None,
        began: float | None = None,
        lease: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(also=list(also), created=created, began=began, lease=lease, **arguments)
        self._unanswered = False
        first = self._delete if lease else None
        self._deletions = [
            ClusterDeletion(name, self.log, request, created=(created or {}).get(name), began=began)
            for name, request in ((self.cluster_name, first), *((name, None) for name in also))
        ]

    async def look(self, hook: ClusterCalls) -> dict[str, Any] | None:
        """Check whether the clusters exist, and request their deletion until that is accepted."""
        if not all([await deletion.step(hook) for deletion in self._deletions]):
            return None
        existed = any(deletion.existed for deletion in self._deletions)
        return {"cluster_id": self.cluster_id, "name": self.cluster_name, "existed": existed}

    async def _delete(self, hook: ClusterCalls) -> str | None:
        lease = self.arguments["lease"]
        from airflow_provider_vertex_ray.core.sharing.guarded_delete import delete_closed

        # A request that is cut off, or not answered, may still arrive; then the lease must stay closed.
        self._unanswered = True
        async with hook.session() as (transport, _):
            try:
                operation = await delete_closed(transport, lease)
            except ServiceUnavailableError:
                raise
            except VertexRayError:
                self._unanswered = False
                raise
        self._unanswered = False
        return operation

    async def killed(self) -> None:
        """Open the lease again, unless the cluster is being deleted."""
        await reopen_after_kill(self, self.arguments["lease"], self._going)

    async def _going(self) -> bool:
        """Tell whether the cluster is gone or being deleted, or may be."""
        from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

        if self._unanswered or self._deletions[0].accepted:
            return True
        # Another triggerer may have sent the request.
        hook = ClusterCalls(self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"])
        try:
            return (await hook.get_cluster(self.cluster_name)).state is ClusterState.STOPPING
        except ClusterNotFoundError:
            return True

    def timed_out(self) -> VertexRayError:
        """Tell whether the service ever accepted the deletion."""
        return next(deletion for deletion in self._deletions if not deletion.gone).timed_out()


class VertexRayClusterResizeTrigger(ClusterTrigger):
    """Wait for a resize and verify it: the service's replica counts, and the nodes that Ray itself reports as alive.

    :param replicas: expected replica count by pool id.
    :param lease: the lease of the cluster, which was closed for the resize: ``uri``, ``cluster`` and ``token``; None
        for no lease. A kill opens it again.
    :raises ResizeFailedError: the cluster did not reach the expected size before the deadline.
    :raises QuotaExceededError: the quota does not suffice for the new size.
    :raises StockoutError: the region has no capacity for the new size at the moment.
    :raises ClusterFailedError: the cluster failed, or the resize failed for another reason.
    """

    def __init__(self, *, replicas: dict[str, int], lease: dict[str, Any] | None = None, **arguments: Any) -> None:
        super().__init__(replicas=replicas, lease=lease, **arguments)
        self._replicas = replicas
        self._mismatch = ""

    async def look(self, hook: ClusterCalls) -> dict[str, Any] | None:
        """Compare the actual with the expected size."""
        cluster = await hook.get_cluster(self.cluster_name)
        if cluster.state is ClusterState.ERROR:
            raise cluster.failure()
        failure = await operation_failure(hook, self.operation)
        if failure is not None:
            raise failure
        if cluster.state is not ClusterState.RUNNING:
            return None
        counts = {pool.pool_id: pool.replicas for pool in cluster.pools}
        if any(counts.get(pool) != count for pool, count in self._replicas.items()):
            self._mismatch = f"Vertex AI reports {counts}"
            return None
        live = await hook.live_nodes(cluster)
        autoscales = any(pool.autoscaling for pool in cluster.pools)
        if live != cluster.node_count and not (autoscales and live > cluster.node_count):
            self._mismatch = f"Ray reports {live} nodes as alive, and {cluster.node_count} are expected"
            return None
        self.log.info("Cluster %s has %d nodes, all alive", self.cluster_id, live)
        return {**cluster.summary(), "live_nodes": live}

    async def killed(self) -> None:
        """Open the lease again; what the service removes of the cluster, it removes nevertheless."""
        await reopen_after_kill(self, self.arguments["lease"])

    def timed_out(self) -> VertexRayError:
        """Tell which size the cluster has instead."""
        return ResizeFailedError(
            f"Timed out waiting for cluster {self.cluster_id} to be resized to {self._replicas}; "
            f"{self._mismatch or 'it is UPDATING'}.",
            {"cluster": self.cluster_name, "wanted": self._replicas},
        )


class VertexRayClusterStateTrigger(ClusterTrigger):
    """Wait until a cluster is in one of several states; the result is ``Cluster.summary()``.

    :param states: names of the states, such as ``RUNNING``.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises ClusterFailedError: the cluster is in ERROR, and ``states`` does not contain that.
    :raises OperationTimeoutError: the cluster was in none of the states before the deadline.
    """

    def __init__(self, *, states: Sequence[str], **arguments: Any) -> None:
        super().__init__(states=list(states), **arguments)
        self._states = frozenset(states)

    async def look(self, hook: ClusterCalls) -> dict[str, Any] | None:
        """Read the state."""
        cluster = await hook.get_cluster(self.cluster_name)
        if cluster.state.value in self._states:
            return cluster.summary()
        if cluster.state is ClusterState.ERROR:
            raise cluster.failure()
        return None
