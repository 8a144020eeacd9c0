"""Models of the Vertex AI API's answers about models, endpoints and predictions, and of Cloud Storage's lists.

Sources: https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/projects.locations.models#Model and
…/projects.locations.endpoints#Endpoint, and https://cloud.google.com/storage/docs/json_api/v1/objects/list.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from airflow_provider_vertex_ray.core.http.decoding import Count, JsonObject

__all__ = ["EndpointAnswer", "ModelAnswer", "ModelPage", "ObjectPage", "OperationPage", "PredictionAnswer"]

ResourceName = Annotated[str, msgspec.Meta(pattern=r"^projects/[^/\s]+/locations/[^/\s]+/\S+$")]


class _ContainerAnswer(msgspec.Struct, rename="camel"):
    image_uri: str | None = None


class ModelAnswer(msgspec.Struct, rename="camel"):
    """A model, or a version of one."""

    name: ResourceName
    version_id: str | None = None
    version_aliases: list[str] | None = None
    container_spec: _ContainerAnswer | None = None
    artifact_uri: str | None = None
    labels: dict[str, str] | None = None


class ModelPage(msgspec.Struct, rename="camel"):
    """A page of a list of models."""

    models: list[JsonObject] | None = None
    next_page_token: str | None = None


class _DeployedAnswer(msgspec.Struct, rename="camel"):
    id: str
    model: str | None = None
    display_name: str | None = None


class EndpointAnswer(msgspec.Struct, rename="camel"):
    """An endpoint with its deployed models."""

    name: ResourceName
    display_name: str | None = None
    deployed_models: list[_DeployedAnswer] | None = None
    traffic_split: dict[str, Count] | None = None
    labels: dict[str, str] | None = None


class OperationPage(msgspec.Struct, rename="camel"):
    """A page of a list of long-running operations."""

    operations: list[JsonObject] | None = None
    next_page_token: str | None = None


class PredictionAnswer(msgspec.Struct, rename="camel"):
    """Predictions for the instances of one request."""

    predictions: list[Any] | None = None
    deployed_model_id: str | None = None


class _ObjectAnswer(msgspec.Struct):
    name: str
    metadata: dict[str, str] | None = None


class ObjectPage(msgspec.Struct, rename="camel"):
    """A page of a list of objects in a bucket."""

    items: list[_ObjectAnswer] | None = None
    next_page_token: str | None = None
