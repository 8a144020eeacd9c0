"""What both sensors share: one look by ``poke``, the same wait by a trigger, and Airflow's own timeouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.operators.base import ConnectionMixin, deferrable_by_default
from airflow_provider_vertex_ray.triggers.base import result_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.triggers.base import WaitTrigger


class VertexRayBaseSensor(ConnectionMixin, BaseSensorOperator):
    """Base of the sensors here.

    :param project_id: Project of the cluster; default: the connection's.
    :param location: Region of the cluster; a full cluster name brings its own.
    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain; default: the connection's.
    :param deferrable: Wait in the triggerer; default: ``[operators] default_deferrable``. Otherwise the sensor pokes,
        in its ``mode``.
    """

    template_fields: Sequence[str] = ConnectionMixin.connection_fields
    timeout_errors: tuple[type[VertexRayError], ...] = ()
    """Errors of the trigger that mean that the sensor's own timeout passed."""
    cluster_id: Any = None
    _kept: dict[str, str | None] | None = None

    def __init__(
        self,
        *,
        project_id: str | None = None,
        location: str | None = None,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._set_connection(project_id, location, gcp_conn_id, impersonation_chain)
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable

    def execute(self, context: Context) -> Any:
        """Defer, unless one look shows that it is so already; or poke."""
        self._keep_link_facts(context)
        if not self.deferrable:
            return self._with_links(context, super().execute(context))
        first = self.poke(context)
        if isinstance(first, PokeReturnValue) and first.is_done:
            return self._with_links(context, first.xcom_value)
        return self.defer(trigger=self.trigger(deadline_after(self.timeout)), method_name="execute_complete")

    def _keep_link_facts(self, context: Context, **more: str | None) -> None:
        """Keep what the links need; without a cluster, nothing."""
        if self.cluster_id is None:
            return
        name = self._name(self.cluster_id)
        facts = {"project_id": name.project, "location": name.location, "cluster_id": name.cluster_id, **more}
        # Not with each poke.
        if facts != self._kept:
            persist_link_facts(context, **facts)
            self._kept = facts

    def _with_links(self, context: Context, result: Any) -> Any:
        """The result; where it tells of a dashboard, the links know it from now on."""
        url = result.get("dashboard_url") if isinstance(result, dict) else None
        if url:
            self._keep_link_facts(context, dashboard_uri=str(url).removeprefix("https://"))
        return result

    def trigger(self, deadline: float | None) -> WaitTrigger:
        """The trigger that waits for the same."""
        raise NotImplementedError

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was waited for.

        :raises AirflowSensorTimeout: It did not come in time; a skip with ``soft_fail``.
        """
        try:
            return dict(self._with_links(context, result_of(event)))
        except self.timeout_errors as error:
            if self.soft_fail:
                raise AirflowSkipException(str(error)) from error
            raise AirflowSensorTimeout(str(error)) from error
