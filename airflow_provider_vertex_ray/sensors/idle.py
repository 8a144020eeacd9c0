"""Waiting until nobody uses a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_vertex_ray.core.checks import check_duration
from airflow_provider_vertex_ray.errors import OperationTimeoutError
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.leases import check_lease
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.triggers.idle import VertexRayClusterIdleTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.triggers.base import WaitTrigger


class VertexRayClusterIdleSensor(VertexRayBaseSensor):
    """Waits until nobody has used a cluster for some time; returns ``Cluster.summary()`` with ``idle_seconds``.

    In use is a cluster with a job or a Ray Client driver that has not ended, with a live lease, or of which one of
    these can not be read. A cluster in ERROR is not in use.

    :param cluster_id: Id or full resource name. (templated)
    :param idle_for: Seconds without use.
    :param lease_uri: Folder in Cloud Storage with the leases; None: jobs and drivers alone count. (templated)

    Raises ClusterNotFoundError, AirflowSensorTimeout.
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

    def poke(self, context: Context) -> PokeReturnValue:
        """One look, with the trigger's very code."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        found = run_sync(self._look)
        return PokeReturnValue(found is not None, found)

    async def _look(self) -> dict[str, Any] | None:
        return await self._idle(None).look(self.cluster_hook)

    def trigger(self, deadline: float | None) -> WaitTrigger:
        """The same, from the triggerer."""
        return self._idle(deadline)

    def _idle(self, deadline: float | None) -> VertexRayClusterIdleTrigger:
        return VertexRayClusterIdleTrigger(
            cluster_name=self._name(self.cluster_id).full,
            idle_for=self.idle_for,
            lease_uri=self.lease_uri,
            poll_interval=self.poke_interval,
            deadline=deadline,
            **self._connection_arguments(),
        )
