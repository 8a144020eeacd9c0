"""One cluster as a row of the list. Pure: facts in, texts out; the template only arranges them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_vertex_ray.core.cluster.state import BILLED_STATES, Cluster, ClusterState
from airflow_provider_vertex_ray.core.cost.pricing import HOUR, cost_so_far, nodes_of
from airflow_provider_vertex_ray.core.deadlines import span
from airflow_provider_vertex_ray.core.job.state import JobStatus
from airflow_provider_vertex_ray.core.sharing.activity import Activity
from airflow_provider_vertex_ray.core.sharing.generations import SHARED_LABEL, generation_of
from airflow_provider_vertex_ray.links.cluster import VertexRayClusterLink, VertexRayDashboardLink, VertexRayLogsLink
from airflow_provider_vertex_ray.links.monitoring import VertexRayMetricsLink
from airflow_provider_vertex_ray.plugins.page.cache import Cached
from airflow_provider_vertex_ray.plugins.page.owners import Labels, Owner
from airflow_provider_vertex_ray.plugins.page.query import NO_DAG
from airflow_provider_vertex_ray.plugins.page.reader import ClusterFacts
from airflow_provider_vertex_ray.plugins.page.text import ago, money, number
from airflow_provider_vertex_ray.plugins.page.use import Use, activity_seen, use_of
from airflow_provider_vertex_ray.plugins.page.visible import MayRead, VisibleJob, visible_jobs, visible_lease

STALE = 45.0
"""Seconds after which the page shows the age of a figure."""

TONES = {
    ClusterState.RUNNING: "good",
    ClusterState.ERROR: "bad",
    ClusterState.STOPPING: "quiet",
    ClusterState.UNKNOWN: "quiet",
}

FindOwner = Callable[[Cluster], Owner | None]


@dataclass(frozen=True)
class Meter:
    """The usage of a resource.

    :param name: name of the resource.
    :param text: used and total amount.
    :param percent: used share; None if unknown.
    """

    name: str
    text: str
    percent: float | None


@dataclass(frozen=True)
class IdleCost:
    """What a cluster that is billed has cost since it was last used, at its current size.

    :param seconds: seconds since then.
    :param node_hours: node-hours since then.
    :param amount: the cost; None if unknown.
    :param text: the cost with its currency, or the node-hours.
    """

    seconds: float
    node_hours: float
    amount: float | None
    text: str


@dataclass(frozen=True)
class ClusterRow:
    """A cluster's row.

    :param dag: the DAG that created the cluster; ``NO_DAG`` for no task, empty if the user may not see it.
    :param idle: the cost of an idle cluster; None for clusters in use, not billed or not known.
    :param spent: the cost so far; None if unknown.
    """

    facts: ClusterFacts
    path: str
    cluster_id: str
    state: str
    tone: str
    shared: str
    age: str
    nodes: str
    scaling: str
    meters: tuple[Meter, ...]
    running: int | None
    pending: int | None
    use: Use
    holders: tuple[str, ...]
    node_hours: str
    cost: str
    hourly: str
    owner: Owner | None
    owner_text: str
    links: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    jobs: tuple[VisibleJob, ...] = ()
    activity: Activity | None = None
    dag: str = ""
    idle: IdleCost | None = None
    spent: float | None = None


def is_reading(facts: ClusterFacts) -> bool:
    """Check whether some of a cluster's facts are being read now."""
    return any(seen.reading for seen in (facts.jobs, facts.nodes, facts.lease, facts.prices))


def stale_note(seen: Cached[Any], now: float) -> str:
    """Return the age of a figure if it is stale; otherwise an empty text."""
    if seen.at is None or (seen.error is None and now - seen.at < STALE):
        return ""
    return f"as of {ago(seen.at, now)}"


