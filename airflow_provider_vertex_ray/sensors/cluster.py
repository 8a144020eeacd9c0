"""Waiting for a cluster that somebody else creates, changes or deletes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_vertex_ray.core.cluster.state import ClusterState
from airflow_provider_vertex_ray.errors import InvalidArgumentError, OperationTimeoutError
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterStateTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.triggers.base import WaitTrigger


class VertexRayClusterSensor(VertexRayBaseSensor):
    """Waits until a cluster is in a state; returns ``Cluster.summary()``.

    :param cluster_id: Id or full resource name. (templated)
    :param target_states: Names of the states; any of them will do.

    Raises ClusterNotFoundError, AirflowSensorTimeout; and the cluster's failure when it is in ERROR, unless ERROR is
    waited for.
    """

    template_fields: Sequence[str] = ("cluster_id", *VertexRayBaseSensor.connection_fields)
    operator_extra_links = CLUSTER_LINKS
    timeout_errors = (OperationTimeoutError,)

    def __init__(
        self, *, cluster_id: str | None = None, target_states: Sequence[str] = ("RUNNING",), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        known = [state.value for state in ClusterState if state is not ClusterState.UNKNOWN]
        for state in target_states:
            if state not in known:
                raise InvalidArgumentError("target_states", list(target_states), f"the states are {', '.join(known)}")
        self.cluster_id = cluster_id
        self.target_states = list(target_states)

    def poke(self, context: Context) -> PokeReturnValue:
        """One look."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._name(self.cluster_id)
        cluster = run_sync(lambda: self.cluster_hook.get_cluster(name.full))
        self.log.info("Cluster %s is %s", name.cluster_id, cluster.state.value)
        if cluster.state.value in self.target_states:
            return PokeReturnValue(True, cluster.summary())
        if cluster.state is ClusterState.ERROR:
            raise cluster.failure()
        return PokeReturnValue(False)

    def trigger(self, deadline: float | None) -> WaitTrigger:
        """The same, from the triggerer."""
        return VertexRayClusterStateTrigger(
            cluster_name=self._name(self.cluster_id).full,
            states=self.target_states,
            poll_interval=self.poke_interval,
            deadline=deadline,
            **self._connection_arguments(),
        )
