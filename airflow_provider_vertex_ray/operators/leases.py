"""Leases on shared clusters: checks of the arguments, closing a lease, and the operator that releases one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_duration, has_template
from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
from airflow_provider_vertex_ray.core.sharing.lease import Closing, HolderId
from airflow_provider_vertex_ray.errors import ClusterNotFoundError, InvalidArgumentError, VertexRayError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import NAMED_LINKS
from airflow_provider_vertex_ray.operators.arguments import check_strings
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, task_owner

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore

LEASE_TTL = 900.0
"""Seconds after which a lease expires unless it is renewed."""


def check_lease(lease_uri: Any, lease_ttl: float = LEASE_TTL) -> None:
    """Validate the folder and the lifetime of a lease.

    :param lease_uri: the ``lease_uri`` argument; None and templates pass.
    :param lease_ttl: the ``lease_ttl`` argument, in seconds.
    :raises InvalidArgumentError: the URI is malformed, or the lifetime is not positive.
    """
    from airflow_provider_vertex_ray.core.sharing.lease_objects import parse_lease_uri

    check_duration("lease_ttl", lease_ttl, none_allowed=False)
    check_strings(lease_uri=lease_uri)
    if isinstance(lease_uri, str) and not has_template(lease_uri):
        parse_lease_uri(lease_uri)


def lease_owner_of(context: Context, lease_owner: str | None) -> str:
    """Return the owner of a lease: ``lease_owner`` if it is set, else the DAG run."""
    ti = context["ti"]
    return lease_owner or f"{ti.dag_id}/{ti.run_id}"


def lease_group_of(task: Any) -> str | None:
    """Return the ID of the ``VertexRayCluster`` group on whose cluster a task runs; None outside such a group."""
    dag = task.get_dag() if task.has_dag() else None
    groups = dag.task_group.get_task_group_dict() if dag is not None else {}
    for group_id, group in groups.items():
        if getattr(group, "is_vertex_ray_cluster", False) and task.task_id in group.lease_tasks:
            return str(group_id)
    return None


def lease_holder_of(task: Any, context: Context, lease_owner: str | None, otherwise: str) -> HolderId:
    """Return the identity of a task's hold on a shared cluster.

    All tasks of a ``VertexRayCluster`` group share one hold, which its teardown releases.

    :param task: the operator.
    :param context: Airflow's context.
    :param lease_owner: the ``lease_owner`` argument; None for the DAG run.
    :param otherwise: scope of the hold outside such a group.
    :raises InvalidArgumentError: ``lease_owner`` is too long or not printable.
    """
    scope = lease_group_of(task) or otherwise
    # Runs may share an owner's name, but not their holds.
    return HolderId(
        lease_owner_of(context, lease_owner), f"{lease_owner_of(context, None)}/{scope}" if lease_owner else scope
    )


def task_scope(context: Context) -> str:
    """Return the scope of a hold that belongs to one task instance."""
    _, parts = task_owner(context)
    return parts["task_id"] if parts["map_index"] == "-1" else f"{parts['task_id']}[{parts['map_index']}]"


class LeaseClosing:
    """Close a lease to new owners while its cluster is deleted or scaled down.

    :param task: task whose connection is used.
    :param lease_uri: Cloud Storage folder with the leases.
    :param context: Airflow's context; the holds of its DAG run do not count.
    """

    def __init__(self, task: VertexRayBaseOperator, lease_uri: str, context: Context) -> None:
        self._task = task
        self._uri = lease_uri
        self.owner = lease_owner_of(context, None)
        self.token, _ = task_owner(context)

    async def close(self, cluster: str, reason: str, seconds: float) -> None:
        """Close the lease to new owners.

        :param cluster: full name of the cluster, as the service returns it.
        :param reason: reason for others to read.
        :param seconds: seconds after which the lease opens again by itself.
        :raises LeaseHeldError: another run holds the lease.
        :raises ClusterClosingError: another run has already closed the lease.
        """
        mark = Closing(self.owner, reason, 0.0, 0.0, self.token)
        async with self._store() as store:
            await store.close(parse_cluster_name(cluster), mark, seconds, ignoring=self.owner)

    async def done(self, cluster: str, *, gone: bool) -> None:
        """Open the lease again, or delete it with its cluster. A failure is logged only, as the closing expires.

        :param cluster: full name of the cluster, as the service returns it.
        :param gone: whether the cluster no longer exists.
        """
        try:
            async with self._store() as store:
                name = parse_cluster_name(cluster)
                if gone:
                    await store.forget(name)
                else:
                    await store.reopen(name, self.token)
        except VertexRayError as error:
            self._task.log.warning(
                "Could not reopen the lease of %s; new jobs must wait until the closing expires: %s", cluster, error
            )

    def _store(self) -> contextlib.AbstractAsyncContextManager[LeaseStore]:
        from airflow_provider_vertex_ray.hooks.calls.lease import LeaseCalls

        return LeaseCalls(self._task.gcp_conn_id, self._task.impersonation_chain).store(self._uri)


class VertexRayReleaseClusterOperator(VertexRayBaseOperator):
    """Release this run's lease on a shared cluster before it expires.

    In a ``VertexRayCluster`` group, it releases what the tasks of the group hold, on all generations of the cluster;
    elsewhere, everything that the run holds on this generation, and what jobs hold that moved from it to a newer one.

    The cluster keeps running; a ``VertexRayDeleteIdleClustersOperator`` deletes it once it is idle. A cluster that no
    longer exists is not an error. Returns ``cluster_id`` and ``lease_owner``.

    :param lease_uri: Cloud Storage folder with the leases. (templated)
    :param cluster_id: cluster ID or full resource name. (templated)
    :param lease_owner: owner of the lease; default: ``<dag_id>/<run_id>``. (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises LeaseStoreError: the lease cannot be read or written.
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
        if lease_uri is None:
            raise InvalidArgumentError(
                "lease_uri", lease_uri, "Use a Cloud Storage folder, such as gs://bucket/leases."
            )
        check_lease(lease_uri)
        check_strings(lease_owner=lease_owner)
        self.cluster_id = cluster_id
        self.lease_uri = lease_uri
        self.lease_owner = lease_owner

    def execute(self, context: Context) -> dict[str, Any]:
        """Release the lease."""
        from airflow_provider_vertex_ray.core.threads import run_sync
        from airflow_provider_vertex_ray.hooks.calls.lease import LeaseCalls

        check_lease(self.lease_uri)
        name = self._name(str(self.cluster_id))
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        owner = lease_owner_of(context, self.lease_owner)
        holder = lease_holder_of(self, context, self.lease_owner, name.cluster_id)
        run = None if lease_group_of(self) else lease_owner_of(context, None)
        hook = LeaseCalls(self.gcp_conn_id, self.impersonation_chain)
        try:
            run_sync(lambda: hook.release_hold(self.lease_uri, name, holder, run=run))
        except ClusterNotFoundError:
            self.log.info("Cluster %s no longer exists, so it has no lease to release", name.full)
        else:
            self.log.info("%s released its lease on cluster %s", owner, name.full)
        return {"cluster_id": name.cluster_id, "lease_owner": owner}
