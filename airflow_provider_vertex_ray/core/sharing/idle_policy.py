"""Policy that decides which idle clusters are deleted. Pure; ``activity`` defines what counts as use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from airflow_provider_vertex_ray.core.checks import is_number
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.deadlines import duration
from airflow_provider_vertex_ray.core.sharing.activity import QUIET_SECONDS, Activity
from airflow_provider_vertex_ray.core.sharing.generations import SHARED_LABEL, generation_of, too_old


class Decision(str, Enum):
    """What happens to a cluster."""

    KEEP = "keep"
    """It is kept."""
    DELETE = "delete"
    """It is deleted now."""
    DRAIN = "drain"
    """It is deleted once it has been unused for a while."""


@dataclass(frozen=True)
class Policy:
    """Limits after which a cluster is deleted.

    :param idle_for: seconds without any use
    :param max_age: age in seconds above which a cluster is deleted after ``quiet_seconds``; None for no limit
    :param unreadable_for: seconds after which a cluster whose use could not be read all the time is deleted; None for
        never
    """

    idle_for: float
    max_age: float | None = None
    unreadable_for: float | None = None


LONGEST_GAP = 25 * 3600.0
"""Seconds between two runs of the reaper up to which a cluster counts as unreadable in between, if it was in both.

Longer ones are allowed up to ``unreadable_for``. Otherwise, two short problems could delete a cluster."""


@dataclass(frozen=True)
class Unreadable:
    """How long the use of a cluster could not be read; each run of the reaper passes it to the next one.

    :param since: Unix time at which it could not be read for the first time since it could
    :param seen: Unix time at which it could not be read for the last time
    """

    since: float
    seen: float

    @classmethod
    def after(cls, before: Unreadable | None, now: float, unreadable_for: float | None) -> Unreadable:
        """Return the state of a cluster that cannot be read now.

        :param before: the state in the previous run; None if it could be read
        :param now: Unix time
        :param unreadable_for: see ``Policy``
        """
        if before is None or not before.since <= before.seen <= now:
            return cls(now, now)
        continuous = now - before.seen <= max(unreadable_for or 0.0, LONGEST_GAP)
        return cls(before.since if continuous else now, now)

    def to_json(self) -> list[float]:
        """Return the state as JSON."""
        return [self.since, self.seen]

    @classmethod
    def of(cls, value: object) -> Unreadable | None:
        """Return the state that ``to_json`` wrote; None for any other value."""
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(is_number(each) for each in value):
            return None
        return cls(float(value[0]), float(value[1]))


@dataclass(frozen=True)
class Verdict:
    """The decision about a cluster and its reason.

    :param decision: the decision
    :param why: reason, for the log
    """

    decision: Decision
    why: str


def superseded_among(clusters: Iterable[Cluster]) -> set[str]:
    """Return the full names of the generations that are superseded by a newer, usable generation."""
    newest: dict[str, int] = {}
    every = list(clusters)
    for cluster in every:
        number = generation_of(cluster)
        if number is not None and cluster.state in (ClusterState.RUNNING, ClusterState.UPDATING):
            name = cluster.labels[SHARED_LABEL]
            newest[name] = max(number, newest.get(name, 0))
    return {
        cluster.name
        for cluster in every
        if (number := generation_of(cluster)) is not None and number < newest.get(cluster.labels[SHARED_LABEL], 0)
    }


def quiet_seconds(cluster: Cluster, activity: Activity, policy: Policy) -> float:
    """Return the seconds without use after which a cluster is deleted that is too old or superseded.

    A run on it may be between two of its jobs; only on a shared cluster does a lease tell that there is none.

    :param cluster: the cluster
    :param activity: its activity
    :param policy: the limits
    """
    if SHARED_LABEL in cluster.labels and activity.lease_free:
        return 0.0
    return min(policy.idle_for, QUIET_SECONDS)


def verdict(
    cluster: Cluster,
    activity: Activity,
    policy: Policy,
    now: float,
    *,
    superseded: bool = False,
    unreadable: Unreadable | None = None,
) -> Verdict:
    """Decide what happens to a cluster.

    :param cluster: the cluster
    :param activity: its activity
    :param policy: the limits
    :param now: Unix time
    :param superseded: whether the cluster is superseded by a newer generation
    :param unreadable: how long the use of the cluster could not be read; None if it could
    """
    if cluster.state is ClusterState.STOPPING:
        return Verdict(Decision.KEEP, "it is already being deleted")
    reason = ""
    if superseded:
        reason = "it was superseded by a newer generation"
    elif too_old(cluster, policy.max_age, now):
        reason = f"it is older than {duration(policy.max_age or 0)}"
    if activity.busy:
        users = "; ".join(activity.reasons)
        if activity.unreadable and unreadable is not None and policy.unreadable_for is not None:
            unread = now - unreadable.since
            if unread >= policy.unreadable_for:
                return Verdict(Decision.DELETE, f"its use could not be read for {duration(unread)}: {users}")
        if reason:
            return Verdict(Decision.DRAIN, f"{reason}, but in use: {users}")
        return Verdict(Decision.KEEP, f"in use: {users}")
    if cluster.state is ClusterState.ERROR:
        return Verdict(Decision.DELETE, f"it is in ERROR: {cluster.error_message or 'no reason given'}")
    idle = activity.idle_seconds(now)
    if reason:
        quiet = quiet_seconds(cluster, activity, policy)
        if idle >= quiet:
            return Verdict(Decision.DELETE, reason)
        return Verdict(Decision.DRAIN, f"{reason}, but idle for only {duration(idle)} of {duration(quiet)}")
    if idle >= policy.idle_for:
        leaked = "" if SHARED_LABEL in cluster.labels else _creator(cluster)
        return Verdict(Decision.DELETE, f"idle for {duration(idle)}{leaked}")
    return Verdict(Decision.KEEP, f"idle for {duration(idle)} of {duration(policy.idle_for)}")


def _creator(cluster: Cluster) -> str:
    """Describe the DAG run that should have deleted a cluster that is not shared."""
    dag, run = cluster.labels.get("airflow-dag"), cluster.labels.get("airflow-run")
    return f"; DAG run {dag}/{run} created it but did not delete it" if dag and run else ""
