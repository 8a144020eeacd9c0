"""Waiting for jobs: their cluster, its lease, and whether it is gone with them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_vertex_ray.core.cluster.state import GONE_STATES
from airflow_provider_vertex_ray.core.polling import TRANSIENT_ERRORS
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    CredentialsError,
    InvalidRequestError,
    JobLostError,
    NotAuthorisedError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers.base import WaitTrigger

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.client import JobsApi
    from airflow_provider_vertex_ray.hooks.calls.job import JobCalls

KILL_SECONDS = 20.0
"""Seconds to wait for the jobs of a killed task to end; Airflow allows ``on_kill`` 30."""

UNREAD_ERRORS: tuple[type[VertexRayError], ...] = (*TRANSIENT_ERRORS, NotAuthorisedError, InvalidRequestError)
"""Errors of a request for the statuses of jobs that are waited out for ``lost_timeout``.

The task has reached the dashboard before it waits, so a refusal says nothing about the jobs: to give up at once would
leave them running, with nobody to wait for them."""


def waited_out(error: VertexRayError) -> bool:
    """Tell whether an error of a request for the statuses may be gone with a later request."""
    return isinstance(error, UNREAD_ERRORS) and not isinstance(error, CredentialsError)


class TaskLog(Protocol):
    """The log of a task, on each version of Airflow."""

    def info(self, message: str, /, *values: Any) -> Any:
        """Log what happens now."""

    def warning(self, message: str, /, *values: Any) -> Any:
        """Log what may have consequences."""

    def error(self, message: str, /, *values: Any) -> Any:
        """Log a failure."""


class JobWaitTrigger(WaitTrigger):
    """Base of the waits for one job or many on a cluster.

    :param cluster_name: full resource name of the cluster.
    :param dashboard_uri: the cluster's ``RAY_DASHBOARD_URI``, if it is known.
    :param arguments: see ``WaitTrigger``; the connection, ``lost_timeout`` and ``lease`` are among them.
    """

    def __init__(self, *, cluster_name: str, dashboard_uri: str | None, **arguments: Any) -> None:
        super().__init__(cluster_name=cluster_name, dashboard_uri=dashboard_uri, **arguments)
        self.cluster_name = cluster_name
        self._dashboard_uri = dashboard_uri

    @property
    def _connection(self) -> tuple[str, Any]:
        return self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"]

    @property
    def _hook(self) -> JobCalls:
        from airflow_provider_vertex_ray.hooks.calls.job import JobCalls

        return JobCalls(*self._connection)

    def _jobs(self) -> contextlib.AbstractAsyncContextManager[JobsApi]:
        return self._hook.jobs(self.cluster_name, self._dashboard_uri)

    @contextlib.asynccontextmanager
    async def _renewed_lease(self) -> AsyncIterator[None]:
        """Renew the run's lease on the cluster meanwhile, if it has one."""
        lease = self.arguments["lease"]
        if not lease:
            yield
            return
        from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
        from airflow_provider_vertex_ray.core.sharing.holding import heartbeat
        from airflow_provider_vertex_ray.core.sharing.lease import HolderId
        from airflow_provider_vertex_ray.hooks.calls.lease import LeaseCalls

        name = parse_cluster_name(lease["cluster"])
        who = HolderId(lease["owner"], lease["scope"])
        async with (
            LeaseCalls(*self._connection).store(lease["uri"]) as store,
            heartbeat(store, name, who, lease["ttl"]),
        ):
            yield

    async def _check_cluster(
        self,
        api: JobsApi,
        since: float,
        error: VertexRayError,
        subject: str,
        details: dict[str, Any],
        *,
        plural: bool = False,
    ) -> bool:
        """Raise if jobs that cannot be read are lost: at once if their cluster is, otherwise after ``lost_timeout``.

        :param api: Jobs API of the cluster, which moves to the dashboard's new address if it has one.
        :param since: Unix time since which the jobs cannot be read.
        :param error: why they cannot be read.
        :param subject: what cannot be read, for messages, such as ``Ray job af-1``.
        :param details: details of the error.
        :param plural: whether the subject is plural.
        :return: whether the cluster's dashboard has moved to another address, which is used from now on.
        :raises JobLostError: the jobs are lost.
        """
        from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

        details = {**details, "cluster": self.cluster_name}
        lost, its, it = ("are lost", "their", "they") if plural else ("is lost", "its", "it")
        try:
            cluster = await ClusterCalls(*self._connection).get_cluster(self.cluster_name)
        except ClusterNotFoundError:
            message = f"{subject} {lost}: {its} cluster {self.cluster_name} was deleted."
            raise JobLostError(message, details) from None
        except VertexRayError as unreadable:
            self.log.warning("Could not read the state of its cluster either: %s", unreadable.message)
        else:
            if cluster.state in GONE_STATES:
                why = f" ({cluster.error_message})" if cluster.error_message else ""
                raise JobLostError(f"{subject} {lost}: {its} cluster is {cluster.state.value}{why}.", details)
            if cluster.dashboard_uri and api.move_to(cluster.dashboard_uri):
                self._dashboard_uri = cluster.dashboard_uri
                self.log.info("The dashboard of cluster %s has a new address", cluster.cluster_id)
                return True
        waited = time.time() - since
        if waited > self.arguments["lost_timeout"]:
            # The remedy says which permission is missing, which that of the other error does not.
            last = str(error) if isinstance(error, NotAuthorisedError) else error.message
            raise JobLostError(
                f"{subject} {lost}: for {waited:.0f} s {it} could not be read. Last error: {last}", details
            )
        return False