def cluster_row(facts: ClusterFacts, now: float, may_read: MayRead, find_owner: FindOwner) -> ClusterRow:
    """Return the row of a cluster for a user."""
    cluster = facts.cluster
    owner = find_owner(cluster)
    labels = Labels.of(cluster)
    dag_id = owner.dag_id if owner else labels.dag if labels else None
    hidden = dag_id is not None and not may_read(dag_id)
    owner_text = "a DAG that you may not read" if hidden else ""
    if owner is None and labels is not None and not hidden:
        owner_text = f"DAG {labels.dag}, run {labels.run}"
    jobs = visible_jobs(facts.jobs.value or (), may_read)
    activity = activity_seen(facts, jobs, now, may_read)
    prices = facts.prices.value
    cost = cost_so_far(cluster, now, prices)
    hourly = hourly_cost(facts)
    submitted = [each.job.status for each in jobs if not each.job.is_driver]
    counted = facts.jobs.at is not None
    lease = visible_lease(facts.lease.value, may_read)
    return ClusterRow(
        facts=facts,
        path=f"{facts.source.key}/{cluster.cluster_id}",
        cluster_id=cluster.cluster_id,
        state=cluster.state.value,
        tone=TONES.get(cluster.state, "warn"),
        shared=_shared(facts),
        age=span(None if cluster.created is None else now - cluster.created),
        nodes=f"{sum(nodes_of(cluster).values())}",
        scaling=_scaling(cluster),
        meters=_meters(facts),
        running=submitted.count(JobStatus.RUNNING) if counted else None,
        pending=submitted.count(JobStatus.PENDING) if counted else None,
        use=use_of(facts, activity, now),
        holders=tuple(sorted(holder.owner for holder in lease.live(now))) if lease else (),
        node_hours=f"{number(cost['total_node_hours'])} node-hours",
        cost=money(cost["cost"], cost["currency"]),
        hourly=f"{money(hourly, prices.currency)}/h" if prices and hourly is not None else "",
        owner=None if hidden else owner,
        owner_text=owner_text,
        links=outside_links(cluster),
        notes=_notes(facts, cost["unpriced"], now),
        jobs=tuple(jobs),
        activity=activity,
        dag="" if hidden else owner.dag_id if owner else labels.dag if labels else NO_DAG,
        idle=_idle(facts, activity, hourly, now),
        spent=cost["cost"],
    )


def outside_links(cluster: Cluster, submission_id: str | None = None) -> tuple[tuple[str, str], ...]:
    """Return names and addresses of the pages about a cluster, or one of its jobs, elsewhere."""
    facts = {"project_id": cluster.project, "location": cluster.location, "cluster_id": cluster.cluster_id}
    if submission_id:
        facts["submission_id"] = submission_id
    if cluster.dashboard_uri and cluster.state in BILLED_STATES:
        facts["dashboard_uri"] = cluster.dashboard_uri
    links = {
        "Console": VertexRayClusterLink(),
        "Dashboard": VertexRayDashboardLink(),
        "Logs": VertexRayLogsLink(),
        "Metrics": VertexRayMetricsLink(),
    }
    found = ((name, link.address(facts)) for name, link in links.items())
    return tuple((name, address) for name, address in found if address)


def _idle(facts: ClusterFacts, activity: Activity | None, hourly: float | None, now: float) -> IdleCost | None:
    cluster, prices = facts.cluster, facts.prices.value
    unread = facts.jobs.error or facts.lease.error
    if cluster.state not in BILLED_STATES or activity is None or activity.busy or unread:
        return None
    seconds = activity.idle_seconds(now)
    node_hours = sum(nodes_of(cluster).values()) * seconds / HOUR
    amount = None if hourly is None else hourly * seconds / HOUR
    text = money(amount, prices.currency) if prices and amount is not None else f"{number(node_hours)} node-hours"
    return IdleCost(seconds, node_hours, amount, text)


def hourly_cost(facts: ClusterFacts) -> float | None:
    """Return the cost of a cluster per hour at its current size; None if unknown."""
    cluster, prices = facts.cluster, facts.prices.value
    if prices is None:
        return None
    if cluster.state not in BILLED_STATES:
        return 0.0
    total = 0.0
    for kind, count in nodes_of(cluster).items():
        price = prices.price(kind, cluster.location).hourly
        if price is None:
            return None
        total += count * price
    return total


def _shared(facts: ClusterFacts) -> str:
    number_of = generation_of(facts.cluster)
    if number_of is None:
        return ""
    text = f"{facts.cluster.labels[SHARED_LABEL]}, generation {number_of}"
    return f"{text}, superseded" if facts.superseded else text


def _scaling(cluster: Cluster) -> str:
    bounds = [pool.autoscaling for pool in cluster.pools if pool.autoscaling]
    if not bounds:
        return ""
    fixed = sum(pool.replicas for pool in cluster.pools if not pool.autoscaling)
    return f"scales {fixed + sum(low for low, _ in bounds)} to {fixed + sum(high for _, high in bounds)}"


def _meters(facts: ClusterFacts) -> tuple[Meter, ...]:
    nodes = facts.nodes.value
    if nodes is None:
        return ()
    found = []
    for name in ("CPU", "GPU"):
        used, total = nodes.usage.get(name, (None, 0.0))
        if total:
            percent = None if used is None else min(100.0, 100 * used / total)
            found.append(Meter(name, f"{number(used)} / {number(total)}", percent))
    return tuple(found)


def _notes(facts: ClusterFacts, unpriced: Sequence[str], now: float) -> tuple[str, ...]:
    found = []
    if facts.jobs.error or facts.nodes.error:
        stale = stale_note(facts.jobs, now)
        found.append("The dashboard does not answer" + (f"; jobs {stale}" if stale else ""))
    elif stale := stale_note(facts.jobs, now):
        found.append(f"jobs {stale}")
    if facts.lease.error:
        found.append("The lease cannot be read")
    if facts.prices.error:
        found.append("The prices cannot be read")
    if unpriced:
        found.append(f"no price for {', '.join(unpriced)}")
    return tuple(found)
