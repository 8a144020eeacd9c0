"""Sensor that waits for an endpoint to serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_vertex_ray.core.checks import known_at_run_time
from airflow_provider_vertex_ray.core.serving.resource_name import check_resource, resource_name
from airflow_provider_vertex_ray.errors import OperationTimeoutError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.serving import VertexRayEndpointLink
from airflow_provider_vertex_ray.operators.arguments import check_strings
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.triggers.serving import VertexRayEndpointTrigger, endpoint_summary, serves

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class VertexRayEndpointSensor(VertexRayBaseSensor):
    """Wait until an endpoint serves a model; returns its deployed models and traffic split.

    :param endpoint_id: endpoint ID or resource name. (templated)
    :param deployed_model_id: ID of the deployed model to wait for; None: any model that gets traffic. (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises EndpointNotFoundError: the endpoint does not exist.
    :raises AirflowSensorTimeout: the timeout expired.
    """

    template_fields: Sequence[str] = ("endpoint_id", "deployed_model_id", *VertexRayBaseSensor.connection_fields)
    operator_extra_links = (VertexRayEndpointLink(),)
    timeout_errors = (OperationTimeoutError,)

    def __init__(self, *, endpoint_id: str, deployed_model_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not known_at_run_time(endpoint_id):
            check_resource("endpoints", endpoint_id, "endpoint_id")
        check_strings(deployed_model_id=deployed_model_id)
        self.endpoint_id = endpoint_id
        self.deployed_model_id = deployed_model_id

    def _check(self, context: Context) -> PokeReturnValue:
        """Check whether the endpoint serves."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        trigger = self.trigger(None)
        _, project, _, location, _, endpoint = trigger.name.split("/")
        persist_link_facts(context, project_id=project, location=location, endpoint_id=endpoint)
        found = run_sync(lambda: trigger.hook.get_endpoint(trigger.name))
        if serves(found, self.deployed_model_id):
            return PokeReturnValue(True, endpoint_summary(found))
        self.log.info("Endpoint %s does not serve yet", found["name"])
        return PokeReturnValue(False)

    def trigger(self, deadline: float | None) -> VertexRayEndpointTrigger:
        """Return the trigger that waits for the same endpoint."""
        project = self.project_id or (None if "/" in self.endpoint_id else self._connection_project())
        return VertexRayEndpointTrigger(
            name=resource_name("endpoints", self.endpoint_id, "endpoint_id", project, self.location or None),
            deployed_model_id=self.deployed_model_id,
            poll_interval=self.poke_interval,
            deadline=deadline,
            **self._connection_arguments(),
        )
