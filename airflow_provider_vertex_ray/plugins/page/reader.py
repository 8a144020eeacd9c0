"""Read clusters for the page with the package's own clients: cached, and bounded in number and time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.cost.catalog import catalog_prices
from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.core.monitoring.metric_query import metric_query
from airflow_provider_vertex_ray.core.monitoring.metrics import MetricsApi, Series
from airflow_provider_vertex_ray.core.sharing.idle_policy import superseded_among
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.plugins.page.cache import NEVER, Cache, Cached
from airflow_provider_vertex_ray.plugins.page.connections import Connections
from airflow_provider_vertex_ray.plugins.page.log import LogTail, read_log_tail, read_whole_log
from airflow_provider_vertex_ray.plugins.page.sources import MOST_SOURCES, Source

T = TypeVar("T")

MOST_CLUSTERS = 100
"""Maximum number of clusters shown for a source; running ones come first."""

MOST_JOBS = 2_000
"""Maximum number of jobs kept for a cluster: active ones first, then the newest. Ray returns all of its jobs."""

MOST_LOGS = 400
"""Maximum number of ends of jobs' outputs that are kept."""

DEADLINE = 12.0
"""Seconds for one read."""

FRESH = 10.0
"""Seconds for which clusters, jobs, nodes and leases are cached."""

METRICS_FRESH = 30.0
PRICES_FRESH = 3600.0
LOG_FRESH = 5.0
HOUR = 3600.0
METRIC_STEP = 60.0
METRICS = ("cpu", "memory", "gpu")
_WITH_DASHBOARD = (ClusterState.RUNNING, ClusterState.UPDATING)


@dataclass(frozen=True)
class Look:
    """How long to wait for a read, and which data to accept.

    :param until: monotonic time until which to wait.
    :param patient: whether to wait even if older data is known.
    :param since: monotonic time; data that was read before it does not count.
    """

    until: float
    patient: bool = False
    since: float = NEVER

    @property
    def left(self) -> float:
        """Seconds left until ``until``."""
        return max(0.0, self.until - time.monotonic())


@dataclass(frozen=True)
class Nodes:
    """A cluster's nodes, as Ray reports them.

    :param alive: number of nodes that are alive, including the head; None if unknown.
    :param usage: used and total amount by resource.
    :param ids: Ray node ids of the nodes that are alive, the head's first.
    """

    alive: int | None
    usage: Mapping[str, tuple[float | None, float]]
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterFacts:
    """A cluster with its jobs, nodes, lease and prices."""

    source: Source
    cluster: Cluster
    superseded: bool
    jobs: Cached[tuple[Job, ...]]
    nodes: Cached[Nodes]
    lease: Cached[Lease]
    prices: Cached[PriceTable]

    @property
    def users_known(self) -> bool:
        """Whether the jobs and the lease, if there is one, were read successfully."""
        asked: list[Cached[Any]] = [self.jobs] if self.cluster.state in _WITH_DASHBOARD else []
        if self.source.lease_uri is not None:
            asked.append(self.lease)
        return all(seen.at is not None and seen.error is None and not seen.reading for seen in asked)


@dataclass(frozen=True)
class SourceFacts:
    """A source with its clusters.

    :param source: the source.
    :param listed: the list of clusters, as it was read.
    :param clusters: the first ``MOST_CLUSTERS`` of them, with their facts.
    """

    source: Source
    listed: Cached[tuple[Cluster, ...]]
    clusters: tuple[ClusterFacts, ...]


