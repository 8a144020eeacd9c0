"""Delete an unused cluster without racing against new jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing.activity import Activity, read_activity
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    ClusterNotFoundError,
    LeaseHeldError,
    PreconditionError,
    VertexRayError,
)

log = logging.getLogger(__name__)

CLOSING_SECONDS = 180.0
"""Seconds for which a lease accepts no new holders during the last check and the deletion."""

Judge = Callable[[Cluster, Activity], str | None]
"""Returns the reason to delete a cluster; None to keep it."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a guarded deletion.

    :param deleted: whether the service accepted the deletion
    :param why: reason for the outcome; empty if the first check kept the cluster
    :param activity: the activity that was read last
    """

    deleted: bool
    why: str
    activity: Activity


@dataclass
class GuardedDelete:
    """Deletes clusters that a judge condemns twice: before and after their leases are closed to new holders.

    :param transport: the connection
    :param store: the lease store; without one, use that begins between the second check and the deletion is not noticed
    :param by: who deletes, for the error of tasks that are rejected meanwhile
    """

    transport: Transport
    store: LeaseStore | None
    by: str

    async def delete_if_unused(self, cluster: Cluster, judge: Judge) -> Outcome:
        """Delete an unused cluster without racing against new jobs.

        :param cluster: the cluster
        :param judge: decides whether it is deleted
        :raises VertexRayError: the service rejects the deletion for another reason than the state of the cluster
        """
        activity = await read_activity(self.transport, cluster, self.store, time.time())
        why = judge(cluster, activity)
        if why is None:
            return Outcome(False, "", activity)
        name = cluster.resource_name
        try:
            await self._close(name, why)
        except (LeaseHeldError, ClusterClosingError) as error:
            return Outcome(False, error.message, activity)
        except VertexRayError as error:
            return Outcome(False, f"its lease cannot be closed: {error.message}", activity)
        deleted = False
        try:
            clusters = ClustersApi(self.transport)
            cluster = await clusters.get(name)
            activity = await read_activity(self.transport, cluster, self.store, time.time())
            why_now = judge(cluster, activity)
            if why_now is None:
                return Outcome(False, "it came into use during the last check", activity)
            await clusters.delete(name)
            deleted = True
            log.info("Deleting cluster %s: %s", cluster.cluster_id, why_now)
            return Outcome(True, why_now, activity)
        except ClusterNotFoundError:
            deleted = True
            return Outcome(True, "it was already deleted", activity)
        except PreconditionError as error:
            return Outcome(False, f"Vertex AI rejected the deletion: {error.message}", activity)
        finally:
            await self._reopen(name, deleted)

    async def _close(self, name: ClusterName, why: str) -> None:
        if self.store is not None:
            await self.store.change(name, lambda lease: lease.close(self.by, why, time.time(), CLOSING_SECONDS))

    async def _reopen(self, name: ClusterName, deleted: bool) -> None:
        if self.store is None:
            return
        try:
            if deleted:
                await self.store.forget(name)
            else:
                await self.store.change(name, lambda lease: lease.reopen(self.by))
        except VertexRayError as error:
            log.warning(
                "Could not update the lease of cluster %s; it accepts no new holders for up to %.0f s: %s",
                name,
                CLOSING_SECONDS,
                error,
            )
