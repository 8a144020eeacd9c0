"""Links to a cluster: the Google Cloud console, the Ray dashboard, and the logs."""

from __future__ import annotations

from urllib.parse import quote

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.links.base import EMULATOR_FACT, VertexRayLink, emulator_host

CONSOLE = "https://console.cloud.google.com"


class VertexRayClusterLink(VertexRayLink):
    """Link to the cluster's page in the Google Cloud console."""

    name = "Ray cluster"
    leads_to_google = True

    def url(self, facts: dict[str, str]) -> str:
        """Return the address of the cluster's page."""
        location, cluster, project = facts["location"], facts["cluster_id"], facts["project_id"]
        return f"{CONSOLE}/vertex-ai/locations/{location}/ray-clusters/{cluster}?project={project}"


class VertexRayClusterListLink(VertexRayLink):
    """Link to the list of Ray clusters in the Google Cloud console."""

    name = "Ray clusters"
    leads_to_google = True

    def url(self, facts: dict[str, str]) -> str:
        """Return the address of the list."""
        return f"{CONSOLE}/vertex-ai/ray?project={facts['project_id']}"


class VertexRayDashboardLink(VertexRayLink):
    """Link to the Ray dashboard, and to the job if the task has one."""

    name = "Ray dashboard"

    def url(self, facts: dict[str, str]) -> str:
        """Return the address of the dashboard."""
        base = Addresses(facts.get(EMULATOR_FACT) or emulator_host()).dashboard_page(facts["dashboard_uri"])
        job = facts.get("submission_id")
        return f"{base}/#/jobs/{quote(job, safe='')}" if job else f"{base}/"


class VertexRayShellLink(VertexRayLink):
    """Link to an interactive shell on the head node, where the service offers one."""

    name = "Shell on the head"
    leads_to_google = True

    def url(self, facts: dict[str, str]) -> str:
        """Return the address of the shell."""
        address = facts["shell_uri"]
        return address if address.startswith("https://") else f"https://{address}"


class VertexRayLogsLink(VertexRayLink):
    """Link to Cloud Logging, filtered by the cluster, and by the job if the task has one."""

    name = "Cloud Logging"
    leads_to_google = True

    def url(self, facts: dict[str, str]) -> str:
        """Return the address of the Logs Explorer."""
        query = (
            facts.get("log_filter") or LogQuery(facts["cluster_id"], submission_id=facts.get("submission_id")).filter()
        )
        return f"{CONSOLE}/logs/query;query={quote(query, safe='')}?project={facts['project_id']}"
