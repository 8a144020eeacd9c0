"""A link to a cluster's metrics in Cloud Monitoring."""

from __future__ import annotations

import json
from urllib.parse import quote

from airflow_provider_vertex_ray.core.monitoring.metric_query import metric_query
from airflow_provider_vertex_ray.links.base import VertexRayLink
from airflow_provider_vertex_ray.links.cluster import CONSOLE

SHOWN = ("cpu", "memory", "gpu")
"""Metrics of a cluster that are shown where a task asks for none of its own: all in percent, on one axis."""


class VertexRayMetricsLink(VertexRayLink):
    """Cloud Monitoring's Metrics Explorer, with the PromQL filled in.

    The task's own queries where it has some (one a line of the fact ``promql``), else the utilisation of the cluster.
    Google documents the page (https://cloud.google.com/monitoring/promql/promql-in-monitoring), but not the form of its
    address: this one is read off the addresses of saved views that people have published.
    """

    name = "Metrics"

    def url(self, facts: dict[str, str]) -> str:
        """The Metrics Explorer's address."""
        project, cluster = facts["project_id"], facts["cluster_id"]
        queries = facts.get("promql", "").splitlines() or [metric_query(name, cluster) for name in SHOWN]
        shown = [{"plotType": "LINE", "prometheusQuery": query, "targetAxis": "Y1"} for query in queries]
        state = json.dumps({"xyChart": {"dataSets": shown}}, separators=(",", ":"))
        return (
            f"{CONSOLE}/monitoring/metrics-explorer;duration=PT6H?pageState={quote(state, safe='')}&project={project}"
        )
