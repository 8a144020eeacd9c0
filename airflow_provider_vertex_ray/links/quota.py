"""Link to the quotas in the Google Cloud console."""

from __future__ import annotations

from airflow_provider_vertex_ray.core.preflight.requirements import quota_page
from airflow_provider_vertex_ray.links.base import VertexRayLink


class VertexRayQuotaLink(VertexRayLink):
    """Link to the project's Vertex AI quotas, where an increase can be requested."""

    name = "Quotas"
    leads_to_google = True

    def url(self, facts: dict[str, str]) -> str:
        """Return the address of the quotas."""
        return quota_page(facts["project_id"])
