"""The usage of a cluster: whether it is in use, by whom, and when the reaper deletes it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.state import BILLED_STATES, ClusterState
from airflow_provider_vertex_ray.core.deadlines import span
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.core.sharing.activity import Activity, activity_of
from airflow_provider_vertex_ray.core.sharing.idle_policy import Decision, quiet_seconds, verdict
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.plugins.page.reader import ClusterFacts
from airflow_provider_vertex_ray.plugins.page.text import shortened
from airflow_provider_vertex_ray.plugins.page.visible import MayRead, VisibleJob, visible_lease
from airflow_provider_vertex_ray.triggers.idle import has_labels

LONGEST_USE = 240
LONGEST_NAME = 72


@dataclass(frozen=True)
class Use:
    """The usage of a cluster.

    :param head: the usage in a few words.
    :param tone: ``good``, ``warn``, ``bad`` or ``quiet``.
    :param detail: who uses the cluster, or when the reaper deletes it.
    """

    head: str
    tone: str
    detail: str = ""


def activity_seen(facts: ClusterFacts, jobs: Sequence[VisibleJob], now: float, may_read: MayRead) -> Activity | None:
    """Return a cluster's activity with the names that the user may see; None while nothing is known."""
    cluster, seen = facts.cluster, facts.jobs
    if cluster.state in BILLED_STATES and not seen.known and cluster.dashboard_uri:
        return None
    if facts.source.lease_uri is not None and not facts.lease.known:
        return None
    known: tuple[Job, ...] | str = tuple(each.job for each in jobs)
    if seen.error is not None:
        known = "its dashboard does not answer"
    lease: Lease | str | None = visible_lease(facts.lease.value, may_read)
    if facts.lease.error is not None:
        lease = facts.lease.error.message
    return activity_of(cluster, known, lease, now)


def use_of(facts: ClusterFacts, activity: Activity | None, now: float) -> Use:
    """Return the usage of a cluster.

    :param facts: the cluster.
    :param activity: its activity, as ``activity_seen`` returns it.
    :param now: Unix time.
    """
    cluster, source = facts.cluster, facts.source
    if cluster.state is ClusterState.STOPPING:
        return Use("being deleted", "quiet")
    if cluster.state is ClusterState.ERROR:
        return Use("failed", "bad", shortened(cluster.error_message or "Vertex AI gives no reason.", LONGEST_USE))
    if cluster.state is ClusterState.PROVISIONING:
        return Use("starting", "warn", "creation takes 10 to 20 minutes; the cluster is billed from RUNNING on")
    if activity is None:
        return Use("reading…", "quiet")
    reasons = _users(activity)
    if facts.jobs.error or facts.lease.error:
        # Unknown means busy, as for the reaper.
        return Use("treated as in use", "warn", reasons)
    policy = source.policy
    idle = f"idle for {span(activity.idle_seconds(now))}"
    if policy is None or not has_labels(cluster, dict(source.label_filter)):
        if activity.busy:
            return Use("in use", "good", reasons)
        why = "no reaper is configured here" if policy is None else "the reaper ignores it: its labels do not match"
        return Use(idle, "warn", why)
    decided = verdict(cluster, activity, policy, now, superseded=facts.superseded)
    if activity.busy:
        before = "" if decided.decision is Decision.KEEP else f"{decided.why.split(', but in use: ')[0]}; "
        return Use("in use", "warn" if before else "good", f"{before}{reasons}")
    if decided.decision is Decision.DELETE:
        return Use(idle, "bad", f"the reaper deletes it at its next run: {shortened(decided.why, LONGEST_USE)}")
    left = policy.idle_for - activity.idle_seconds(now)
    quiet = quiet_seconds(cluster, activity, policy) - activity.idle_seconds(now)
    if facts.superseded:
        left = min(left, quiet)
    # The age counts as for the reaper, from RUNNING on.
    since = cluster.started or cluster.created
    if policy.max_age is not None and since is not None:
        left = min(left, max(since + policy.max_age - now, quiet))
    return Use(idle, "warn", f"the reaper deletes it in {span(left)}")


def _users(activity: Activity) -> str:
    """Summarise who uses the cluster: the first of each kind, and the number of others."""
    users = []
    for reason in activity.reasons:
        first, *others = reason.split(", ")
        more = re.search(r" and (\d+) more$", reason)
        count = len(others) + (int(more[1]) if more else 0)
        name = shortened(first, LONGEST_NAME)
        users.append(f"{name} and {count} more" if count else name)
    return shortened("; ".join(users), LONGEST_USE)
