"""Delete an unused cluster without racing against new jobs."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName, parse_cluster_name
from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing.activity import Activity, read_activity
from airflow_provider_vertex_ray.core.sharing.lease import Closing
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    ClusterNotFoundError,
    LeaseHeldError,
    LeaseStoreUnavailableError,
    PreconditionError,
    ServiceUnavailableError,
    VertexRayError,
)

log = logging.getLogger(__name__)

CLOSING_SECONDS = 180.0
"""Seconds for which a lease accepts no new holders during the last check and the deletion."""

DELETE_SECONDS = 60.0
"""Seconds within which a delete request must be answered, so that it does not arrive after the lease is open again."""

Judge = Callable[[Cluster, Activity], str | None]
"""Returns the reason to delete a cluster; None to keep it."""


def new_closing(by: str, reason: str, token: str = "") -> Closing:
    """Return a mark for ``LeaseStore.close``, which sets its times; without a token it belongs to this call only."""
    return Closing(by, reason, 0.0, 0.0, token or secrets.token_hex(8))


async def delete_soon(clusters: ClustersApi, name: ClusterName) -> str | None:
    """Request the deletion of a cluster whose lease has just been closed.

    :return: name of the long-running operation; None if the cluster does not exist
    :raises ServiceUnavailableError: there was no answer in time, so it is unknown whether the cluster is being deleted
    :raises VertexRayError: the service rejects the deletion
    """
    try:
        return await within(DELETE_SECONDS, clusters.delete(name))
    except asyncio.TimeoutError as error:
        raise ServiceUnavailableError(
            f"The request to delete cluster {name.cluster_id} was not answered within {DELETE_SECONDS:.0f} s."
        ) from error


async def delete_closed(transport: Transport, lease: dict[str, Any]) -> str | None:
    """Close the lease of a cluster again, and request its deletion right afterwards.

    :param transport: the connection
    :param lease: ``uri``, ``cluster`` (its full name as the service returns it), ``owner`` (the DAG run whose holds do
        not count) and ``token`` (of the closing)
    :return: name of the long-running operation; None if the cluster does not exist
    :raises LeaseHeldError: somebody has acquired the lease since it was closed first
    :raises ClusterClosingError: somebody else has closed the lease since
    :raises ServiceUnavailableError: Cloud Storage or the Vertex AI API did not answer in time
    :raises LeaseStoreError: the lease cannot be used
    :raises VertexRayError: the service rejects the deletion
    """
    name = parse_cluster_name(lease["cluster"])
    mark = new_closing(lease["owner"], "it is being deleted", lease["token"])
    try:
        await LeaseStore(transport, lease["uri"]).close(
            name, mark, CLOSING_SECONDS, ignoring=lease["owner"], unbroken=True
        )
    except LeaseStoreUnavailableError as error:
        raise ServiceUnavailableError(error.message, error.details) from error
    return await delete_soon(ClustersApi(transport), name)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a guarded deletion.

    :param deleted: whether the service accepted the deletion
    :param why: reason for the outcome; empty if the first check kept the cluster
    :param activity: the activity that was read last
    :param error: why the lease could not be closed, unless it is held or somebody else has closed it
    """

    deleted: bool
    why: str
    activity: Activity
    error: VertexRayError | None = None


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

    async def delete_if_unused(self, cluster: Cluster, judge: Judge, *, force: bool = False) -> Outcome:
        """Delete an unused cluster without racing against new jobs.

        :param cluster: the cluster
        :param judge: decides whether it is deleted
        :param force: whether it is deleted even if its lease is held
        :raises VertexRayError: the service rejects the deletion for another reason than the state of the cluster, or
            does not answer
        """
        activity = await read_activity(self.transport, cluster, self.store, time.time())
        why = judge(cluster, activity)
        name = cluster.resource_name
        if why is None:
            await self._tidy(name)
            return Outcome(False, "", activity)
        mark = new_closing(self.by, why)
        try:
            await self._close(name, mark, force)
        except (LeaseHeldError, ClusterClosingError) as error:
            return Outcome(False, error.message, activity)
        except VertexRayError as error:
            return Outcome(False, f"its lease cannot be closed: {error.message}", activity, error)
        gone = unknown = False
        try:
            clusters = ClustersApi(self.transport)
            cluster = await clusters.get(name)
            activity = await read_activity(self.transport, cluster, self.store, time.time())
            why_now = judge(cluster, activity)
            if why_now is None:
                return Outcome(False, "it came into use during the last check", activity)
            # To read the activity may have taken longer than the lease stays closed.
            await self._close(name, mark, force)
            # A request without an answer may still arrive; then the lease stays closed until the mark is void.
            unknown = True
            await delete_soon(clusters, name)
            gone = True
            log.info("Deleting cluster %s: %s", cluster.cluster_id, why_now)
            return Outcome(True, why_now, activity)
        except ClusterNotFoundError:
            gone = True
            return Outcome(True, "it was already deleted", activity)
        except (LeaseHeldError, ClusterClosingError) as error:
            return Outcome(False, error.message, activity)
        except PreconditionError as error:
            unknown = False
            return Outcome(False, f"Vertex AI rejected the deletion: {error.message}", activity)
        except ServiceUnavailableError:
            raise
        except VertexRayError:
            unknown = False
            raise
        finally:
            if gone or not unknown:
                await self._reopen(name, mark, gone)

    async def _close(self, name: ClusterName, mark: Closing, force: bool) -> None:
        if self.store is not None:
            await self.store.close(name, mark, CLOSING_SECONDS, force=force)

    async def _reopen(self, name: ClusterName, mark: Closing, gone: bool) -> None:
        if self.store is None:
            return
        try:
            if gone:
                await self.store.forget(name)
            else:
                await self.store.reopen(name, mark.token)
        except VertexRayError as error:
            log.warning(
                "Could not update the lease of cluster %s; it accepts no new holders for up to %.0f s: %s",
                name,
                CLOSING_SECONDS,
                error,
            )

    async def _tidy(self, name: ClusterName) -> None:
        if self.store is None:
            return
        try:
            await self.store.tidy(name)
        except VertexRayError as error:
            log.info("Could not remove old holds from the lease of cluster %s: %s", name, error)
