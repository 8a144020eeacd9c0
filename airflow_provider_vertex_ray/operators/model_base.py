"""What the operators of models and endpoints share."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.core.serving.resource_name import check_resource, resource_name
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, task_try

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.hooks.model import VertexRayModelAsyncHook

CLEAR_EPOCH_LABEL = "airflow-clear-epoch"
"""Label with a hash of the task instance and its life: a retry finds by it what a lost try has made."""


def clear_epoch_hash(context: Context) -> str:
    """What all tries of a task instance have in common until it is cleared, as 16 characters."""
    this = task_try(context)
    return hashlib.sha256(f"{this.owner}\x00{this.clear_epoch}".encode()).hexdigest()[:16]


def later(value: Any) -> bool:
    """Whether a value is known only when the task runs."""
    return has_template(value) or hasattr(value, "iter_references")


class ModelBaseOperator(VertexRayBaseOperator):
    """Base of the operators of models and endpoints."""

    @property
    def model_hook(self) -> VertexRayModelAsyncHook:
        """Models and endpoints, through this task's connection."""
        from airflow_provider_vertex_ray.hooks.model import VertexRayModelAsyncHook

        return VertexRayModelAsyncHook(
            self.gcp_conn_id, self.impersonation_chain, self.project_id or None, self.location or None
        )

    def _resource(self, kind: str, value: str, field: str) -> str:
        """The full name.

        :raises InvalidArgumentError: It is malformed, or project or location is missing.
        """
        project = self.project_id or (None if "/" in str(value) else self._connection_project())
        return resource_name(kind, value, field, project, self.location or None)

    def _at(self, name: str) -> None:
        """Take project and region from a full name."""
        _, self.project_id, _, self.location, *_ = name.split("/")

    @staticmethod
    def _check_resource(kind: str, value: Any, field: str) -> None:
        if not later(value):
            check_resource(kind, value, field)

    @staticmethod
    def _facts(name: str) -> dict[str, str]:
        """What links need of a full name."""
        _, project, _, location, kind, resource = name.split("/")
        return {"project_id": project, "location": location, f"{kind.removesuffix('s')}_id": resource}
