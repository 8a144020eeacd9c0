"""Link to the metrics of a cluster in Cloud Monitoring."""

from __future__ import annotations

import json
from urllib.parse import quote

from airflow_provider_vertex_ray.core.monitoring.metric_query import metric_query
from airflow_provider_vertex_ray.links.base import VertexRayLink
from airflow_provider_vertex_ray.links.cluster import CONSOLE

SHOWN = ("cpu", "memory", "gpu")
"""Metrics to show if a task has no queries of its own: all in percent, on one axis."""


class VertexRayMetricsLink(VertexRayLink):
    """Link to Cloud Monitoring's Metrics Explorer, with the PromQL filled in.

    It shows the task's own queries, one per line of the fact ``promql``, or else the utilisation of the cluster. Google
    documents the page (https://cloud.google.com/monitoring/promql/promql-in-monitoring) but not the format of its
    address, which is taken from published addresses of saved views.
    """

    name = "Metrics"
    leads_to_google = True

    def url(self, facts: dict[str, str]) -> str:
        """Return the address of the Metrics Explorer."""
        project, cluster = facts["project_id"], facts["cluster_id"]
        queries = facts.get("promql", "").splitlines() or [metric_query(name, cluster) for name in SHOWN]
        shown = [{"plotType": "LINE", "prometheusQuery": query, "targetAxis": "Y1"} for query in queries]
        state = json.dumps({"xyChart": {"dataSets": shown}}, separators=(",", ":"))
        return (
            f"{CONSOLE}/monitoring/metrics-explorer;duration=PT6H?pageState={quote(state, safe='')}&project={project}"
        )
