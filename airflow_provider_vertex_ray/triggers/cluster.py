"""Waiting for clusters: ready, resized, deleted, in a state."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    ClusterNotFoundError,
    DashboardNotReadyError,
    OperationTimeoutError,
    PreconditionError,
    ProvisioningTimeoutError,
    RateLimitedError,
    ResizeFailedError,
    ServiceUnavailableError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers.base import WaitTrigger, pause

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook

NOT_FOUND_GRACE = 60.0
"""Seconds after a create in which a 404 does not mean that the cluster is gone."""


class ClusterTrigger(WaitTrigger):
    """Base of the waits on one cluster.

    :param cluster_name: Full resource name.
    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain.
    :param poll_interval: Seconds between two looks; the first ones come sooner.
    :param deadline: Unix time at which the wait ends with an error; None for never.
    :param operation: Name of the long-running operation that is waited for, if known.
    :param passthrough: JSON that is handed back in the event as it is.
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
        self._interval = min(1.0, poll_interval)

    async def wait(self) -> dict[str, Any]:
        """Look until it is so."""
        from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook

        hook = VertexRayClusterAsyncHook(self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"])
        # Held for the whole wait, so that the session and its token outlive each call.
        async with hook.session():
            while True:
                try:
                    result = await self.look(hook)
                    if result is not None:
                        return result
                except (ServiceUnavailableError, RateLimitedError) as error:
                    self.log.warning("The service can not be read for the moment: %s", error)
                if seconds_left(self.deadline) <= 0:
                    raise await self.too_late(hook)
                await pause(self._interval, self.deadline)
                self._interval = min(self._interval * 1.5, self.poll_interval)

    async def look(self, hook: VertexRayClusterAsyncHook) -> dict[str, Any] | None:
        """One look: the result when it is so, None when it is not yet so."""
        raise NotImplementedError

    async def too_late(self, hook: VertexRayClusterAsyncHook) -> VertexRayError:
        """The error for a deadline that passed."""
        return OperationTimeoutError(f"Cluster {self.cluster_id}: the wait ended at its deadline.")

    async def operation_failure(self, hook: VertexRayClusterAsyncHook) -> VertexRayError | None:
        """The long-running operation's error, once it has one."""
        if self.operation is None:
            return None
        try:
            found = await hook.get_operation(self.operation)
        except ClusterNotFoundError:
            return None
        error = found.get("error")
        if not found.get("done") or not error:
            return None
        return outcome_error(str(error.get("message", "")), error.get("code"))


class VertexRayClusterReadyTrigger(ClusterTrigger):
    """Waits until a cluster is RUNNING and its dashboard serves the Jobs API; the result is ``Cluster.summary()``.

    :param dashboard_timeout: Seconds that the dashboard may need after RUNNING; up to five minutes were seen.
    :param created_at: Unix time of the create, if it is ours: shortly after it, a 404 is no end.

    Errors: QuotaExceededError, StockoutError, NetworkExhaustedError or ClusterFailedError by the service's text,
    ProvisioningTimeoutError, DashboardNotReadyError, ClusterNotFoundError.
    """

    def __init__(self, *, dashboard_timeout: float = 600.0, created_at: float | None = None, **arguments: Any) -> None:
        super().__init__(dashboard_timeout=dashboard_timeout, created_at=created_at, **arguments)
        self._dashboard_timeout = dashboard_timeout
        self._created_at = created_at
        self._state: ClusterState | None = None
        self._running_since: float | None = None

    async def look(self, hook: VertexRayClusterAsyncHook) -> dict[str, Any] | None:
        """Ask for the state; once RUNNING, for the dashboard."""
        try:
            cluster = await hook.get_cluster(self.cluster_name)
        except ClusterNotFoundError:
            failure = await self.operation_failure(hook)
            if failure is not None:
                raise failure from None
            if self._created_at is not None and time.time() - self._created_at < NOT_FOUND_GRACE:
                return None
            raise
        if cluster.state is not self._state:
            self._state = cluster.state
            self.log.info("Cluster %s is %s", self.cluster_id, cluster.state.value)
        if cluster.state is ClusterState.ERROR:
            raise cluster.failure()
        if cluster.state is ClusterState.STOPPING:
            raise ClusterFailedError(f"Cluster {self.cluster_id} is being deleted.", {"cluster": cluster.name})
        if cluster.state is not ClusterState.RUNNING:
            failure = await self.operation_failure(hook)
            if failure is not None:
                raise failure
            return None
        return await self._dashboard(hook, cluster.require_ray())

    async def _dashboard(self, hook: VertexRayClusterAsyncHook, cluster: Cluster) -> dict[str, Any] | None:
        if self._running_since is None:
            self._running_since = time.time()
            self._interval = min(1.0, self.poll_interval)
        if await hook.dashboard_answers(cluster):
            self.log.info("The dashboard of cluster %s answers", self.cluster_id)
            return cluster.summary()
        waited = time.time() - self._running_since
        if waited > self._dashboard_timeout:
            raise DashboardNotReadyError(
                f"Cluster {self.cluster_id} is RUNNING, but its dashboard did not answer for {waited:.0f} s.",
                {"cluster": cluster.name},
            )
        return None

    async def too_late(self, hook: VertexRayClusterAsyncHook) -> VertexRayError:
        """Says in which state the cluster is stuck."""
        state = self._state.value if self._state else "unknown"
        kind = DashboardNotReadyError if self._state is ClusterState.RUNNING else ProvisioningTimeoutError
        return kind(
            f"Cluster {self.cluster_id} was not ready in time; its state is {state}.",
            {"cluster": self.cluster_name},
        )


class VertexRayClusterDeleteTrigger(ClusterTrigger):
    """Deletes a cluster and waits until it is gone; the result has ``existed``.

    The delete itself is here because the service refuses it while the cluster is PROVISIONING: it is tried until the
    service takes it. A cluster that is not there is deleted already.

    Errors: OperationTimeoutError, NotAuthorisedError and what else the service answers.
    """

    _accepted = False
    _existed = False
    _refusal = ""

    async def look(self, hook: VertexRayClusterAsyncHook) -> dict[str, Any] | None:
        """Ask whether it is there, and for its deletion as long as that was not accepted."""
        try:
            cluster = await hook.get_cluster(self.cluster_name)
        except ClusterNotFoundError:
            self.log.info("Cluster %s is gone", self.cluster_id)
            return {"cluster_id": self.cluster_id, "name": self.cluster_name, "existed": self._existed}
        self._existed = True
        if cluster.state is ClusterState.STOPPING:
            self._accepted = True
        if self._accepted:
            failure = await self.operation_failure(hook)
            if failure is not None:
                raise failure
            return None
        try:
            self.operation = await hook.delete_cluster(self.cluster_name)
            self._accepted = True
            self.log.info("Cluster %s is being deleted", self.cluster_id)
        except PreconditionError as error:
            if str(error) != self._refusal:
                self._refusal = str(error)
                self.log.info("The service does not delete cluster %s yet: %s", self.cluster_id, error)
        return None

    async def too_late(self, hook: VertexRayClusterAsyncHook) -> VertexRayError:
        """Says whether the service ever accepted the delete."""
        said = "its deletion goes on" if self._accepted else f"the service refused to delete it: {self._refusal}"
        return OperationTimeoutError(
            f"Cluster {self.cluster_id} was not gone in time; {said}. It may still cost money.",
            {"cluster": self.cluster_name},
        )


class VertexRayClusterResizeTrigger(ClusterTrigger):
    """Waits for a resize and verifies it: the service's counts, and the nodes that Ray itself sees alive.

    :param replicas: Replica count by pool id that the cluster should have.

    Errors: ResizeFailedError, OperationTimeoutError, and the service's own for the operation (quota, stockout, …).
    """

    def __init__(self, *, replicas: dict[str, int], **arguments: Any) -> None:
        super().__init__(replicas=replicas, **arguments)
        self._replicas = replicas
        self._seen = ""

    async def look(self, hook: VertexRayClusterAsyncHook) -> dict[str, Any] | None:
        """Compare what is with what should be."""
        cluster = await hook.get_cluster(self.cluster_name)
        if cluster.state is ClusterState.ERROR:
            raise cluster.failure()
        failure = await self.operation_failure(hook)
        if failure is not None:
            raise failure
        if cluster.state is not ClusterState.RUNNING:
            return None
        counts = {pool.pool_id: pool.replicas for pool in cluster.pools}
        if any(counts.get(pool) != count for pool, count in self._replicas.items()):
            self._seen = f"the service reports {counts}"
            return None
        live = await hook.live_nodes(cluster)
        autoscales = any(pool.autoscaling for pool in cluster.pools)
        if live != cluster.node_count and not (autoscales and live > cluster.node_count):
            self._seen = f"Ray sees {live} nodes alive, {cluster.node_count} are asked for"
            return None
        self.log.info("Cluster %s has %d nodes, all alive", self.cluster_id, live)
        return {**cluster.summary(), "live_nodes": live}

    async def too_late(self, hook: VertexRayClusterAsyncHook) -> VertexRayError:
        """Says what the cluster has instead."""
        return ResizeFailedError(
            f"Cluster {self.cluster_id} did not get to {self._replicas} in time; {self._seen or 'it is UPDATING'}.",
            {"cluster": self.cluster_name, "wanted": self._replicas},
        )


class VertexRayClusterStateTrigger(ClusterTrigger):
    """Waits until a cluster is in one of some states; the result is ``Cluster.summary()``.

    :param states: Names of the states.

    Errors: ClusterNotFoundError; the cluster's failure when it is in ERROR and that is not waited for.
    """

    def __init__(self, *, states: Sequence[str], **arguments: Any) -> None:
        super().__init__(states=list(states), **arguments)
        self._states = frozenset(states)

    async def look(self, hook: VertexRayClusterAsyncHook) -> dict[str, Any] | None:
        """Ask for the state."""
        cluster = await hook.get_cluster(self.cluster_name)
        if cluster.state.value in self._states:
            return cluster.summary()
        if cluster.state is ClusterState.ERROR:
            raise cluster.failure()
        return None
