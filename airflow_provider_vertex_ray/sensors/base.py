"""Base class of the sensors: ``poke``, the same check in a trigger, and Airflow's own timeouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.polling import TRANSIENT_ERRORS
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.operators.arguments import refuse_unknown_arguments, resolve_deferrable
from airflow_provider_vertex_ray.operators.base import ConnectionMixin
from airflow_provider_vertex_ray.operators.end_from_trigger import check_end_from_trigger, task_end
from airflow_provider_vertex_ray.operators.triggerer_health import warn_without_triggerer
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.task_end import WAIT

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.triggers.base import WaitTrigger


class VertexRayBaseSensor(ConnectionMixin, BaseSensorOperator):
    """Base class of the sensors.

    :param project_id: project ID; default: the project of the connection. (templated)
    :param location: region, such as ``us-central1``; not needed with a full resource name. (templated)
    :param gcp_conn_id: Airflow connection to Google Cloud. (templated)
    :param impersonation_chain: Service account to impersonate, or a list of accounts that ends with it; default: the
        impersonation chain of the connection. (templated)
    :param deferrable: whether to wait in the triggerer; default: ``[operators] default_deferrable``. Otherwise the
        sensor pokes in its ``mode``.
    :param end_from_trigger: whether a sensor that waits in the triggerer also succeeds there, without a worker. None:
        where Airflow (3.3.1 and later) does everything that it does in a worker. True: also where it does not call
        callbacks or listeners, or record the events of outlets. False: never.
    """

    template_fields: Sequence[str] = ConnectionMixin.connection_fields
    timeout_errors: tuple[type[VertexRayError], ...] = ()
    """Errors of the trigger which mean that the timeout of the sensor has expired."""
    cluster_id: Any = None
    deferred_result: ClassVar[str] = WAIT
    _kept: dict[str, str | None] | None = None

    def __init__(
        self,
        *,
        project_id: str | None = None,
        location: str | None = None,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        deferrable: bool | None = None,
        end_from_trigger: bool | None = None,
        **kwargs: Any,
    ) -> None:
        refuse_unknown_arguments(type(self), BaseSensorOperator, kwargs)
        super().__init__(**kwargs)
        self._set_connection(project_id, location, gcp_conn_id, impersonation_chain)
        self.deferrable = resolve_deferrable(deferrable)
        check_end_from_trigger(end_from_trigger)
        self.end_from_trigger = end_from_trigger

    def execute(self, context: Context) -> Any:
        """Poke once and, if the condition is not met, defer; or poke in the worker."""
        self._keep_link_facts(context)
        if not self.deferrable:
            return self._with_links(context, super().execute(context))
        first = self.poke(context)
        if first.is_done:
            return self._with_links(context, first.xcom_value)
        warn_without_triggerer(self.log)
        trigger = self.trigger(deadline_after(self.timeout))
        # A worker raises errors: one of them is the sensor's timeout, after which Airflow does not retry.
        kept = self._kept
        facts = kept if kept is not None and not kept.get("dashboard_uri") else None
        end = task_end(self, context, self.end_from_trigger, failures=False, link_facts=facts)
        if end is not None:
            trigger.arguments["end"] = end
        return self.defer(trigger=trigger, method_name="execute_complete")

    def poke(self, context: Context) -> PokeReturnValue:
        """Check the condition; a short outage does not end the wait, as in the trigger."""
        try:
            return self._check(context)
        except TRANSIENT_ERRORS as error:
            self.log.warning("Could not check the condition; trying again: %s", error.message)
            return PokeReturnValue(False)

    def _check(self, context: Context) -> PokeReturnValue:
        """Check the condition once."""
        raise NotImplementedError

    def _keep_link_facts(self, context: Context, **more: str | None) -> None:
        """Store the facts for the links, unless the sensor has no cluster."""
        if self.cluster_id is None:
            return
        name = self._name(self.cluster_id)
        facts = {"project_id": name.project, "location": name.location, "cluster_id": name.cluster_id, **more}
        # Written only when they change, not with each poke.
        if facts != self._kept:
            persist_link_facts(context, **facts)
            self._kept = facts

    def _with_links(self, context: Context, result: Any) -> Any:
        """Return the result, and store the address of the dashboard for the links if the result has one."""
        url = result.get("dashboard_url") if isinstance(result, dict) else None
        if url:
            self._keep_link_facts(context, dashboard_uri=str(url).removeprefix("https://"))
        return result

    def trigger(self, deadline: float | None) -> WaitTrigger:
        """Return the trigger that waits for the same condition.

        :param deadline: Unix time at which the trigger gives up; None for no limit.
        """
        raise NotImplementedError

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the wait.

        :raises AirflowSensorTimeout: the timeout expired.
        :raises AirflowSkipException: the timeout expired, and ``soft_fail`` is set.
        """
        try:
            return dict(self._with_links(context, result_of(event)))
        except self.timeout_errors as error:
            if self.soft_fail:
                raise AirflowSkipException(str(error)) from error
            raise AirflowSensorTimeout(str(error)) from error
