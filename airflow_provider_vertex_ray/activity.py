"""Whether a cluster is in use, and since when it is not. Pure.

What was read is passed in; what could not be read counts as use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.cluster_state import Cluster, ClusterState, unix_time
from airflow_provider_vertex_ray.job_state import Job
from airflow_provider_vertex_ray.lease import Lease

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
