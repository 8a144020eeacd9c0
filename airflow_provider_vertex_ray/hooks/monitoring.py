"""A cluster's logs and metrics, through an Airflow connection: Cloud Logging and Cloud Monitoring."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace

from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name, validate_cluster_id, validate_project
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.core.monitoring.logs import LogEntries, LogsApi
from airflow_provider_vertex_ray.core.monitoring.metric_query import METRICS, metric_query
from airflow_provider_vertex_ray.core.monitoring.metrics import MetricsApi, Series
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRayBaseHook, run_sync

MOST_ENTRIES = 1000
LAST_LINES = 50
LATE_SECONDS = 2.0
"""Seconds between two looks for lines that may still be on their way to Cloud Logging."""


class VertexRayMonitoringAsyncHook(VertexRayBaseAsyncHook):
    """Logs and metrics, for an event loop.

    ``cluster_id`` is an id or a full ``projects/…/persistentResources/…`` name. The cluster may be gone: what it logged
    and measured stays for as long as the project keeps it.
    """

    @contextlib.asynccontextmanager
    async def _at(self, cluster_id: str) -> AsyncIterator[tuple[Transport, str, str]]:
        """The transport, the project of a cluster, and its id; neither service asks for the region."""
        async with self.session() as (transport, known):
            if "/" in cluster_id:
                name = parse_cluster_name(cluster_id)
                yield transport, name.project, name.cluster_id
            else:
                yield transport, validate_project(known), validate_cluster_id(cluster_id)

    async def logs(self, query: LogQuery, *, most: int = MOST_ENTRIES) -> LogEntries:
        """The first log entries that fit a query; ``query.cluster_id`` may be a full name.

        :param most: Entries at most.
        :raises InvalidRequestError: Cloud Logging refuses the filter.
        :raises LogsNotAuthorisedError: The account may not read entries.
        :raises InvalidArgumentError: No project is known.
        """
        async with self._at(query.cluster_id) as (transport, project, cluster):
            return await LogsApi(transport, project).entries(replace(query, cluster_id=cluster), most)

    async def log_pages(self, query: LogQuery) -> AsyncGenerator[LogEntries, None]:
        """All entries that fit, page by page; errors as ``logs`` has them."""
        async with self._at(query.cluster_id) as (transport, project, cluster):
            pages = LogsApi(transport, project).pages(replace(query, cluster_id=cluster))
            async with contextlib.aclosing(pages):
                async for page in pages:
                    yield page

    async def last_lines(
        self,
        cluster_id: str,
        submission_id: str,
        *,
        count: int = LAST_LINES,
        start: float | None = None,
        seconds: float = 0.0,
        until: str | None = None,
    ) -> list[str]:
        """The last lines of a job's output that have arrived in Cloud Logging, the oldest first.

        :param count: Lines at most.
        :param start: Unix time before which the job had not begun, which makes the search quicker; None: not known.
        :param seconds: For how long to look again while there are none, or not yet ``until``: lines arrive late.
        :param until: A line that is known to be among them.
        :raises LogsNotAuthorisedError: The account may not read entries.
        """
        query = LogQuery(cluster_id, submission_id=submission_id, start=start, newest_first=True)
        end = time.monotonic() + seconds
        async with self._at(cluster_id) as (transport, project, cluster):
            api = LogsApi(transport, project)
            while True:
                found = await api.entries(replace(query, cluster_id=cluster), count, attempts=2)
                lines = [entry.message for entry in reversed(found.entries)]
                there = until in lines if until else bool(lines)
                if there or time.monotonic() + LATE_SECONDS > end:
                    return lines
                await asyncio.sleep(LATE_SECONDS)

    async def query(self, promql: str, at: float | None = None, *, project_id: str | None = None) -> list[Series]:
        """A PromQL query's value at one time.

        :param at: Unix time; None for now.
        :param project_id: Project of the metrics; default: the hook's.
        :raises InvalidRequestError: The service refuses the query.
        :raises MetricsNotAuthorisedError: The account may not read metrics.
        """
        async with self.session() as (transport, known):
            return await MetricsApi(transport, validate_project(project_id or known)).query(promql, at)

    async def query_range(
        self, promql: str, start: float, end: float, step: float, *, project_id: str | None = None
    ) -> list[Series]:
        """A PromQL query's values from one time to another; errors as ``query`` has them.

        :param start: Unix time.
        :param end: Unix time.
        :param step: Seconds between two values; a series has 11,000 at most.
        :param project_id: Project of the metrics; default: the hook's.
        """
        async with self.session() as (transport, known):
            api = MetricsApi(transport, validate_project(project_id or known))
            return await api.query_range(promql, start, end, step)

    async def utilisation(
        self, cluster_id: str, metrics: Sequence[str] = tuple(METRICS), at: float | None = None
    ) -> dict[str, float | None]:
        """The named metrics of a cluster at one time; None for one that is not known.

        :param metrics: Names in ``metric_query.METRICS``.
        :param at: Unix time; None for now.
        :raises InvalidArgumentError: There is no metric of such a name.
        :raises MetricsNotAuthorisedError: The account may not read metrics.
        """
        async with self._at(cluster_id) as (transport, project, cluster):
            api = MetricsApi(transport, project)
            queries = [metric_query(name, cluster) for name in metrics]
            found = await asyncio.gather(*(api.query(promql, at) for promql in queries))
        return {
            name: series[0].points[-1][1] if series and series[0].points else None
            for name, series in zip(metrics, found, strict=True)
        }


class VertexRayMonitoringHook(VertexRayBaseHook):
    """Logs and metrics, from synchronous code: the calls of ``VertexRayMonitoringAsyncHook``, each waited for."""

    def _async(self) -> VertexRayMonitoringAsyncHook:
        return VertexRayMonitoringAsyncHook(
            self.gcp_conn_id, self.impersonation_chain, self.default_project_id, self.default_location
        )

    def logs(self, query: LogQuery, *, most: int = MOST_ENTRIES) -> LogEntries:
        """The first log entries that fit; see ``VertexRayMonitoringAsyncHook.logs``."""
        return run_sync(lambda: self._async().logs(query, most=most))

    def last_lines(
        self, cluster_id: str, submission_id: str, *, count: int = LAST_LINES, seconds: float = 0.0
    ) -> list[str]:
        """The last lines of a job's output; see ``VertexRayMonitoringAsyncHook.last_lines``."""
        return run_sync(lambda: self._async().last_lines(cluster_id, submission_id, count=count, seconds=seconds))

    def query(self, promql: str, at: float | None = None) -> list[Series]:
        """A PromQL query's value; see ``VertexRayMonitoringAsyncHook.query``."""
        return run_sync(lambda: self._async().query(promql, at))

    def query_range(self, promql: str, start: float, end: float, step: float) -> list[Series]:
        """A PromQL query's values over a time; see ``VertexRayMonitoringAsyncHook.query_range``."""
        return run_sync(lambda: self._async().query_range(promql, start, end, step))

    def utilisation(
        self, cluster_id: str, metrics: Sequence[str] = tuple(METRICS), at: float | None = None
    ) -> dict[str, float | None]:
        """The named metrics of a cluster; see ``VertexRayMonitoringAsyncHook.utilisation``."""
        return run_sync(lambda: self._async().utilisation(cluster_id, metrics, at))
