"""Calls for a cluster's logs and metrics in Cloud Logging and Cloud Monitoring."""

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
from airflow_provider_vertex_ray.hooks.calls.base import BaseCalls

MOST_ENTRIES = 1000
"""Default limit for the number of log entries."""

LAST_LINES = 50
"""Default number of last output lines."""

LATE_SECONDS = 2.0
"""Seconds between two searches for lines that Cloud Logging may not have ingested yet."""


class MonitoringCalls(BaseCalls):
    """Read logs and metrics from asynchronous code.

    ``cluster_id`` is an id, or a full resource name (``projects/…/locations/…/persistentResources/…``). The cluster may
    be deleted: its logs and metrics remain for the project's retention period.
    """

    @contextlib.asynccontextmanager
    async def _at(self, cluster_id: str) -> AsyncIterator[tuple[Transport, str, str]]:
        """Yield the transport, and a cluster's project and id. Neither service needs the region."""
        async with self.session() as (transport, known):
            if "/" in cluster_id:
                name = parse_cluster_name(cluster_id)
                yield transport, name.project, name.cluster_id
            else:
                yield transport, validate_project(known), validate_cluster_id(cluster_id)

    async def logs(self, query: LogQuery, *, most: int = MOST_ENTRIES) -> LogEntries:
        """Return the first log entries that match a query.

        :param query: the query; its ``cluster_id`` may be a full resource name.
        :param most: maximum number of entries.
        :raises InvalidRequestError: Cloud Logging rejects the filter.
        :raises LogsNotAuthorisedError: the account may not read log entries.
        :raises InvalidArgumentError: neither the query nor the hook names a project.
        """
        async with self._at(query.cluster_id) as (transport, project, cluster):
            return await LogsApi(transport, project).entries(replace(query, cluster_id=cluster), most)

    async def log_pages(self, query: LogQuery) -> AsyncGenerator[LogEntries, None]:
        """Yield all log entries that match a query, page by page.

        :param query: the query; its ``cluster_id`` may be a full resource name.
        :raises InvalidRequestError: Cloud Logging rejects the filter.
        :raises LogsNotAuthorisedError: the account may not read log entries.
        :raises InvalidArgumentError: neither the query nor the hook names a project.
        """
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
        """Return the last lines of a job's output that Cloud Logging has, oldest first.

        :param cluster_id: id or full resource name.
        :param submission_id: submission id of the job.
        :param count: maximum number of lines.
        :param start: Unix time before which the job had not started, which speeds up the search; None if unknown.
        :param seconds: seconds for which to repeat the search while there are no lines, or not yet ``until``, because
            lines arrive late.
        :param until: a line that is known to be among them.
        :raises LogsNotAuthorisedError: the account may not read log entries.
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
        """Return the result of a PromQL query at one point in time.

        :param promql: the query.
        :param at: Unix time; None for now.
        :param project_id: project of the metrics; default: the hook's.
        :raises InvalidRequestError: Cloud Monitoring rejects the query.
        :raises MetricsNotAuthorisedError: the account may not read metrics.
        """
        async with self.session() as (transport, known):
            return await MetricsApi(transport, validate_project(project_id or known)).query(promql, at)

    async def query_range(
        self, promql: str, start: float, end: float, step: float, *, project_id: str | None = None
    ) -> list[Series]:
        """Return the results of a PromQL query over a time range.

        :param promql: the query.
        :param start: Unix time at which the range starts.
        :param end: Unix time at which the range ends.
        :param step: seconds between two values; a series has at most 11,000.
        :param project_id: project of the metrics; default: the hook's.
        :raises InvalidRequestError: Cloud Monitoring rejects the query.
        :raises MetricsNotAuthorisedError: the account may not read metrics.
        """
        async with self.session() as (transport, known):
            api = MetricsApi(transport, validate_project(project_id or known))
            return await api.query_range(promql, start, end, step)

    async def utilisation(
        self, cluster_id: str, metrics: Sequence[str] = tuple(METRICS), at: float | None = None
    ) -> dict[str, float | None]:
        """Return metrics of a cluster at one point in time.

        :param cluster_id: id or full resource name.
        :param metrics: names of metrics in ``metric_query.METRICS``; default: all.
        :param at: Unix time; None for now.
        :return: value by metric; None for an unknown value.
        :raises InvalidArgumentError: a metric does not exist.
        :raises MetricsNotAuthorisedError: the account may not read metrics.
        """
        async with self._at(cluster_id) as (transport, project, cluster):
            api = MetricsApi(transport, project)
            queries = [metric_query(name, cluster) for name in metrics]
            found = await asyncio.gather(*(api.query(promql, at) for promql in queries))
        return {
            name: series[0].points[-1][1] if series and series[0].points else None
            for name, series in zip(metrics, found, strict=True)
        }
