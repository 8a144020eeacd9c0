"""Links to a cluster: the Google Cloud console, Ray's dashboard, its logs."""

from __future__ import annotations

from urllib.parse import quote

from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.links.base import VertexRayLink

CONSOLE = "https://console.cloud.google.com"


class VertexRayClusterLink(VertexRayLink):
    """The cluster's page in the Google Cloud console."""

    name = "Ray cluster"

    def url(self, facts: dict[str, str]) -> str:
        """The console's address of the cluster."""
        location, cluster, project = facts["location"], facts["cluster_id"], facts["project_id"]
        return f"{CONSOLE}/vertex-ai/locations/{location}/ray-clusters/{cluster}?project={project}"


class VertexRayClusterListLink(VertexRayLink):
    """The list of Ray clusters in the Google Cloud console."""

    name = "Ray clusters"

    def url(self, facts: dict[str, str]) -> str:
        """The console's address of the list."""
        return f"{CONSOLE}/vertex-ai/ray?project={facts['project_id']}"


class VertexRayDashboardLink(VertexRayLink):
    """Ray's own dashboard, at the job where there is one."""

    name = "Ray dashboard"

    def url(self, facts: dict[str, str]) -> str:
        """The dashboard's address."""
        base = f"https://{facts['dashboard_uri']}"
        job = facts.get("submission_id")
        return f"{base}/#/jobs/{quote(job, safe='')}" if job else base


class VertexRayLogsLink(VertexRayLink):
    """Cloud Logging, with the filter for the cluster, and for the job where there is one, filled in."""

    name = "Cloud Logging"

    def url(self, facts: dict[str, str]) -> str:
        """The log explorer's address."""
        query = (
            facts.get("log_filter") or LogQuery(facts["cluster_id"], submission_id=facts.get("submission_id")).filter()
        )
        return f"{CONSOLE}/logs/query;query={quote(query, safe='')}?project={facts['project_id']}"
