"""Sensor that waits for the state of a cluster."""

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
    """Wait until a cluster is in one of the given states; returns ``Cluster.summary()``.

    A cluster that autoscales is often UPDATING, and takes work meanwhile. To wait for the end of a resize, use
    ``["RUNNING"]``.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param target_states: states to wait for, such as ``["RUNNING"]``.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises ClusterFailedError: the cluster is in ERROR, which is not one of ``target_states``. A known reason has its
        own type, such as QuotaExceededError or StockoutError.
    :raises AirflowSensorTimeout: the timeout expired.
    """

    template_fields: Sequence[str] = ("cluster_id", *VertexRayBaseSensor.connection_fields)
    operator_extra_links = CLUSTER_LINKS
    timeout_errors = (OperationTimeoutError,)

    def __init__(
        self, *, cluster_id: str | None = None, target_states: Sequence[str] = ("RUNNING", "UPDATING"), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        known = [state.value for state in ClusterState if state is not ClusterState.UNKNOWN]
        rule = f"Use a list of states, from {', '.join(known)}."
        if not isinstance(target_states, (list, tuple, set, frozenset)) or not target_states:
            raise InvalidArgumentError("target_states", target_states, rule)
        if not all(state in known for state in target_states):
            raise InvalidArgumentError("target_states", list(target_states), rule)
        self.cluster_id = cluster_id
        self.target_states = list(target_states)

    def _check(self, context: Context) -> PokeReturnValue:
        """Check the state of the cluster."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        name = self._name(self.cluster_id)
        cluster = run_sync(lambda: self.cluster_hook.get_cluster(name))
        self.log.info("Cluster %s is %s", name.cluster_id, cluster.state.value)
        if cluster.state.value in self.target_states:
            return PokeReturnValue(True, cluster.summary())
        if cluster.state is ClusterState.ERROR:
            raise cluster.failure()
        return PokeReturnValue(False)

    def trigger(self, deadline: float | None) -> WaitTrigger:
        """Return the trigger that waits for the same states."""
        return VertexRayClusterStateTrigger(
            cluster_name=self._name(self.cluster_id).full,
            states=self.target_states,
            poll_interval=self.poke_interval,
            deadline=deadline,
            **self._connection_arguments(),
        )
