"""Node-hours and cost of a cluster's life. Pure.

A cluster is billed in RUNNING and UPDATING, by its real number of nodes, whether or not jobs run
(https://cloud.google.com/vertex-ai/pricing#custom-trained_models). Disks are left out. No figure here was ever compared
with a real bill.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from airflow_provider_vertex_ray.core.cluster.state import BILLED_STATES, Cluster, ClusterState, unix_time
from airflow_provider_vertex_ray.core.cost.price_table import NodeKind, PriceTable
from airflow_provider_vertex_ray.errors import BudgetExceededError, InvalidArgumentError

HOUR = 3600.0


@dataclass(frozen=True)
class Sample:
    """What a cluster was from some moment on, until the next sample.

    :param time: Unix time.
    :param state: Its state.
    :param nodes: How many nodes of each kind, the head included.
    """

    time: float
    state: ClusterState
    nodes: Mapping[NodeKind, int]


@dataclass(frozen=True)
class Cost:
    """What node-hours cost.

    :param amount: None when something has no price.
    :param currency: ISO 4217 code; None without prices.
    :param unpriced: What has no price.
    """

    amount: float | None
    currency: str | None = None
    unpriced: tuple[str, ...] = ()


def node_hours(samples: Iterable[Sample], until: float) -> dict[NodeKind, float]:
    """Billed hours by kind of node.

    :param samples: In any order.
    :param until: Unix time at which the last one ends; what comes later does not count.
    """
    ordered = sorted(samples, key=lambda sample: sample.time)
    ends = [*(sample.time for sample in ordered[1:]), until]
    hours: defaultdict[NodeKind, float] = defaultdict(float)
    for sample, end in zip(ordered, ends, strict=False):
        lasted = max(0.0, min(end, until) - sample.time)
        if sample.state in BILLED_STATES and lasted:
            for kind, count in sample.nodes.items():
                hours[kind] += count * lasted / HOUR
    return {kind: each for kind, each in hours.items() if each}


def cost_of(hours: Mapping[NodeKind, float], table: PriceTable | None, region: str) -> Cost:
    """Node-hours as money."""
    if table is None:
        return Cost(None)
    prices = {kind: table.price(kind, region) for kind in hours}
    unpriced = sorted({name for price in prices.values() for name in price.missing})
    if unpriced:
        return Cost(None, table.currency, tuple(unpriced))
    return Cost(sum(each * (prices[kind].hourly or 0.0) for kind, each in hours.items()), table.currency)


def nodes_of(cluster: Cluster) -> dict[NodeKind, int]:
    """The nodes that a cluster has now; of an autoscaling pool those that it is using."""
    used = {str(pool.get("id")): pool.get("usedReplicaCount") for pool in cluster.resource.get("resourcePools") or []}
    nodes: defaultdict[NodeKind, int] = defaultdict(int)
    for pool in cluster.pools:
        kind = NodeKind(pool.machine_type, pool.accelerator_type or "", pool.accelerator_count)
        live = used.get(pool.pool_id) if pool.autoscaling else None
        nodes[kind] += int(live) if live is not None else pool.replicas
    return dict(nodes)


def cost_so_far(
    cluster: Cluster, now: float, table: PriceTable | None = None, samples: Sequence[Sample] = ()
) -> dict[str, Any]:
    """What a cluster has cost since it was RUNNING first, as JSON.

    The service does not tell what size a cluster had when. Without samples it is taken to have had its present size all
    the time, and ``basis`` says so.

    :param now: Unix time.
    :param table: Prices; None: node-hours only.
    :param samples: What was seen of it, where somebody has noted it.
    :return: ``node_hours`` (by kind), ``total_node_hours``, ``cost``, ``currency``, ``unpriced``, ``since``, ``basis``.
    """
    started = unix_time(cluster.start_time)
    known = list(samples)
    if not known and started is not None:
        # A cluster that is not billed any more was so until something changed last.
        ended = None if cluster.state in BILLED_STATES else unix_time(cluster.resource.get("updateTime")) or started
        known = [Sample(started, ClusterState.RUNNING, nodes_of(cluster))]
        if ended is not None:
            known.append(Sample(ended, cluster.state, {}))
    hours = node_hours(known, now)
    cost = cost_of(hours, table, cluster.location)
    since = min((sample.time for sample in known), default=None)
    return {
        "node_hours": {str(kind): round(each, 4) for kind, each in sorted(hours.items())},
        "total_node_hours": round(sum(hours.values()), 4),
        "cost": None if cost.amount is None else round(cost.amount, 4),
        "currency": cost.currency,
        "unpriced": list(cost.unpriced),
        "since": None if since is None else datetime.fromtimestamp(since, timezone.utc).isoformat(),
        "basis": "observed" if samples else "current size since start",
    }


def check_budget(cluster: Cluster, max_cost: float | None, table: PriceTable | None, now: float) -> None:
    """Refuse new work on a cluster that has cost too much.

    :param max_cost: In the table's currency; None: no limit.
    :raises BudgetExceededError: It has cost more.
    :raises InvalidArgumentError: Its cost can not be told, because something has no price.
    """
    if max_cost is None:
        return
    found = cost_so_far(cluster, now, table)
    if table is None or found["unpriced"]:
        rule = f"max_cost needs a price for {', '.join(found['unpriced']) or 'every node'}"
        raise InvalidArgumentError("price_table", table.to_json() if table else None, rule)
    if (found["cost"] or 0.0) > max_cost:
        raise BudgetExceededError(
            f"Cluster {cluster.cluster_id} has cost {found['cost']:.2f} {found['currency']} in "
            f"{found['total_node_hours']:.1f} node-hours, more than max_cost={max_cost:g}; it takes no new work.",
            {"cluster": cluster.name, "max_cost": max_cost, **found},
        )


@dataclass(frozen=True)
class Measured:
    """One job, as it was measured.

    :param run_seconds: From its submit to its end.
    :param start_seconds: That a cluster of its own needed until it could take the job.
    :param billed_start_seconds: The part of that in which the cluster is billed already: from RUNNING to a dashboard
        that answers. PROVISIONING costs nothing.
    """

    run_seconds: float
    start_seconds: float
    billed_start_seconds: float = 0.0


def amortised(
    jobs: Sequence[Measured], nodes: Mapping[NodeKind, int], shared_seconds: float, shared_start_seconds: float
) -> dict[str, dict[str, float]]:
    """What the same jobs take and cost on one shared cluster, and each on a cluster of its own.

    :param nodes: The nodes of each cluster.
    :param shared_seconds: For which the shared cluster was billed: from RUNNING to its deletion, idle time included.
    :param shared_start_seconds: That it needed until it could take the first job.
    :return: ``shared`` and ``ephemeral``, each with ``node_hours``, ``waiting_seconds`` (for clusters, all jobs
        together) and ``overhead`` (billed time for each second of work).
    """
    count = sum(nodes.values())
    work = sum(job.run_seconds for job in jobs)
    own = sum(job.billed_start_seconds + job.run_seconds for job in jobs)
    return {
        "shared": {
            "node_hours": count * shared_seconds / HOUR,
            "waiting_seconds": shared_start_seconds,
            "overhead": shared_seconds / work if work else 0.0,
        },
        "ephemeral": {
            "node_hours": count * own / HOUR,
            "waiting_seconds": sum(job.start_seconds for job in jobs),
            "overhead": own / work if work else 0.0,
        },
    }