class PageReader:
    """Read and cache clusters, for one event loop.

    The control plane, the dashboards, Google's other services and the jobs' outputs have separate queues, so that
    dashboards that hang delay nothing else.
    """

    def __init__(self) -> None:
        self.connections = Connections()
        self._lists = Cache(concurrency=8, most=100, deadline=DEADLINE)
        # A view of all sources uses the jobs, the nodes and the lease of each cluster.
        in_use = MOST_SOURCES * MOST_CLUSTERS * 2
        self._dashboards = Cache(concurrency=16, most=in_use, deadline=DEADLINE)
        self._cloud = Cache(concurrency=16, most=in_use, deadline=DEADLINE)
        # Fewer, because each may be large.
        self._logs = Cache(concurrency=16, most=MOST_LOGS, deadline=DEADLINE)

    async def overview(self, sources: Sequence[Source], seconds: float, *, patient: bool = False) -> list[SourceFacts]:
        """Return all sources, as far as they are known in time.

        :param sources: the sources.
        :param seconds: seconds to wait.
        :param patient: whether to wait even if older data is known.
        """
        look = Look(time.monotonic() + seconds, patient)
        return list(await asyncio.gather(*(self._source(source, look) for source in sources)))

    async def cluster(
        self, source: Source, cluster_id: str, seconds: float, *, patient: bool = False, anew: bool = False
    ) -> tuple[ClusterFacts | None, Cached[Any]]:
        """Return one cluster, and how its source's list was read.

        :param source: the source.
        :param cluster_id: id of the cluster.
        :param seconds: seconds to wait.
        :param patient: whether to wait even if older data is known.
        :param anew: whether to ignore data that was read before; what is not read in time is marked as ``reading``.
        :return: the cluster, or None if it is not in the list (yet); and the list.
        """
        began = time.monotonic()
        look = Look(began + seconds, patient)
        new = Look(look.until, True, began)
        listed = await self._listed(source, new if anew else look)
        found = _find(listed, cluster_id)
        if found is None and listed.error is None:
            # A cached list may be older than the cluster.
            listed = await self._listed(source, new)
            found = _find(listed, cluster_id)
        if found is None:
            return None, listed
        superseded = found.name in superseded_among(listed.value or ())
        return await self._facts(source, found, superseded, new if anew else look), listed

    async def metrics(self, source: Source, cluster: Cluster, seconds: float) -> dict[str, Cached[tuple[Series, ...]]]:
        """Return the utilisation of the last hour by metric."""

        def reading(name: str) -> Callable[[], Awaitable[tuple[Series, ...]]]:
            async def read() -> tuple[Series, ...]:
                opened = await self.connections.open(source)
                project = opened.project_of(source)
                # Whole steps, so that a curve does not jitter between two refreshes.
                end = time.time() // METRIC_STEP * METRIC_STEP
                api = MetricsApi(opened.transport, project)
                query = metric_query(name, cluster.cluster_id)
                return tuple(await api.query_range(query, end - HOUR, end, METRIC_STEP))

            return read

        seen = await asyncio.gather(
            *(
                self._cloud.get(("metric", cluster.name, name), reading(name), fresh=METRICS_FRESH, wait=seconds)
                for name in METRICS
            )
        )
        return dict(zip(METRICS, seen, strict=True))

    async def log(
        self, source: Source, cluster: Cluster, job: Job, seconds: float, *, patient: bool = False, find: str = ""
    ) -> Cached[LogTail]:
        """Return the end of a job's output, or the last of its lines that contain a text."""

        async def read() -> LogTail:
            opened = await self.connections.open(source)
            project = opened.project_of(source)
            return await read_log_tail(opened.transport, project, cluster, job, find)

        # The output of an ended job no longer changes.
        fresh = 300.0 if job.status.is_terminal else LOG_FRESH
        key = ("log", cluster.name, job.submission_id, job.status, find)
        return await self._logs.get(key, read, fresh=fresh, wait=seconds, patient=patient)

    async def whole_log(self, source: Source, cluster: Cluster, job: Job) -> LogTail:
        """Return a job's output for a download, which is not cached.

        :raises VertexRayError: it could not be read.
        """
        opened = await self.connections.open(source)
        return await read_whole_log(opened.transport, opened.project_of(source), cluster, job)

    async def close(self) -> None:
        """Cancel all reads, and close all connections."""
        for cache in (self._lists, self._dashboards, self._cloud, self._logs):
            await cache.close()
        await self.connections.close()

    def outdate(self, source: Source, cluster: Cluster) -> None:
        """Mark what is cached about a cluster as outdated, after an action."""
        self._lists.outdate(source)
        self._dashboards.outdate(("jobs", cluster.name), ("nodes", cluster.name))
        self._cloud.outdate(("lease", source, cluster.name))

    async def _source(self, source: Source, look: Look) -> SourceFacts:
        listed = await self._listed(source, look)
        every = listed.value or ()
        superseded = superseded_among(every)
        shown = sorted(every, key=lambda each: (each.state not in _WITH_DASHBOARD, each.cluster_id))[:MOST_CLUSTERS]
        facts = await asyncio.gather(*(self._facts(source, each, each.name in superseded, look) for each in shown))
        return SourceFacts(source, listed, tuple(facts))

    async def _listed(self, source: Source, look: Look) -> Cached[tuple[Cluster, ...]]:
        async def read() -> tuple[Cluster, ...]:
            opened = await self.connections.open(source)
            project = opened.project_of(source)
            found = await ClustersApi(opened.transport).list_all(project, source.location)
            return tuple(each for each in found if each.is_ray)

        return await _seen(self._lists, source, read, FRESH, look)

    async def _facts(self, source: Source, cluster: Cluster, superseded: bool, look: Look) -> ClusterFacts:
        jobs, nodes, lease, prices = await asyncio.gather(
            self._of_dashboard("jobs", source, cluster, _read_jobs, look),
            self._of_dashboard("nodes", source, cluster, _read_nodes, look),
            self._lease(source, cluster, look),
            self._prices(source, look),
        )
        return ClusterFacts(source, cluster, superseded, jobs, nodes, lease, prices)

    async def _of_dashboard(
        self,
        what: str,
        source: Source,
        cluster: Cluster,
        ask: Callable[[JobsApi], Awaitable[T]],
        look: Look,
    ) -> Cached[T]:
        if cluster.state not in _WITH_DASHBOARD or not cluster.dashboard_uri:
            return Cached()

        async def read() -> T:
            transport = (await self.connections.open(source)).transport
            return await ask(JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri or "")))

        return await _seen(self._dashboards, (what, cluster.name), read, FRESH, look)

    async def _lease(self, source: Source, cluster: Cluster, look: Look) -> Cached[Lease]:
        uri = source.lease_uri
        if uri is None:
            return Cached()

        async def read() -> Lease:
            transport = (await self.connections.open(source)).transport
            return await LeaseStore(transport, uri).read(cluster.resource_name)

        return await _seen(self._cloud, ("lease", source, cluster.name), read, FRESH, look)

    async def _prices(self, source: Source, look: Look) -> Cached[PriceTable]:
        given = source.price_table
        if given is None:
            return Cached()
        if isinstance(given, PriceTable):
            return Cached(given, time.time())

        async def read() -> PriceTable:
            from airflow_provider_vertex_ray.operators.price_tables import CATALOG, read_price_table

            if given == CATALOG:
                return await catalog_prices((await self.connections.open(source)).transport, source.location)
            # In a thread, because it reads a file or an Airflow Variable.
            return await asyncio.to_thread(read_price_table, given) or PriceTable("USD")

        return await _seen(self._cloud, ("prices", source, str(given)), read, PRICES_FRESH, Look(look.until))


