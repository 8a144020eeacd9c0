"""States of a cluster, and a typed view of the service's PersistentResource."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.core.timestamps import parse_rfc3339
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    NotARayClusterError,
    ServiceError,
    UnreadableAnswerError,
)

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.cluster.answers import PoolAnswer


class ClusterState(str, Enum):
    """States of a PersistentResource.

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
        """Return the state with this name; UNKNOWN for a name that this package does not know."""
        try:
            return cls(value)
        except ValueError:
            return cls.UNKNOWN


BILLED_STATES = frozenset({ClusterState.RUNNING, ClusterState.UPDATING})
"""States in which the nodes cost money (https://cloud.google.com/vertex-ai/pricing#custom-trained_models)."""


GONE_STATES = frozenset({ClusterState.STOPPING, ClusterState.ERROR})
"""States in which a cluster is, or will be, of no use any more."""

USABLE_STATES = frozenset({ClusterState.RUNNING, ClusterState.UPDATING})
"""States in which a cluster with an answering dashboard takes work.

An autoscaling cluster is often UPDATING, for minutes at a time (docs/service-facts.md)."""


@dataclass(frozen=True)
class Pool:
    """The current state of one resource pool.

    :param pool_id: id of the pool
    :param machine_type: Compute Engine machine type of its nodes
    :param replicas: number of nodes that the service reports or, for an autoscaling pool, its minimum
    :param accelerator_type: accelerator of each node; None for none
    :param accelerator_count: number of accelerators of each node
    :param autoscaling: (minimum, maximum), or None for a pool of fixed size
    """

    pool_id: str
    machine_type: str
    replicas: int
    accelerator_type: str | None = None
    accelerator_count: int = 0
    autoscaling: tuple[int, int] | None = None


@dataclass(frozen=True)
class Cluster:
    """A typed view of a PersistentResource.

    ``resource`` is the service's own answer, for everything that has no attribute here.
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
        """Return the cluster that a PersistentResource in the API's JSON describes.

        :raises UnreadableAnswerError: it is not a PersistentResource
        """
        # DAG files import this module.
        from airflow_provider_vertex_ray.core.cluster.answers import ResourceAnswer
        from airflow_provider_vertex_ray.core.http.decoding import check_shape

        try:
            answer = check_shape(resource, ResourceAnswer)
        except UnreadableAnswerError as error:
            raise UnreadableAnswerError(f"The answer is not a persistent resource. {error.message}") from None
        _, project, _, location, _, cluster_id = answer.name.split("/")
        ray_spec = answer.resource_runtime_spec.ray_spec if answer.resource_runtime_spec else None
        uris = (answer.resource_runtime.access_uris if answer.resource_runtime else None) or {}
        pools = tuple(_pool(pool) for pool in answer.resource_pools or [])
        head = (ray_spec.head_node_resource_pool_id if ray_spec else None) or (pools[0].pool_id if pools else None)
        return cls(
            name=answer.name,
            project=project,
            location=location,
            cluster_id=cluster_id,
            state=ClusterState.of(answer.state),
            pools=pools,
            head_pool_id=head,
            dashboard_uri=uris.get("RAY_DASHBOARD_URI"),
            access_uris=uris,
            labels=answer.labels or {},
            error_message=answer.error.message if answer.error else None,
            error_code=answer.error.code if answer.error else None,
            create_time=answer.create_time,
            start_time=answer.start_time,
            is_ray=ray_spec is not None,
            resource=resource,
        )

    @property
    def created(self) -> float | None:
        """Return the Unix time of the creation; None if the service does not report it."""
        return parse_rfc3339(self.create_time)

    @property
    def started(self) -> float | None:
        """Return the Unix time at which the cluster first reached RUNNING; None if it has not yet."""
        return parse_rfc3339(self.start_time)

    @property
    def dashboard_url(self) -> str | None:
        """Return the address of the dashboard for a browser; None if there is none."""
        return Addresses.from_environment().dashboard_page(self.dashboard_uri) if self.dashboard_uri else None

    @property
    def shell_uri(self) -> str | None:
        """Return the address of an interactive shell on the head; None if there is none."""
        return self.access_uris.get("RAY_HEAD_NODE_INTERACTIVE_SHELL_URI")

    @property
    def resource_name(self) -> ClusterName:
        """Return the parts of ``name``, as the clients of this package take them."""
        return ClusterName(self.project, self.location, self.cluster_id)

    @property
    def node_count(self) -> int:
        """Return the number of nodes, including the head."""
        return sum(pool.replicas for pool in self.pools)

    def require_ray(self) -> Cluster:
        """Return this cluster if it runs Ray.

        :raises NotARayClusterError: it is another kind of persistent resource
        """
        if not self.is_ray:
            raise NotARayClusterError(
                f"cluster_id={self.cluster_id!r}: {self.name} is a persistent resource without a raySpec."
            )
        return self

    def failure(self) -> ServiceError | ClusterFailedError:
        """Return the error of a cluster in ERROR: quota, stockout, … by the service's text, or ClusterFailedError."""
        text = self.error_message or "The service gave no reason."
        found = outcome_error(text, self.error_code)
        details = {"cluster": self.name, "state": self.state.value, **found.details}
        message = f"Cluster {self.cluster_id} is in state {self.state.value}: {text}"
        if type(found) is ServiceError:
            return ClusterFailedError(message, details)
        return type(found)(message, details)

    def summary(self) -> dict[str, Any]:
        """Return what a task returns about a cluster: JSON, without secrets."""
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
            "dashboard_url": self.dashboard_url,
            "shell_url": f"https://{self.shell_uri.removeprefix('https://')}" if self.shell_uri else None,
            "labels": self.labels,
            "error": self.error_message,
            "create_time": self.create_time,
            "start_time": self.start_time,
        }


def _pool(pool: PoolAnswer) -> Pool:
    from airflow_provider_vertex_ray.core.http.decoding import whole

    scaling, machine = pool.autoscaling_spec, pool.machine_spec
    bounds = (whole(scaling.min_replica_count), whole(scaling.max_replica_count)) if scaling else None
    accelerator = machine.accelerator_type if machine else None
    return Pool(
        pool_id=pool.id or "",
        machine_type=(machine.machine_type if machine else None) or "",
        replicas=whole(pool.replica_count) or (bounds[0] if bounds else 0),
        accelerator_type=None if accelerator in (None, "ACCELERATOR_TYPE_UNSPECIFIED") else accelerator,
        accelerator_count=whole(machine.accelerator_count) if machine else 0,
        autoscaling=bounds,
    )
