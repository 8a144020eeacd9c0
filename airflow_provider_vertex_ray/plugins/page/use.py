"""Whether a cluster is used, by whom, and what becomes of it, as the page says it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.state import BILLED_STATES, ClusterState
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.core.sharing.activity import Activity, activity_of
from airflow_provider_vertex_ray.core.sharing.idle_policy import Decision, verdict
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.plugins.page.reader import ClusterFacts
from airflow_provider_vertex_ray.plugins.page.text import shortened, span
from airflow_provider_vertex_ray.plugins.page.visible import MayRead, VisibleJob, visible_lease
from airflow_provider_vertex_ray.triggers.idle import has_labels

LONGEST_USE = 240
LONGEST_NAME = 72


@dataclass(frozen=True)
class Use:
    """Whether a cluster is used, and what becomes of it.

    :param head: In two words.
    :param tone: ``good``, ``warn``, ``bad`` or ``quiet``.
    :param detail: Who uses it, or when the reaper takes it.
    """

    head: str
    tone: str
    detail: str = ""


def activity_seen(facts: ClusterFacts, jobs: Sequence[VisibleJob], now: float, may_read: MayRead) -> Activity | None:
    """Its use by what was read, for the names that the user may see; None while nothing is known yet."""
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
    """What the page says of it.

    :param activity: What ``activity_seen`` gave.
    """
    cluster, source = facts.cluster, facts.source
    if cluster.state is ClusterState.STOPPING:
        return Use("being deleted", "quiet")
    if cluster.state is ClusterState.ERROR:
        return Use("failed", "bad", shortened(cluster.error_message or "The service gives no reason.", LONGEST_USE))
    if cluster.state is ClusterState.PROVISIONING:
        return Use("starting", "warn", "creation takes 10 to 20 minutes; it costs nothing until it is RUNNING")
    if activity is None:
        return Use("reading…", "quiet")
    reasons = _users(activity)
    if facts.jobs.error or facts.lease.error:
        # Unknown means busy: so does the reaper see it.
        return Use("taken for used", "warn", reasons)
    policy = source.policy
    idle = f"idle for {span(activity.idle_seconds(now))}"
    if policy is None or not has_labels(cluster, dict(source.label_filter)):
        if activity.busy:
            return Use("in use", "good", reasons)
        why = "no reaper is configured here" if policy is None else "the reaper leaves it alone: it has other labels"
        return Use(idle, "warn", why)
    said = verdict(cluster, activity, policy, now, superseded=facts.superseded)
    if activity.busy:
        before = "" if said.decision is Decision.KEEP else f"{said.why.split(', but in use: ')[0]}; "
        return Use("in use", "warn" if before else "good", f"{before}{reasons}")
    if said.decision is Decision.DELETE:
        return Use(idle, "bad", f"the reaper takes it at its next run: {shortened(said.why, LONGEST_USE)}")
    left = policy.idle_for - activity.idle_seconds(now)
    if policy.max_age is not None and cluster.created is not None:
        left = min(left, cluster.created + policy.max_age - now)
    return Use(idle, "warn", f"the reaper takes it in {span(left)}")


def _users(activity: Activity) -> str:
    """Who uses it, in few words: the first of each kind, and how many others there are."""
    said = []
    for reason in activity.reasons:
        first, *others = reason.split(", ")
        more = re.search(r" and (\d+) more$", reason)
        count = len(others) + (int(more[1]) if more else 0)
        name = shortened(first, LONGEST_NAME)
        said.append(f"{name} and {count} more" if count else name)
    return shortened("; ".join(said), LONGEST_USE)
