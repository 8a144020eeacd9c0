"""Sensor that waits for free training quota."""

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
from airflow_provider_vertex_ray.operators.arguments import spec_fields
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.triggers.quota import VertexRayQuotaTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class VertexRayQuotaSensor(VertexRayBaseSensor):
    """Wait until the free training quota covers a cluster.

    The free quota is the limit minus the usage in the region, which Cloud Monitoring reports with a delay of some
    minutes. The sensor reserves nothing: another cluster may use the quota first. Returns ``location`` and ``quota``,
    which has for each metric ``metric``, ``asked``, ``asked_at_most``, ``limit`` (None: unlimited), ``used`` and
    ``free``.

    :param spec: spec of the cluster: a ``ClusterSpec``, or a dict of its fields. (templated)
    :param full_size: whether autoscaling pools count with their maximum size. Otherwise they count with their minimum,
        the size with which a cluster starts.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises QuotaTooSmallError: a limit is smaller than what the cluster needs; raised at once.
    :raises NotAuthorisedError: the credentials lack a permission.
    :raises AirflowSensorTimeout: the timeout expired.
    """

    template_fields: Sequence[str] = ("spec", *VertexRayBaseSensor.connection_fields)
    timeout_errors = (OperationTimeoutError,)
    operator_extra_links = (VertexRayQuotaLink(),)

    def __init__(self, *, spec: ClusterSpec | dict[str, Any], full_size: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_flag("full_size", full_size)
        self.spec = spec_fields(spec)
        self.full_size = full_size

    def execute(self, context: Context) -> Any:
        """Store the facts for the link, then wait."""
        persist_link_facts(context, project_id=self._project())
        return super().execute(context)

    def _check(self, context: Context) -> PokeReturnValue:
        """Check the free quota, with the code of the trigger."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        found = run_sync(self._quota(None).look)
        return PokeReturnValue(found is not None, found)

    def trigger(self, deadline: float | None) -> VertexRayQuotaTrigger:
        """Return the trigger that waits for the same quota."""
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
