"""Reading what tells whether a cluster is in use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState, unix_time
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import VertexRayError


async def read_activity(transport: Transport, cluster: Cluster, store: LeaseStore | None, now: float) -> Activity:
    """Ask the cluster for its jobs, and the store for its lease; what can not be read counts as use.

    :param store: Where leases are kept; None: activity on the cluster alone decides.
    :param now: Unix time.
    """
    jobs = await _jobs(transport, cluster)
    lease: Lease | str | None = None
    if store is not None:
        try:
            lease, _ = await store.read(parse_cluster_name(cluster.name))
        except VertexRayError as error:
            lease = error.message
    return activity_of(cluster, jobs, lease, now)


async def _jobs(transport: Transport, cluster: Cluster) -> Sequence[Job] | str:
    if cluster.state is ClusterState.ERROR:
        return ()
    if not cluster.dashboard_uri:
        return "it has no dashboard"
    try:
        api = JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri))
        return await api.list_all(drivers=True)
    except VertexRayError as error:
        return error.message
    except (ValueError, TypeError, AttributeError) as error:
        # An answer that was cut, or is of somebody else.
        return f"its answer makes no sense: {error!r}"


SHOWN = 5
"""So many of each kind of user are named; the others are counted."""


@dataclass(frozen=True)
class Activity:
    """What is known of a cluster's use.

    :param reasons: Why it is in use, or has to be taken for it; empty: nobody uses it.
    :param idle_since: Unix time of the last end of any use; None while it is in use.
    """

    reasons: tuple[str, ...]
    idle_since: float | None = None

    @property
    def busy(self) -> bool:
        """Whether it is in use, or may be."""
        return bool(self.reasons)

    def idle_seconds(self, now: float) -> float:
        """For how long nobody has used it; 0 while somebody does."""
        return 0.0 if self.idle_since is None else max(0.0, now - self.idle_since)


def activity_of(cluster: Cluster, jobs: Sequence[Job] | str, lease: Lease | str | None, now: float) -> Activity:
    """Judge what was read.

    :param jobs: All jobs and drivers that the cluster knows; a text says why they could not be read.
    :param lease: Its lease; a text says why it could not be read, None that none is kept.
    :param now: Unix time.
    """
    reasons: list[str] = []
    ends = [cluster.created, unix_time(cluster.start_time)]
    if cluster.state is ClusterState.ERROR:
        # Nothing runs there any more; a holder of its lease may still look at it.
        jobs = ()
    elif cluster.state is not ClusterState.RUNNING:
        reasons.append(f"it is {cluster.state.value}")
    if isinstance(jobs, str):
        reasons.append(f"its jobs can not be read: {jobs}")
    else:
        active = [job for job in jobs if not job.status.is_terminal]
        reasons += _named("job", [job.submission_id for job in active if not job.is_driver])
        reasons += _named("Ray Client driver", [job.submission_id for job in active if job.is_driver])
        ends += [job.end_time / 1000 for job in jobs if job.end_time]
    if isinstance(lease, str):
        reasons.append(f"its lease can not be read: {lease}")
    elif lease is not None:
        reasons += _named("lease holder", [holder.owner for holder in lease.live(now)])
        ends.append(lease.used_until(now))
    if reasons:
        return Activity(tuple(reasons))
    known = [end for end in ends if end is not None]
    # Without any time nothing says that it was idle for long.
    return Activity((), max(known) if known else now)


def _named(kind: str, names: Iterable[str]) -> list[str]:
    every = sorted(names)
    if not every:
        return []
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return [f"{kind} {', '.join(every[:SHOWN])}{more}"]
