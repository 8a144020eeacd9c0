"""The list of clusters. Pure: facts in, texts out; the template only arranges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.state import BILLED_STATES
from airflow_provider_vertex_ray.errors import ServiceUnavailableError, VertexRayError
from airflow_provider_vertex_ray.plugins.page.reader import SourceFacts
from airflow_provider_vertex_ray.plugins.page.row import (
    ClusterRow,
    FindOwner,
    cluster_row,
    hourly_cost,
    is_reading,
    stale_note,
)
from airflow_provider_vertex_ray.plugins.page.text import money, shortened
from airflow_provider_vertex_ray.plugins.page.visible import MayRead


@dataclass(frozen=True)
class Problem:
    """An error, and what to do about it."""

    what: str
    kind: str
    message: str
    remedy: str

    @classmethod
    def of(cls, what: str, error: VertexRayError) -> Problem:
        """Return an error as a problem.

        :param what: what could not be read.
        :param error: why.
        """
        # The errors' own remedies address tasks.
        remedy = "The page retries automatically." if isinstance(error, ServiceUnavailableError) else error.remedy
        return cls(what, type(error).__name__, shortened(error.message, 400), remedy)


@dataclass(frozen=True)
class SourceView:
    """The clusters of one connection and region."""

    title: str
    key: str
    rows: tuple[ClusterRow, ...]
    reading: bool
    as_of: str
    problem: Problem | None
    more: int


@dataclass(frozen=True)
class Overview:
    """The whole list."""

    figures: tuple[tuple[str, str, str], ...]
    sources: tuple[SourceView, ...]
    reading: bool


def overview(found: Sequence[SourceFacts], now: float, may_read: MayRead, find_owner: FindOwner) -> Overview:
    """Return the list for a user."""
    sources = tuple(_source(facts, now, may_read, find_owner) for facts in found)
    rows = [row for source in sources for row in source.rows]
    reading = any(facts.listed.reading for facts in found) or any(is_reading(row.facts) for row in rows)
    return Overview(_figures(rows), sources, reading)


def _source(facts: SourceFacts, now: float, may_read: MayRead, find_owner: FindOwner) -> SourceView:
    source, listed = facts.source, facts.listed
    rows = [cluster_row(each, now, may_read, find_owner) for each in facts.clusters]
    title = f"{source.gcp_conn_id} · {source.location}"
    error = listed.error
    return SourceView(
        title=f"{title} · {source.project_id}" if source.project_id else title,
        key=source.key,
        rows=tuple(sorted(rows, key=_order)),
        reading=listed.reading and not listed.known,
        as_of=stale_note(listed, now),
        problem=Problem.of(f"Connection {source.gcp_conn_id}, region {source.location}", error) if error else None,
        more=len(listed.value or ()) - len(facts.clusters),
    )


def _order(row: ClusterRow) -> tuple[int, str]:
    states = ("RUNNING", "UPDATING", "PROVISIONING", "REBOOTING", "ERROR")
    return states.index(row.state) if row.state in states else len(states), row.cluster_id


def _figures(rows: Sequence[ClusterRow]) -> tuple[tuple[str, str, str], ...]:
    """Return name, figure and remark of each figure above the list."""
    billed = [row for row in rows if row.facts.cluster.state in BILLED_STATES]
    idle = sum(1 for row in rows if row.activity is not None and not row.activity.busy and row in billed)
    unread = sum(1 for row in billed if row.running is None)
    running, pending = sum(row.running or 0 for row in rows), sum(row.pending or 0 for row in rows)
    figures = [
        ("Clusters", str(len(rows)), f"{len(billed)} billed now"),
        ("Nodes", str(sum(int(row.nodes) for row in billed)), "including heads"),
        ("Jobs running", str(running), f"{pending} pending" + (f", {unread} clusters unknown" if unread else "")),
        ("Idle", str(idle), "unused clusters"),
    ]
    sums: dict[str, float] = {}
    unknown = 0
    for row in billed:
        prices, hourly = row.facts.prices.value, hourly_cost(row.facts)
        if prices is None or hourly is None:
            unknown += 1
        else:
            sums[prices.currency] = sums.get(prices.currency, 0.0) + hourly
    if sums:
        text = " + ".join(money(amount, currency) for currency, amount in sorted(sums.items()))
        remark = f"without {unknown} clusters of unknown price" if unknown else "list prices, excluding disks"
        figures.append(("Cost per hour", text, remark))
    return tuple(figures)
