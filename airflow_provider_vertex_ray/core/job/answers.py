"""Models of the answers of Ray's dashboard; what this package does not use is not declared, and skipped.

Source: Ray 2.47.1, python/ray/dashboard/modules/job/pydantic_models.py and python/ray/util/state/common.py.
"""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

import msgspec

from airflow_provider_vertex_ray.core.http.decoding import Count, Milliseconds, Scalar

__all__ = [
    "ActorAnswer",
    "DeletedAnswer",
    "HolderAnswer",
    "JobAnswer",
    "JobUseAnswer",
    "MetadataAnswer",
    "NodeAnswer",
    "NodesAnswer",
    "RayletAnswer",
    "StateAnswer",
    "StoppedAnswer",
    "SubmittedAnswer",
    "SummaryNodeAnswer",
    "UsageAnswer",
    "VersionAnswer",
]

T = TypeVar("T")

Amount = Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)]


class _EnvironmentAnswer(msgspec.Struct):
    env_vars: dict[str, Scalar] | None = None


class JobAnswer(msgspec.Struct):
    """A job or a driver."""

    submission_id: str | None = None
    job_id: str | None = None
    type: str | None = None
    status: str | None = None
    message: str | None = None
    error_type: str | None = None
    entrypoint: str | None = None
    start_time: Milliseconds | None = None
    end_time: Milliseconds | None = None
    metadata: dict[str, Scalar] | None = None
    runtime_env: _EnvironmentAnswer | None = None
    driver_node_id: str | None = None
    driver_exit_code: Count | None = None


class JobUseAnswer(msgspec.Struct):
    """What tells whether a job or a driver uses the cluster."""

    status: str
    submission_id: str | None = None
    job_id: str | None = None
    type: str | None = None
    end_time: Milliseconds | None = None


class SubmittedAnswer(msgspec.Struct):
    """The answer to a submission."""

    submission_id: str


class StoppedAnswer(msgspec.Struct):
    """The answer to a stop request."""

    stopped: bool


class DeletedAnswer(msgspec.Struct):
    """The answer to the deletion of a job."""

    deleted: bool


class VersionAnswer(msgspec.Struct):
    """The version of the dashboard; every Ray since 1.9 gives both (``python/ray/dashboard/modules/version.py``)."""

    version: str
    ray_version: str


class _MetadataData(msgspec.Struct, rename="camel"):
    ray_version: str | None = None
    python_version: str | None = None


class MetadataAnswer(msgspec.Struct):
    """The versions of the cluster."""

    data: _MetadataData | None = None


class NodeAnswer(msgspec.Struct):
    """A node of the state API."""

    node_id: str | None = None
    state: str | None = None
    is_head_node: bool | None = None
    resources_total: dict[str, Amount] | None = None


class HolderAnswer(msgspec.Struct):
    """An actor or a task of the state API, with the resources that it holds."""

    node_id: str | None = None
    type: str | None = None
    required_resources: dict[str, Amount] | None = None


class ActorAnswer(msgspec.Struct):
    """An actor of the state API."""

    actor_id: str


class _StateResult(msgspec.Struct, Generic[T]):
    result: list[T]


class _StateData(msgspec.Struct, Generic[T]):
    result: _StateResult[T]


class StateAnswer(msgspec.Struct, Generic[T]):
    """A list of the state API."""

    data: _StateData[T]


class RayletAnswer(msgspec.Struct, rename="camel"):
    """What a node reports about itself."""

    node_id: str | None = None
    state: str | None = None
    is_head_node: bool | None = None
    resources_total: dict[str, Amount] | None = None


class SummaryNodeAnswer(msgspec.Struct):
    """A node in the summary."""

    raylet: RayletAnswer | None = None


class _NodesData(msgspec.Struct):
    summary: list[SummaryNodeAnswer]


class NodesAnswer(msgspec.Struct):
    """The summary of all nodes."""

    data: _NodesData


class _LoadReport(msgspec.Struct):
    usage: dict[str, tuple[Amount, Amount]] | None = None


class _ClusterStatus(msgspec.Struct, rename="camel"):
    load_metrics_report: _LoadReport | None = None


class _UsageData(msgspec.Struct, rename="camel"):
    cluster_status: _ClusterStatus | None = None


class UsageAnswer(msgspec.Struct):
    """The status of the cluster's autoscaler."""

    data: _UsageData | None = None
