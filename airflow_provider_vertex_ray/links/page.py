"""Link to the cluster, and to the job, on the page "Ray clusters" within Airflow."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from airflow_provider_vertex_ray.links.base import VertexRayLink
from airflow_provider_vertex_ray.links.page_address import home_within_airflow

FROM_PREFIX = "from_"
"""Start of the parameters with which the page links back to the task."""


class VertexRayPageLink(VertexRayLink):
    """Link to the cluster on the page "Ray clusters", with the log of the job if the task has one.

    Airflow 2 has no such page; there, tasks do not have this link.
    """

    name = "Cluster in Airflow"

    def url(self, facts: dict[str, str]) -> str:
        """Return the path of the cluster on the page; relative to Airflow's own host."""
        names = ("project_id", "location", "cluster_id")
        project, location, cluster = (quote(facts[name], safe="") for name in names)
        query = {name: value for name, value in facts.items() if name.startswith(FROM_PREFIX)}
        if job := facts.get("submission_id"):
            query["job"] = job
        path = f"{home_within_airflow()}/projects/{project}/locations/{location}/persistentResources/{cluster}"
        return f"{path}?{urlencode(query, quote_via=quote)}" if query else path

    def facts_of(self, ti_key: Any) -> dict[str, str]:
        """Return the names of the task instance, so that the page can link back to it."""
        index = getattr(ti_key, "map_index", -1)
        names = {name: getattr(ti_key, f"{name}_id", "") for name in ("dag", "run", "task")}
        mapped = {"map": str(index)} if isinstance(index, int) and index >= 0 else {}
        return {f"{FROM_PREFIX}{name}": str(value) for name, value in {**names, **mapped}.items() if value}
