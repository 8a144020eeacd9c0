"""Deleting a cluster that nobody uses, so that no new job comes between the look and the deletion."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName, parse_cluster_name
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
"""Seconds for which a cluster takes no new holders while it is looked at for the last time and deleted."""

Judge = Callable[[Cluster, Activity], str | None]
"""Says why a cluster is to be deleted; None: it is to be kept."""


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    :param deleted: Whether the service has taken the deletion.
    :param why: The reason for that.
    :param activity: The use that was read last.
    """

    deleted: bool
    why: str
    activity: Activity


@dataclass
class GuardedDelete:
    """Deletes clusters, each only if a judge says so twice: before and after its lease is closed to new holders.

    :param transport: The connection.
    :param store: Where leases are kept. None: what arrives between the second look and the deletion is not seen.
    :param by: Who deletes, for those who are refused meanwhile.
    """

    transport: Transport
    store: LeaseStore | None
    by: str

    async def delete_if_unused(self, cluster: Cluster, judge: Judge) -> Outcome:
        """Delete a cluster if it is to be deleted.

        :raises VertexRayError: The service refuses the deletion for another reason than the cluster's state.
        """
        activity = await read_activity(self.transport, cluster, self.store, time.time())
        why = judge(cluster, activity)
        if why is None:
            return Outcome(False, "", activity)
        name = parse_cluster_name(cluster.name)
        try:
            await self._close(name, why)
        except (LeaseHeldError, ClusterClosingError) as error:
            return Outcome(False, error.message, activity)
        except VertexRayError as error:
            return Outcome(False, f"its lease can not be taken: {error.message}", activity)
        deleted = False
        try:
            clusters = ClustersApi(self.transport)
            cluster = await clusters.get(name)
            activity = await read_activity(self.transport, cluster, self.store, time.time())
            why_now = judge(cluster, activity)
            if why_now is None:
                return Outcome(False, "it came into use at the last moment", activity)
            await clusters.delete(name)
            deleted = True
            log.info("Deleting cluster %s: %s", cluster.cluster_id, why_now)
            return Outcome(True, why_now, activity)
        except ClusterNotFoundError:
            deleted = True
            return Outcome(True, "somebody else has deleted it", activity)
        except PreconditionError as error:
            return Outcome(False, f"the service does not delete it now: {error.message}", activity)
        finally:
            await self._done(name, deleted)

    async def _close(self, name: ClusterName, why: str) -> None:
        if self.store is not None:
            await self.store.change(name, lambda lease: lease.close(self.by, why, time.time(), CLOSING_SECONDS))

    async def _done(self, name: ClusterName, deleted: bool) -> None:
        if self.store is None:
            return
        try:
            if deleted:
                await self.store.forget(name)
            else:
                await self.store.change(name, lambda lease: lease.reopen(self.by))
        except VertexRayError as error:
            # It opens by itself after CLOSING_SECONDS.
            log.warning("The lease of %s could not be put in order: %s", name.full, error)
