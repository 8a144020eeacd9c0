"""Leases as tasks see them: the parameters, and giving one back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_duration, has_template
from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
from airflow_provider_vertex_ray.errors import ClusterNotFoundError, VertexRayError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import NAMED_LINKS
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore

LEASE_TTL = 900.0
"""Seconds for which a run holds a cluster without saying so again."""


def check_lease(lease_uri: Any, lease_ttl: float = LEASE_TTL) -> None:
    """Refuse what can not be a lease's place or time.

    :raises InvalidArgumentError: Names the field and the value.
    """
    from airflow_provider_vertex_ray.core.sharing.lease_store import parse_lease_uri

    check_duration("lease_ttl", lease_ttl, none_allowed=False)
    if isinstance(lease_uri, str) and not has_template(lease_uri):
        parse_lease_uri(lease_uri)


def lease_owner_of(context: Context, lease_owner: str | None) -> str:
    """Who holds a lease: what the user says, else the DAG run."""
    ti = context["ti"]
    return lease_owner or f"{ti.dag_id}/{ti.run_id}"


class LeaseClosing:
    """Keeps new work off a cluster while it is deleted or made smaller.

    :param task: The task, for its connection.
    :param lease_uri: Folder with the leases.
    :param owner: This run: its own hold is no reason to refuse.
    """

    def __init__(self, task: VertexRayBaseOperator, lease_uri: str, owner: str) -> None:
        self._task = task
        self._uri = lease_uri
        self._owner = owner

    async def close(self, cluster: str, reason: str, seconds: float) -> None:
        """Take no new holders for so many seconds.

        :param cluster: Full name, as the service says it.
        :raises LeaseHeldError: Somebody else holds it.
        :raises ClusterClosingError: Somebody else is about to change it already.
        """
        now = time.time()
        async with self._store() as store:
            await store.change(
                parse_cluster_name(cluster),
                lambda lease: lease.release(self._owner, now).close(self._owner, reason, now, seconds),
            )

    async def done(self, cluster: str, *, gone: bool) -> None:
        """Take holders again, or forget the lease of a cluster that is gone. What fails mends itself with time."""
        try:
            async with self._store() as store:
                name = parse_cluster_name(cluster)
                if gone:
                    await store.forget(name)
                else:
                    await store.change(name, lambda lease: lease.reopen(self._owner))
        except VertexRayError as error:
            self._task.log.warning("The lease of %s opens later, by itself: %s", cluster, error)

    def _store(self) -> contextlib.AbstractAsyncContextManager[LeaseStore]:
        from airflow_provider_vertex_ray.hooks.lease import VertexRayLeaseAsyncHook

        return VertexRayLeaseAsyncHook(self._task.gcp_conn_id, self._task.impersonation_chain).store(self._uri)


class VertexRayReleaseClusterOperator(VertexRayBaseOperator):
    """Gives back this run's hold on a shared cluster, so that it need not expire first.

    The cluster stays; a ``VertexRayDeleteIdleClustersOperator`` deletes it once nobody uses it. A cluster that is gone
    has no holders. Returns ``cluster_id`` and ``lease_owner``.

    :param cluster_id: Id or full resource name. (templated)
    :param lease_uri: Folder in Cloud Storage with the leases. (templated)
    :param lease_owner: Who holds it; default: ``<dag_id>/<run_id>``. (templated)

    Raises LeaseStoreError.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "lease_uri",
        "lease_owner",
        *VertexRayBaseOperator.connection_fields,
    )
    operator_extra_links = NAMED_LINKS

    def __init__(
        self, *, lease_uri: str, cluster_id: str | None = None, lease_owner: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        check_lease(lease_uri)
        self.cluster_id = cluster_id
        self.lease_uri = lease_uri
        self.lease_owner = lease_owner

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the lease."""
        from airflow_provider_vertex_ray.hooks.base import run_sync
        from airflow_provider_vertex_ray.hooks.lease import VertexRayLeaseAsyncHook

        check_lease(self.lease_uri)
        name = self._name(str(self.cluster_id))
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        owner = lease_owner_of(context, self.lease_owner)
        hook = VertexRayLeaseAsyncHook(self.gcp_conn_id, self.impersonation_chain)
        try:
            run_sync(lambda: hook.release_lease(self.lease_uri, name.full, owner))
        except ClusterNotFoundError:
            self.log.info("Cluster %s is gone, and its lease with it", name.full)
        else:
            self.log.info("%s does not hold cluster %s any more", owner, name.full)
        return {"cluster_id": name.cluster_id, "lease_owner": owner}
