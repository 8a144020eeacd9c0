"""Deletion of a shared cluster whose creation failed for the task that made it, but maybe not for others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.deadlines import duration
from airflow_provider_vertex_ray.core.sharing.activity import QUIET_SECONDS, Activity
from airflow_provider_vertex_ray.errors import OperationTimeoutError
from airflow_provider_vertex_ray.triggers.cluster_deletion import ClusterDeletion

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

JUDGED_STATES = frozenset({ClusterState.RUNNING, ClusterState.ERROR})
"""States in which it can be told whether a cluster is used. The service rejects a deletion in PROVISIONING anyway."""

UNREADABLE_SECONDS = 900.0
"""Seconds for which the use of a cluster may be unreadable; dashboards take minutes to answer after RUNNING."""


class SharedDeletion(ClusterDeletion):
    """Delete a shared cluster unless others use it.

    The task that made the cluster has given up on it, which others that wait for it have not. So the cluster is kept
    once somebody holds its lease or has a job on it, and also if that cannot be read; the reaper deletes it later.

    :param lease_uri: folder in Cloud Storage with the leases; None for no leases.
    :param by: who deletes, as it is written into the lease.
    :param silent: whether its dashboard never answered the task that made it. The jobs of such a cluster can never be
        read, so its lease alone tells whether it is used.
    """

    def __init__(
        self,
        cluster_name: str,
        log: Any,
        *,
        lease_uri: str | None,
        by: str,
        silent: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(cluster_name, log, labels=labels)
        self._lease_uri = lease_uri
        self._by = by
        self._silent = silent
        self._unreadable_since: float | None = None
        self._waiting = ""

    async def _delete(self, hook: ClusterCalls, cluster: Cluster) -> bool:
        if self._accepted or cluster.state is ClusterState.STOPPING:
            return await super()._delete(hook, cluster)
        if cluster.state not in JUDGED_STATES:
            self._note(f"it is {cluster.state.value}")
            return False
        from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete
        from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore

        async with hook.session() as (transport, _):
            store = LeaseStore(transport, self._lease_uri) if self._lease_uri else None
            outcome = await GuardedDelete(transport, store, self._by).delete_if_unused(cluster, self._reason)
        if outcome.deleted:
            self._accepted = True
            self._log.info("Waiting for cluster %s to be deleted", self.cluster_id)
            return False
        why = "; ".join(outcome.activity.reasons) or outcome.why or "it was in use a short time ago"
        if not outcome.activity.busy:
            # Vertex AI or another closer was in the way, or the cluster may be in use in a moment.
            self._unreadable_since = None
            self._note(why)
            return False
        if outcome.activity.unreadable:
            now = time.time()
            self._unreadable_since = self._unreadable_since or now
            if now - self._unreadable_since < UNREADABLE_SECONDS:
                self._note(why)
                return False
            why = f"its use could not be read for {duration(UNREADABLE_SECONDS)}: {why}"
        self.kept = why
        self._log.warning(
            "Keeping shared cluster %s, which this task created: %s. It incurs charges until "
            "VertexRayDeleteIdleClustersOperator deletes it",
            self.cluster_id,
            why,
        )
        return False

    def _reason(self, cluster: Cluster, activity: Activity) -> str | None:
        if self._is_another(cluster):
            return None
        # Without leases, another account whose requests the dashboard answers may run jobs unseen. The task's own hold
        # was taken back when its wait ended.
        if self._silent and self._lease_uri and activity.only_jobs_unreadable:
            return "its dashboard never answered its creator, and nobody holds its lease"
        if activity.busy:
            return None
        quiet = 0.0 if self._lease_uri or cluster.state is ClusterState.ERROR else QUIET_SECONDS
        return None if activity.idle_seconds(time.time()) < quiet else "its creator gave up on it, and nobody uses it"

    def _note(self, why: str) -> None:
        if why != self._waiting:
            self._waiting = why
            self._log.info("Cluster %s cannot be deleted yet: %s", self.cluster_id, why)

    def timed_out(self) -> OperationTimeoutError:
        """Return the error for a deadline that has passed; it tells what kept the cluster from being deleted."""
        if self._accepted or not self._waiting:
            return super().timed_out()
        return OperationTimeoutError(
            f"Timed out waiting for shared cluster {self.cluster_id} to become deletable; {self._waiting.rstrip('.')}. "
            "It may still incur charges.",
            {"cluster": self.cluster_name},
        )
