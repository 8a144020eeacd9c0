"""Node-hours and cost of a cluster. Pure.

A cluster is billed in RUNNING and UPDATING, by its actual number of nodes, whether or not jobs run
(https://cloud.google.com/vertex-ai/pricing#custom-trained_models). Disks are not included. The figures were never
compared with a real bill.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from airflow_provider_vertex_ray.core.cluster.state import BILLED_STATES, Cluster, ClusterState
from airflow_provider_vertex_ray.core.cost.price_table import NodeKind, PriceTable
from airflow_provider_vertex_ray.core.timestamps import parse_rfc3339
from airflow_provider_vertex_ray.errors import BudgetExceededError, InvalidArgumentError

HOUR = 3600.0
"""Seconds of an hour."""


@dataclass(frozen=True)
class Sample:
    """State and size of a cluster from one time until the next sample.

    :param time: Unix time
    :param state: state of the cluster
    :param nodes: number of nodes of each kind, including the head
    """

    time: float
    state: ClusterState
    nodes: Mapping[NodeKind, int]


@dataclass(frozen=True)
class Cost:
    """The cost of node-hours.

    :param amount: the cost; None if anything has no price
    :param currency: ISO 4217 code; None without prices
    :param unpriced: machine types and accelerators without a price
    """

    amount: float | None
    currency: str | None = None
    unpriced: tuple[str, ...] = ()


def node_hours(samples: Iterable[Sample], until: float) -> dict[NodeKind, float]:
    """Return the billed hours by kind of node.

    :param samples: samples of the cluster, in any order
    :param until: Unix time at which the last sample ends; later samples do not count
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
    """Return the cost of node-hours.

    :param hours: node-hours, by kind of node
    :param table: prices; None for no cost
    :param region: region of the nodes
    """
    if table is None:
        return Cost(None)
    prices = {kind: table.price(kind, region) for kind in hours}
    unpriced = sorted({name for price in prices.values() for name in price.missing})
    if unpriced:
        return Cost(None, table.currency, tuple(unpriced))
    return Cost(sum(each * (prices[kind].hourly or 0.0) for kind, each in hours.items()), table.currency)


def nodes_of(cluster: Cluster) -> dict[NodeKind, int]:
    """Return the current number of nodes by kind; an autoscaling pool counts with the nodes that it is using."""
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
    """Return the cost of a cluster since it was first RUNNING, as JSON.

    The service does not report past sizes of a cluster. Without samples, the estimate assumes that it always had its
    current size, and ``basis`` says so.

    :param cluster: the cluster
    :param now: Unix time
    :param table: prices; None for node-hours only
    :param samples: observed states and sizes of the cluster, if there are any
    :return: ``node_hours`` (by kind), ``total_node_hours``, ``cost``, ``currency``, ``unpriced``, ``since``, ``basis``
    """
    started = cluster.started
    known = list(samples)
    if not known and started is not None:
        # A cluster that is no longer billed was billed until its last change.
        ended = None if cluster.state in BILLED_STATES else parse_rfc3339(cluster.resource.get("updateTime")) or started
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
    """Validate that a cluster has not exceeded its budget.

    :param cluster: the cluster
    :param max_cost: limit in the currency of the table; None for no limit
    :param table: prices; required if there is a limit
    :param now: Unix time
    :raises BudgetExceededError: the cluster has cost more than ``max_cost``
    :raises InvalidArgumentError: the cost is unknown, because something has no price
    """
    if max_cost is None:
        return
    found = cost_so_far(cluster, now, table)
    if table is None or found["unpriced"]:
        rule = f"Set a price for {', '.join(found['unpriced']) or 'every node'}, which max_cost requires."
        raise InvalidArgumentError("price_table", table.to_json() if table else None, rule)
    if (found["cost"] or 0.0) > max_cost:
        raise BudgetExceededError(
            f"Cluster {cluster.cluster_id} has cost {found['cost']:.2f} {found['currency']} in "
            f"{found['total_node_hours']:.1f} node-hours, more than max_cost={max_cost:g}; it accepts no new work.",
            {"cluster": cluster.name, "max_cost": max_cost, **found},
        )
