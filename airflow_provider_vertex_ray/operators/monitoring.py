"""Operators that show, summarise and export the logs and metrics of a cluster."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_vertex_ray.core.checks import check_duration, known_at_run_time, unless_empty
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.monitoring.metric_query import (
    METRICS,
    UNITS,
    check_metric,
    check_promql,
    metric_queries,
)
from airflow_provider_vertex_ray.core.monitoring.summary import summarised
from airflow_provider_vertex_ray.core.monitoring.time_window import span
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.arguments import check_mappings
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.monitoring_base import MonitoringOperator
from airflow_provider_vertex_ray.operators.monitoring_logs import VertexRayClusterLogsOperator
from airflow_provider_vertex_ray.operators.output_files import check_file_uri, write_file
from airflow_provider_vertex_ray.operators.plots import SUFFIXES, check_can_draw, draw

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = ["VertexRayClusterLogsOperator", "VertexRayClusterMetricsOperator"]

HOUR = 3_600.0
MOST_POINTS = 11_000
"""Maximum number of points of a series, a limit of Cloud Monitoring."""

POINTS = 240
"""Number of points of a series if no step is given."""


class VertexRayClusterMetricsOperator(MonitoringOperator):
    """Summarise the metrics of a cluster's nodes from Cloud Monitoring, even after the cluster is deleted.

    Returns ``cluster_id``, ``start``, ``end``, ``step`` (seconds), ``metrics`` (by name: ``query``, ``min``, ``avg``,
    ``max``, ``last``, ``count`` and the ``series`` with their points, downsampled to about 40 KiB) and ``plot_path``. A
    metric without data is not an error; its values are None.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param metrics: names of metrics: ``cpu``, ``memory``, ``gpu``, ``tasks``, ``actors``, ``nodes``.
    :param queries: custom PromQL queries, by their name in the result. (templated)
    :param start: start of the time range: an ISO 8601 time, a datetime, or unix seconds. (templated)
    :param end: end of the time range; default: now. (templated)
    :param window: length of the time range before ``end`` in seconds, instead of ``start``; default: one hour.
    :param step: seconds between two points; default: chosen to give 240 points. Cloud Monitoring returns at most 11,000
        points.
    :param plot_path: URI of a ``.png`` or ``.svg`` file to draw a plot to, in any storage that ``ObjectStoragePath``
        supports; requires the extra ``plots``. (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises MetricsNotAuthorisedError: the credentials lack the permission to read metrics.
    :raises InvalidRequestError: Cloud Monitoring rejected a query.
    :raises RateLimitedError: the quota for reading metrics is exhausted, even after retries.
    :raises ServiceUnavailableError: Cloud Monitoring did not answer, even after retries.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "queries",
        "start",
        "end",
        "plot_path",
        *VertexRayBaseOperator.connection_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"queries": "json"}
    operator_extra_links = CLUSTER_LINKS

    def __init__(
        self,
        *,
        metrics: Sequence[str] = ("cpu", "memory", "gpu", "tasks", "nodes"),
        queries: Mapping[str, str] | None = None,
        step: float | None = None,
        plot_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(metrics, str) or not isinstance(metrics, Sequence):
            raise InvalidArgumentError("metrics", metrics, f"Use a list of {', '.join(METRICS)}.")
        for metric in metrics:
            check_metric(metric, "metrics")
        check_mappings(queries=queries)
        for key, promql in queries.items() if isinstance(queries, Mapping) else ():
            if not known_at_run_time(promql):
                check_promql(promql, f"queries[{key!r}]")
        if not metrics and not queries:
            metric_queries((), {}, "any")
        check_duration("step", step)
        check_file_uri("plot_path", plot_path, SUFFIXES)
        self.metrics = list(metrics)
        self.queries = queries
        self.step = step
        self.plot_path = plot_path

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the metrics, summarise them, and draw the plot."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        name = self._name(str(self.cluster_id))
        plot_path = self.plot_path or None
        check_file_uri("plot_path", plot_path, SUFFIXES)
        check_can_draw("plot_path", plot_path)
        start, end = span(self.start, self.end, self.window, HOUR)
        step = self.step or max(1.0, float(round((end - start) / POINTS)))
        if (end - start) / step > MOST_POINTS:
            raise InvalidArgumentError(
                "step", step, f"Use a longer step: the time range would have more than {MOST_POINTS} points."
            )
        check_mappings(queries=unless_empty(self.queries))
        queries = metric_queries(self.metrics, self.queries or {}, name.cluster_id)
        found = run_sync(lambda: self._ask(context, name, queries, start, end, step))
        summary = summarised(found)
        for metric, figures in summary.items():
            values = " ".join(f"{key} {figures[key]:g}" for key in ("min", "avg", "max", "last") if figures["count"])
            self.log.info("%s: %s", metric, values or "no data; check that the cluster collects metrics")
        if plot_path:
            title = f"{name.cluster_id}, {_minute(start)} to {_minute(end)}"
            suffix = "." + plot_path.rsplit(".", 1)[1]
            picture = draw(title, found, (start, end), step, suffix, UNITS)
            write_file(plot_path, io.BytesIO(picture), self.gcp_conn_id)
            self.log.info("Wrote the plot to %s", plot_path)
        return {
            "cluster_id": name.cluster_id,
            "start": start,
            "end": end,
            "step": step,
            "metrics": {metric: {"query": queries[metric], **figures} for metric, figures in summary.items()},
            "plot_path": plot_path,
        }

    async def _ask(
        self, context: Context, name: ClusterName, queries: dict[str, str], start: float, end: float, step: float
    ) -> dict[str, Any]:
        hook = self.monitoring_hook
        async with hook.session():
            # One query per line, and no more than fit into a URL.
            shown = "\n".join(" ".join(query.split()) for query in list(queries.values())[:5])
            await self._keep_link_facts(context, name, promql=shown)
            answers = await asyncio.gather(
                *(hook.query_range(query, start, end, step, project_id=name.project) for query in queries.values())
            )
        return {
            metric: [(each.labels, each.points) for each in series]
            for metric, series in zip(queries, answers, strict=True)
        }


def _minute(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