def _find(listed: Cached[tuple[Cluster, ...]], cluster_id: str) -> Cluster | None:
    return next((each for each in listed.value or () if each.cluster_id == cluster_id), None)


async def _seen(cache: Cache, key: Hashable, read: Callable[[], Awaitable[T]], fresh: float, look: Look) -> Cached[T]:
    return await cache.get(key, read, fresh=fresh, wait=look.left, patient=look.patient, since=look.since)


async def _read_jobs(api: JobsApi) -> tuple[Job, ...]:
    # Active jobs are kept, however old they are.
    kept = await api.newest(MOST_JOBS)
    return tuple(sorted(kept, key=lambda job: -(job.start_time or 0)))


async def _read_nodes(api: JobsApi) -> Nodes:
    nodes, usage = await asyncio.gather(api.nodes(), api.usage())
    alive = [node for node in nodes if node.state == "ALIVE"]
    ids = sorted(alive, key=lambda node: not node.is_head_node)
    found: dict[str, tuple[float | None, float]] = {name: usage[name] for name in ("CPU", "GPU") if name in usage}
    for name in ("CPU", "GPU"):
        if name not in found:
            total = sum((node.resources_total or {}).get(name, 0.0) for node in alive)
            found[name] = (None, total)
    return Nodes(len(alive), found, tuple(node.node_id or "" for node in ids))
