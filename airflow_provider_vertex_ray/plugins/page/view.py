"""The list of clusters. Pure: facts in, texts out; the template only arranges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.state import BILLED_STATES
from airflow_provider_vertex_ray.errors import ServiceUnavailableError, VertexRayError
from airflow_provider_vertex_ray.plugins.page.listing import fitting, owners, states
from airflow_provider_vertex_ray.plugins.page.query import ListQuery
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
    total: int
    reading: bool
    as_of: str
    problem: Problem | None
    more: int


@dataclass(frozen=True)
class Overview:
    """The whole list.

    :param figures: name, figure and remark of each figure above the list, of all clusters.
    :param query: the query that chose the clusters.
    :param shown: number of clusters that fit the query.
    :param total: number of all clusters.
    :param states: states to filter by.
    :param owners: DAGs to filter by.
    """

    figures: tuple[tuple[str, str, str], ...]
    sources: tuple[SourceView, ...]
    reading: bool
    query: ListQuery
    shown: int
    total: int
    states: tuple[str, ...]
    owners: tuple[str, ...]


def overview(
    found: Sequence[SourceFacts], now: float, may_read: MayRead, find_owner: FindOwner, query: ListQuery | None = None
) -> Overview:
    """Return the list for a user.

    :param query: which clusters to show, and in which order; None for all.
    """
    wanted = query or ListQuery()
    rows = [[cluster_row(each, now, may_read, find_owner) for each in facts.clusters] for facts in found]
    sources = tuple(_source(facts, of_source, now, wanted) for facts, of_source in zip(found, rows, strict=True))
    every = [row for of_source in rows for row in of_source]
    return Overview(
        figures=_figures(every),
        sources=sources,
        reading=any(facts.listed.reading for facts in found) or any(is_reading(row.facts) for row in every),
        query=wanted,
        shown=sum(len(source.rows) for source in sources),
        total=len(every),
        states=states(every),
        owners=owners(every),
    )


def _source(facts: SourceFacts, rows: Sequence[ClusterRow], now: float, query: ListQuery) -> SourceView:
    source, listed = facts.source, facts.listed
    title = f"{source.gcp_conn_id} · {source.location}"
    error = listed.error
    return SourceView(
        title=f"{title} · {source.project_id}" if source.project_id else title,
        key=source.key,
        rows=tuple(fitting(rows, query)),
        total=len(rows),
        reading=listed.reading and not listed.known,
        as_of=stale_note(listed, now),
        problem=Problem.of(f"Connection {source.gcp_conn_id}, region {source.location}", error) if error else None,
        more=len(listed.value or ()) - len(facts.clusters),
    )


def _figures(rows: Sequence[ClusterRow]) -> tuple[tuple[str, str, str], ...]:
    """Return name, figure and remark of each figure above the list."""
    billed = [row for row in rows if row.facts.cluster.state in BILLED_STATES]
    idle = [row for row in rows if row.idle is not None]
    unread = sum(1 for row in billed if row.running is None)
    running, pending = sum(row.running or 0 for row in rows), sum(row.pending or 0 for row in rows)
    figures = [
        ("Clusters", str(len(rows)), f"{len(billed)} billed now"),
        ("Nodes", str(sum(int(row.nodes) for row in billed)), "including heads"),
        ("Jobs running", str(running), f"{pending} pending" + (f", {unread} clusters unknown" if unread else "")),
        ("Idle", str(len(idle)), "unused clusters"),
    ]
    sums, unknown = _hourly(billed)
    if sums:
        wasted, _ = _hourly(idle)
        if wasted:
            figures[-1] = ("Idle", str(len(idle)), f"unused clusters, {_amounts(wasted)} per hour")
        remark = f"without {unknown} clusters of unknown price" if unknown else "list prices, excluding disks"
        figures.append(("Cost per hour", _amounts(sums), remark))
    return tuple(figures)


def _hourly(rows: Sequence[ClusterRow]) -> tuple[dict[str, float], int]:
    """Return the cost of clusters per hour by currency, and the number of those whose cost is unknown."""
    sums: dict[str, float] = {}
    unknown = 0
    for row in rows:
        prices, hourly = row.facts.prices.value, hourly_cost(row.facts)
        if prices is None or hourly is None:
            unknown += 1
        else:
            sums[prices.currency] = sums.get(prices.currency, 0.0) + hourly
    return sums, unknown


def _amounts(sums: dict[str, float]) -> str:
    return " + ".join(money(amount, currency) for currency, amount in sorted(sums.items()))
