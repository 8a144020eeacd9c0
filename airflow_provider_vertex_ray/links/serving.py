"""Links to a model and to an endpoint in the Google Cloud console."""

from __future__ import annotations

from airflow_provider_vertex_ray.links.base import VertexRayLink
from airflow_provider_vertex_ray.links.cluster import CONSOLE


class VertexRayModelLink(VertexRayLink):
    """Link to the model's page in the Model Registry."""

    name = "Model"
    leads_to_google = True

    def url(self, facts: dict[str, str]) -> str:
        """Return the address of the model's page."""
        place = (
            f"locations/{facts['location']}/models/{facts['model_id']}/versions/{facts.get('version_id', 'default')}"
        )
        return f"{CONSOLE}/vertex-ai/models/{place}/properties?project={facts['project_id']}"


class VertexRayEndpointLink(VertexRayLink):
    """Link to the endpoint's page in the Google Cloud console."""

    name = "Endpoint"
    leads_to_google = True

    def url(self, facts: dict[str, str]) -> str:
        """Return the address of the endpoint's page."""
        place = f"locations/{facts['location']}/endpoints/{facts['endpoint_id']}"
        return f"{CONSOLE}/vertex-ai/online-prediction/{place}?project={facts['project_id']}"
