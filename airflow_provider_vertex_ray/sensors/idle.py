"""Sensor that waits until a cluster is idle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_vertex_ray.core.checks import check_duration, unless_empty
from airflow_provider_vertex_ray.errors import OperationTimeoutError
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.leases import check_lease
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.triggers.idle import VertexRayClusterIdleTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.triggers.base import WaitTrigger


class VertexRayClusterIdleSensor(VertexRayBaseSensor):
    """Wait until a cluster has been idle for some time; returns ``Cluster.summary()`` with ``idle_seconds``.

    A cluster is in use if it has a job or a Ray Client driver that has not ended or a live lease, or if one of these
    could not be read. A cluster in ERROR is idle.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param idle_for: seconds for which the cluster must have been idle.
    :param lease_uri: Cloud Storage folder with the leases. None: only jobs and drivers on the cluster count as use.
        (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises AirflowSensorTimeout: the timeout expired.
    """

    template_fields: Sequence[str] = ("cluster_id", "lease_uri", *VertexRayBaseSensor.connection_fields)
    operator_extra_links = CLUSTER_LINKS
    timeout_errors = (OperationTimeoutError,)

    def __init__(
        self, *, cluster_id: str | None = None, idle_for: float = 600.0, lease_uri: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        check_duration("idle_for", idle_for, none_allowed=False)
        check_lease(lease_uri)
        self.cluster_id = cluster_id
        self.idle_for = idle_for
        self.lease_uri = lease_uri

    def _check(self, context: Context) -> PokeReturnValue:
        """Check the use of the cluster, with the code of the trigger."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        found = run_sync(self._look)
        return PokeReturnValue(found is not None, found)

    async def _look(self) -> dict[str, Any] | None:
        return await self._idle(None).look(self.cluster_hook)

    def trigger(self, deadline: float | None) -> WaitTrigger:
        """Return the trigger that waits for the same cluster."""
        return self._idle(deadline)

    def _idle(self, deadline: float | None) -> VertexRayClusterIdleTrigger:
        check_lease(unless_empty(self.lease_uri))
        return VertexRayClusterIdleTrigger(
            cluster_name=self._name(self.cluster_id).full,
            idle_for=self.idle_for,
            lease_uri=self.lease_uri,
            poll_interval=self.poke_interval,
            deadline=deadline,
            **self._connection_arguments(),
        )
