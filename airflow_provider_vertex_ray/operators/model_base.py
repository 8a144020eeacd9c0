"""Base class of the operators on models and endpoints."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import known_at_run_time
from airflow_provider_vertex_ray.core.serving.resource_name import check_resource, resource_name
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, task_try

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.hooks.calls.model import ModelCalls

CLEAR_EPOCH_LABEL = "airflow-clear-epoch"
"""Label with a hash of the task instance and its clear epoch; with it a retry finds what a lost try created."""


def clear_epoch_hash(context: Context) -> str:
    """Return a hash of 16 characters that all tries of a task instance share until it is cleared."""
    this = task_try(context)
    return hashlib.sha256(f"{this.owner}\x00{this.clear_epoch}".encode()).hexdigest()[:16]


class ModelBaseOperator(VertexRayBaseOperator):
    """Base class of the operators on models and endpoints."""

    @property
    def model_hook(self) -> ModelCalls:
        """Hook for models and endpoints, with the connection of this task."""
        from airflow_provider_vertex_ray.hooks.calls.model import ModelCalls

        return ModelCalls(self.gcp_conn_id, self.impersonation_chain, self.project_id or None, self.location or None)

    def _resource(self, kind: str, value: str, field: str) -> str:
        """Return the full resource name.

        :raises InvalidArgumentError: the name is malformed, or the project or location is missing.
        """
        project = self.project_id or (None if "/" in str(value) else self._connection_project())
        return resource_name(kind, value, field, project, self.location or None)

    def _set_place(self, name: str) -> None:
        """Set the project and region to those of a full resource name."""
        _, self.project_id, _, self.location, *_ = name.split("/")

    @staticmethod
    def _check_resource(kind: str, value: Any, field: str) -> None:
        if not known_at_run_time(value):
            check_resource(kind, value, field)

    @staticmethod
    def _facts(name: str) -> dict[str, str]:
        """Return the facts for the links from a full resource name."""
        _, project, _, location, kind, resource = name.split("/")
        return {"project_id": project, "location": location, f"{kind.removesuffix('s')}_id": resource}
