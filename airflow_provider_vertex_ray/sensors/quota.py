"""Waiting for free quota."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_vertex_ray.core.checks import check_flag
from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.errors import OperationTimeoutError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.quota import VertexRayQuotaLink
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.triggers.quota import VertexRayQuotaTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class VertexRayQuotaSensor(VertexRayBaseSensor):
    """Waits until as much of each training quota is free as a cluster needs.

    Free is the limit less what everything in the region uses, as Cloud Monitoring knows it, which is some minutes
    behind. Nothing is reserved: another cluster may be quicker. Returns ``location`` and ``quota``: for each metric
    ``metric``, ``asked``, ``asked_at_most``, ``limit`` (None: none), ``used``, ``free``.

    :param spec: The cluster that is to be: a ``ClusterSpec``, or a dict of its fields. (templated)
    :param full_size: Whether autoscaling pools count with their maximum; otherwise with their minimum, which is what
        a cluster begins with.

    Raises QuotaTooSmallError at once when a limit is smaller than what is asked for, NotAuthorisedError,
    AirflowSensorTimeout.
    """

    template_fields: Sequence[str] = ("spec", *VertexRayBaseSensor.connection_fields)
    timeout_errors = (OperationTimeoutError,)
    operator_extra_links = (VertexRayQuotaLink(),)

    def __init__(self, *, spec: ClusterSpec | dict[str, Any], full_size: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_flag("full_size", full_size)
        # Judged at DAG parse, kept as a dict so that Airflow renders the templates in it.
        self.spec = ClusterSpec.from_value(spec).to_dict()
        self.full_size = full_size

    def execute(self, context: Context) -> Any:
        """Keep what the link needs, then wait."""
        persist_link_facts(context, project_id=self._project())
        return super().execute(context)

    def poke(self, context: Context) -> PokeReturnValue:
        """One look, with the trigger's very code."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        found = run_sync(self._quota(None).look)
        return PokeReturnValue(found is not None, found)

    def trigger(self, deadline: float | None) -> VertexRayQuotaTrigger:
        """The same, from the triggerer."""
        return self._quota(deadline)

    def _quota(self, deadline: float | None) -> VertexRayQuotaTrigger:
        return VertexRayQuotaTrigger(
            project_id=self._project(),
            location=validate_location(self.location),
            spec=self.spec,
            full_size=self.full_size,
            poll_interval=self.poke_interval,
            deadline=deadline,
            **self._connection_arguments(),
        )

    def _project(self) -> str:
        return validate_project(self.project_id or self._connection_project())
