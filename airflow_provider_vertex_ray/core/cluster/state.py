"""A cluster's life: its states, and a typed view of the service's PersistentResource."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.errors import ClusterFailedError, NotARayClusterError, ServiceError, VertexRayError


class ClusterState(str, Enum):
    """The states of a PersistentResource.

    Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.persistentResources#state
    """

    PROVISIONING = "PROVISIONING"
    RUNNING = "RUNNING"
    UPDATING = "UPDATING"
    STOPPING = "STOPPING"
    REBOOTING = "REBOOTING"
    ERROR = "ERROR"
    UNKNOWN = "STATE_UNSPECIFIED"

    @classmethod
    def of(cls, value: Any) -> ClusterState:
        """The state of that name; UNKNOWN for one that this package does not know."""
        try:
            return cls(value)
        except ValueError:
            return cls.UNKNOWN


BILLED_STATES = frozenset({ClusterState.RUNNING, ClusterState.UPDATING})
"""States in which the nodes cost money (https://cloud.google.com/vertex-ai/pricing#custom-trained_models)."""


@dataclass(frozen=True)
class Pool:
    """One resource pool as it is.

    :param replicas: Nodes that the service reports or, for an autoscaling pool, its minimum.
    :param autoscaling: (minimum, maximum) or None.
    """

    pool_id: str
    machine_type: str
    replicas: int
    accelerator_type: str | None = None
    accelerator_count: int = 0
    autoscaling: tuple[int, int] | None = None


@dataclass(frozen=True)
class Cluster:
    """A PersistentResource, read.

    ``resource`` is the service's own answer, for what has no field here.
    """

    name: str
    project: str
    location: str
    cluster_id: str
    state: ClusterState
    pools: tuple[Pool, ...]
    head_pool_id: str | None
    dashboard_uri: str | None
    access_uris: dict[str, str]
    labels: dict[str, str]
    error_message: str | None
    error_code: int | None
    create_time: str | None
    start_time: str | None
    is_ray: bool
    resource: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_resource(cls, resource: dict[str, Any]) -> Cluster:
        """Read the API's JSON."""
        name = str(resource.get("name", ""))
        match = re.fullmatch(r"projects/([^/]+)/locations/([^/]+)/persistentResources/([^/]+)", name)
        if match is None:
            raise VertexRayError(f"The service answered with a resource named {name!r}, not a persistentResource.")
        ray_spec = (resource.get("resourceRuntimeSpec") or {}).get("raySpec")
        uris = dict((resource.get("resourceRuntime") or {}).get("accessUris") or {})
        pools = tuple(_pool(pool) for pool in resource.get("resourcePools") or [])
        error = resource.get("error") or {}
        head = (ray_spec or {}).get("headNodeResourcePoolId") or (pools[0].pool_id if pools else None)
        return cls(
            name=name,
            project=match[1],
            location=match[2],
            cluster_id=match[3],
            state=ClusterState.of(resource.get("state")),
            pools=pools,
            head_pool_id=head,
            dashboard_uri=uris.get("RAY_DASHBOARD_URI"),
            access_uris=uris,
            labels=dict(resource.get("labels") or {}),
            error_message=error.get("message"),
            error_code=error.get("code"),
            create_time=resource.get("createTime"),
            start_time=resource.get("startTime"),
            is_ray=ray_spec is not None,
            resource=resource,
        )

    @property
    def created(self) -> float | None:
        """Unix time of the creation; None where the service does not say."""
        return unix_time(self.create_time)

    @property
    def node_count(self) -> int:
        """All nodes, the head included."""
        return sum(pool.replicas for pool in self.pools)

    def require_ray(self) -> Cluster:
        """This cluster, or NotARayClusterError."""
        if not self.is_ray:
            raise NotARayClusterError(
                f"cluster_id={self.cluster_id!r}: {self.name} is a persistent resource without a raySpec."
            )
        return self

    def failure(self) -> ServiceError | ClusterFailedError:
        """Why the cluster is in ERROR: quota, stockout, … by the service's text, else ClusterFailedError."""
        text = self.error_message or "The service gives no reason."
        found = outcome_error(text, self.error_code)
        details = {"cluster": self.name, "state": self.state.value, **found.details}
        message = f"Cluster {self.cluster_id} is in state {self.state.value}: {text}"
        if type(found) is ServiceError:
            return ClusterFailedError(message, details)
        return type(found)(message, details)

    def summary(self) -> dict[str, Any]:
        """What a task returns of a cluster: JSON, without anything secret."""
        return {
            "cluster_id": self.cluster_id,
            "name": self.name,
            "project_id": self.project,
            "location": self.location,
            "state": self.state.value,
            "node_count": self.node_count,
            "pools": {
                pool.pool_id: {
                    "machine_type": pool.machine_type,
                    "replicas": pool.replicas,
                    "accelerator_type": pool.accelerator_type,
                    "accelerator_count": pool.accelerator_count,
                    "autoscaling": list(pool.autoscaling) if pool.autoscaling else None,
                }
                for pool in self.pools
            },
            "dashboard_url": f"https://{self.dashboard_uri}" if self.dashboard_uri else None,
            "labels": self.labels,
            "error": self.error_message,
            "create_time": self.create_time,
            "start_time": self.start_time,
        }


def unix_time(stamp: str | None) -> float | None:
    """A time of the API, such as ``2026-11-24T03:48:00.123456789Z``, in seconds since 1970; None for none."""
    if not stamp:
        return None
    # fromisoformat of Python 3.10 knows neither "Z" nor nanoseconds.
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", stamp)
    if match is None:
        return None
    whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00")).timestamp()
    return whole + float(match[2] or 0)


def _pool(pool: dict[str, Any]) -> Pool:
    machine = pool.get("machineSpec") or {}
    scaling = pool.get("autoscalingSpec") or {}
    bounds = (int(scaling.get("minReplicaCount") or 0), int(scaling.get("maxReplicaCount") or 0)) if scaling else None
    # int64 fields are strings in protobuf's JSON.
    replicas = int(pool.get("replicaCount") or (bounds[0] if bounds else 0))
    accelerator = machine.get("acceleratorType")
    return Pool(
        pool_id=str(pool.get("id", "")),
        machine_type=str(machine.get("machineType", "")),
        replicas=replicas,
        accelerator_type=None if accelerator in (None, "ACCELERATOR_TYPE_UNSPECIFIED") else accelerator,
        accelerator_count=int(machine.get("acceleratorCount") or 0),
        autoscaling=bounds,
    )
