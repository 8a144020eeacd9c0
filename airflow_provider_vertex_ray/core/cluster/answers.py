"""Models of the Vertex AI API's answers about persistent resources and operations.

Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/projects.locations.persistentResources#resource
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from airflow_provider_vertex_ray.core.http.decoding import Count, Int64, JsonObject

__all__ = ["OperationAnswer", "ResourceAnswer", "ResourcePage", "StatusAnswer"]

OperationName = Annotated[str, msgspec.Meta(pattern=r"^\S+$")]


class StatusAnswer(msgspec.Struct):
    """A ``google.rpc.Status``."""

    code: Count | None = None
    message: str | None = None


class OperationAnswer(msgspec.Struct):
    """A long-running operation."""

    name: OperationName
    done: bool | None = None
    error: StatusAnswer | None = None
    response: JsonObject | None = None


class _MachineAnswer(msgspec.Struct, rename="camel"):
    machine_type: str | None = None
    accelerator_type: str | None = None
    accelerator_count: Int64 | None = None


class _ScalingAnswer(msgspec.Struct, rename="camel"):
    min_replica_count: Int64 | None = None
    max_replica_count: Int64 | None = None


class PoolAnswer(msgspec.Struct, rename="camel"):
    """A resource pool."""

    id: str | None = None
    machine_spec: _MachineAnswer | None = None
    replica_count: Int64 | None = None
    autoscaling_spec: _ScalingAnswer | None = None


class _RayAnswer(msgspec.Struct, rename="camel"):
    head_node_resource_pool_id: str | None = None


class _RuntimeSpecAnswer(msgspec.Struct, rename="camel"):
    ray_spec: _RayAnswer | None = None


class _RuntimeAnswer(msgspec.Struct, rename="camel"):
    access_uris: dict[str, str] | None = None


class ResourceAnswer(msgspec.Struct, rename="camel"):
    """A PersistentResource."""

    name: Annotated[str, msgspec.Meta(pattern=r"^projects/[^/]+/locations/[^/]+/persistentResources/[^/]+$")]
    state: str | None = None
    resource_pools: list[PoolAnswer] | None = None
    resource_runtime_spec: _RuntimeSpecAnswer | None = None
    resource_runtime: _RuntimeAnswer | None = None
    error: StatusAnswer | None = None
    labels: dict[str, str] | None = None
    create_time: str | None = None
    start_time: str | None = None


class ResourcePage(msgspec.Struct, rename="camel"):
    """A page of a list of PersistentResources."""

    persistent_resources: list[JsonObject] | None = None
    next_page_token: str | None = None
