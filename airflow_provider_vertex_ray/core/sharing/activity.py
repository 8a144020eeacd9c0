"""The activity of a cluster: whether it is in use, by its jobs, its Ray Client connections and its lease.

Unknown means busy: anything that cannot be read counts as use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.errors import InvalidArgumentError, VertexRayError

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.http.transport import Transport
    from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore

SHOWN = 5
"""Maximum number of users of one kind that are named; the others are counted."""

LONGEST_READ = 240.0
"""Seconds within which a dashboard must have listed its jobs."""

CLOCK_SECONDS = 3600.0
"""Seconds by which the clock of a cluster may be ahead."""


QUIET_SECONDS = 600.0
"""Seconds without use after which a cluster that is to go anyway is deleted if no lease tells that it is not needed.

A task may have attached to it a moment ago, or a run may be between two of its jobs."""


@dataclass(frozen=True)
class Activity:
    """The current use of a cluster.

    :param reasons: why the cluster is in use, or counts as in use; empty if it is idle
    :param idle_since: Unix time at which its last use ended; None while it is in use
    :param unreadable: whether it only counts as in use because its use could not be read
    :param lease_free: whether its lease was read, and nobody holds it
    :param only_jobs_unreadable: whether its jobs are all of this that could not be read
    """

    reasons: tuple[str, ...]
    idle_since: float | None = None
    unreadable: bool = False
    lease_free: bool = False
    only_jobs_unreadable: bool = False

    @property
    def busy(self) -> bool:
        """Tell whether the cluster is, or may be, in use."""
        return bool(self.reasons)

    def idle_seconds(self, now: float) -> float:
        """Return for how many seconds the cluster has been idle; 0 while it is in use."""
        return 0.0 if self.idle_since is None else max(0.0, now - self.idle_since)


async def read_activity(transport: Transport, cluster: Cluster, store: LeaseStore | None, now: float) -> Activity:
    """Read the jobs and the lease of a cluster, and determine its activity.

    :param transport: the connection
    :param cluster: the cluster
    :param store: the lease store; None if there are no leases, so only jobs and connections count
    :param now: Unix time
    """
    jobs = await _jobs(transport, cluster)
    lease: Lease | str | None = None
    if store is not None:
        try:
            lease = await store.read(cluster.resource_name)
        except VertexRayError as error:
            lease = error.message
    return activity_of(cluster, jobs, lease, now)


async def _jobs(transport: Transport, cluster: Cluster) -> Sequence[Job] | str:
    if cluster.state is ClusterState.ERROR:
        return ()
    if not cluster.dashboard_uri:
        return "it has no dashboard"
    # DAG files import the pure part of this module.
    from airflow_provider_vertex_ray.core.job.client import JobsApi

    try:
        api = JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri))
        return await within(LONGEST_READ, api.in_use())
    except (VertexRayError, InvalidArgumentError) as error:
        # An invalid argument is an address that may not receive a token.
        return error.message if isinstance(error, VertexRayError) else str(error)
    except asyncio.TimeoutError:
        return f"its dashboard did not answer within {LONGEST_READ:.0f} s"


def activity_of(cluster: Cluster, jobs: Sequence[Job] | str, lease: Lease | str | None, now: float) -> Activity:
    """Determine the activity of a cluster from its jobs and its lease.

    :param cluster: the cluster
    :param jobs: the active jobs and drivers of the cluster and those that ended last, or the reason why they could not
        be read
    :param lease: its lease, the reason why it could not be read, or None if there are no leases
    :param now: Unix time
    """
    reasons: list[str] = []
    unreadable: list[str] = []
    ends = [cluster.created, cluster.started]
    if cluster.state is ClusterState.ERROR:
        # Nothing runs there any longer, but a holder of its lease may still need it.
        jobs = ()
    elif cluster.state is not ClusterState.RUNNING:
        reasons.append(f"it is {cluster.state.value}")
    if isinstance(jobs, str):
        unreadable.append(f"its jobs cannot be read: {jobs}")
    else:
        active = [job for job in jobs if not job.status.is_terminal]
        reasons += _named("job", [job.submission_id for job in active if not job.is_driver])
        reasons += _named("Ray Client driver", [job.submission_id for job in active if job.is_driver])
        ended = [job.end_time / 1000 for job in jobs if job.end_time]
        if any(end > now + CLOCK_SECONDS for end in ended):
            unreadable.append("its jobs cannot be read: one ends in the future")
        ends += ended
    if isinstance(lease, str):
        unreadable.append(f"its lease cannot be read: {lease}")
    elif lease is not None:
        reasons += _named("lease holder", {holder.owner for holder in lease.live(now)})
        ends.append(lease.used_until(now))
    if reasons or unreadable:
        only_jobs = not reasons and isinstance(jobs, str) and not isinstance(lease, str)
        return Activity((*reasons, *unreadable), unreadable=not reasons, only_jobs_unreadable=only_jobs)
    known = [end for end in ends if end is not None]
    # Without any time, it is not known to have been idle for long.
    return Activity((), max(known) if known else now, lease_free=lease is not None)


def _named(kind: str, names: Iterable[str]) -> list[str]:
    every = sorted(names)
    if not every:
        return []
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return [f"{kind} {', '.join(every[:SHOWN])}{more}"]
