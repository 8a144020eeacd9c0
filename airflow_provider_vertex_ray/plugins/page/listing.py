"""Search, filter and sort the clusters of the list. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_vertex_ray.plugins.page.query import STATES, ListQuery
from airflow_provider_vertex_ray.plugins.page.row import ClusterRow, hourly_cost
from airflow_provider_vertex_ray.plugins.page.text import has_words

_STATE_ORDER = ("RUNNING", "UPDATING", "PROVISIONING", "REBOOTING", "ERROR")


def use_kind(row: ClusterRow) -> str:
    """Return ``idle``, ``used``, ``unknown``, or an empty text for a cluster that nobody could use now."""
    if row.idle is not None:
        return "idle"
    if row.use.head == "in use":
        return "used"
    return "unknown" if row.use.head in ("treated as in use", "reading…") else ""


def fitting(rows: Iterable[ClusterRow], query: ListQuery) -> list[ClusterRow]:
    """Return the clusters that a query asks for, in its order."""
    words = query.q.casefold().split()
    found = [
        row
        for row in rows
        if (not query.state or row.state == query.state)
        and (not query.use or use_kind(row) == query.use)
        and (not query.owner or row.dag == query.owner)
        and has_words(_searched(row), words)
    ]
    return sorted(found, key=_KEYS[query.sort])


def owners(rows: Iterable[ClusterRow]) -> tuple[str, ...]:
    """Return the DAGs to filter by, those that the user may read, in alphabetical order."""
    return tuple(sorted({row.dag for row in rows if row.dag}))


def states(rows: Iterable[ClusterRow]) -> tuple[str, ...]:
    """Return the states to filter by, in the order of a cluster's life."""
    there = {row.state for row in rows}
    return tuple(state for state in STATES if state in there)


def _searched(row: ClusterRow) -> str:
    """Return what is searched of a cluster: only what its row shows, because the rest may be hidden from the user."""
    owner = f"{row.owner.dag_id} {row.owner.run_id} {row.owner.task_id}" if row.owner else row.owner_text
    parts: Sequence[str] = (row.cluster_id, row.state, row.shared, owner, row.use.head, row.use.detail, *row.holders)
    return " ".join(parts).casefold()


def _by_state(row: ClusterRow) -> tuple[int, str]:
    place = _STATE_ORDER.index(row.state) if row.state in _STATE_ORDER else len(_STATE_ORDER)
    return place, row.cluster_id


def _by_idle_money(row: ClusterRow) -> Any:
    if row.idle is None:
        return (True, 0.0, 0.0, *_by_state(row))
    return (False, -(row.idle.amount or 0.0), -row.idle.node_hours, *_by_state(row))


def _amount(row: ClusterRow) -> float:
    return -(row.spent or 0.0)


_KEYS: Mapping[str, Callable[[ClusterRow], Any]] = {
    "idle": _by_idle_money,
    "name": lambda row: row.cluster_id,
    "state": _by_state,
    "jobs": lambda row: (-(row.running or 0), -(row.pending or 0), row.cluster_id),
    "nodes": lambda row: (-int(row.nodes), row.cluster_id),
    "age": lambda row: (row.facts.cluster.created or float("inf"), row.cluster_id),
    "cost": lambda row: (_amount(row), row.cluster_id),
    "hourly": lambda row: (-(hourly_cost(row.facts) or 0.0), row.cluster_id),
}
