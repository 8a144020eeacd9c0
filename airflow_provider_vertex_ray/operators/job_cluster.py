"""Cluster of a job: its lease, and the move to the next generation when a shared cluster is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    ClusterFailedError,
    ClusterNotFoundError,
    VertexRayError,
)
from airflow_provider_vertex_ray.operators.leases import lease_holder_of
from airflow_provider_vertex_ray.operators.owner_labels import owner_labels, run_labels
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.ensure import VertexRayClusterEnsureTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.name import ClusterName
    from airflow_provider_vertex_ray.core.cluster.state import Cluster
    from airflow_provider_vertex_ray.core.sharing.lease import HolderId
    from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
    from airflow_provider_vertex_ray.triggers.base import WaitTrigger

    Base = VertexRayBaseOperator
else:
    Base = object

CLUSTER_GONE = (ClusterClosingError, ClusterFailedError, ClusterNotFoundError)
"""Errors before the submission after which a job moves to the next generation of its shared cluster."""

SUCCESSOR_TIMEOUT = 3600.0
"""Seconds within which the next generation must be ready; creation takes 10 to 20 minutes."""


class SharedClusterMixin(Base):
    """Lease and successor of the cluster on which a task submits its job."""

    cluster_id: str
    lease_uri: str | None
    lease_ttl: float
    lease_owner: str | None
    deferrable: bool
    poll_interval: float

    if TYPE_CHECKING:

        def _run(self, context: Context, cluster: str | None = None) -> Any: ...

        def _wait(
            self, context: Context, trigger: WaitTrigger, deferrable: bool, method: str = "execute_complete"
        ) -> Any: ...

    async def _held(self, cluster: Cluster, context: Context) -> tuple[Cluster, dict[str, Any] | None]:
        """Acquire the lease; return the cluster, re-read afterwards, and the lease for the trigger to renew.

        :raises ClusterClosingError: the cluster is about to be deleted.
        """
        if not self.lease_uri:
            return cluster, None
        from airflow_provider_vertex_ray.core.sharing.holding import held_cluster
        from airflow_provider_vertex_ray.hooks.calls.lease import LeaseCalls

        who = self._holder(context)
        hook = LeaseCalls(self.gcp_conn_id, self.impersonation_chain)
        async with hook.store(self.lease_uri) as store, self.cluster_hook.session() as (transport, _):
            held = await held_cluster(transport, store, cluster, who, self.lease_ttl)
        names = {"owner": who.owner, "scope": who.scope}
        return held, {"uri": self.lease_uri, "cluster": held.name, **names, "ttl": self.lease_ttl}

    def _holder(self, context: Context) -> HolderId:
        # On the next generation, the hold keeps the name of the cluster that the task was given: whoever releases the
        # lease on that one finds it.
        return lease_holder_of(self, context, self.lease_owner, str(self.cluster_id).rsplit("/", 1)[-1])

    def _go_to_successor(self, context: Context, name: ClusterName, error: VertexRayError) -> Any:
        """Run the job on the cluster that replaces one that is gone.

        That is the one that this DAG run created for the id under another one, or the next generation of a shared
        cluster, which is waited for.

        :raises VertexRayError: there is none; this is ``error``.
        """
        from airflow_provider_vertex_ray.core.threads import run_sync

        if name.cluster_id == self.cluster_id and (other := run_sync(lambda: self._other_try(name, context))):
            self.log.warning("%s\nRunning the job on cluster %s, which was created for this id", error.message, other)
            return self._run(context, other)
        found = run_sync(lambda: self._successor(name))
        if found is None:
            raise error
        who = self._holder(context)
        self.log.warning("%s\nMoving the job to the next generation of shared cluster %s", error, found.shared_name)
        trigger = VertexRayClusterEnsureTrigger(
            shared_name=found.shared_name,
            spec=found.spec,
            project_id=found.project,
            location=found.location,
            labels=owner_labels(context),
            lease_uri=self.lease_uri,
            lease_ttl=self.lease_ttl,
            lease_owner=who.owner,
            lease_scope=who.scope,
            shares_lease=True,
            poll_interval=self.poll_interval,
            deadline=deadline_after(SUCCESSOR_TIMEOUT),
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable, "cluster_ensured")

    async def _other_try(self, name: ClusterName, context: Context) -> str | None:
        from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
        from airflow_provider_vertex_ray.core.cluster.state import USABLE_STATES
        from airflow_provider_vertex_ray.core.cluster.tries import tries_of

        async with self.cluster_hook.session() as (transport, _):
            try:
                clusters = await ClustersApi(transport).list_all(name.project, name.location)
            except VertexRayError:
                # The reason for which the cluster cannot be used says more.
                return None
        found = tries_of(name.cluster_id, clusters, run_labels(context))
        usable = [each for each in found if each.cluster_id != name.cluster_id and each.state in USABLE_STATES]
        return usable[-1].name if usable else None

    async def _successor(self, name: ClusterName) -> Any:
        from airflow_provider_vertex_ray.core.sharing.ensure import successor_of

        async with self.cluster_hook.session() as (transport, _):
            return await successor_of(transport, name)

    def cluster_ensured(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Run the job on the next generation of the shared cluster, which is ready."""
        return self._run(context, str(result_of(event)["name"]))
