"""What all operators here share: the connection's parameters, and waiting with or without a worker slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.core.cluster.name import ClusterName, parse_cluster_name
from airflow_provider_vertex_ray.core.job.state import Try, owner_key
from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
    from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook
    from airflow_provider_vertex_ray.triggers.base import WaitTrigger


def deferrable_by_default() -> bool:
    """The Airflow option ``[operators] default_deferrable``."""
    return bool(conf.getboolean("operators", "default_deferrable", fallback=False))


def task_owner(context: Context) -> tuple[str, dict[str, str]]:
    """The task instance's identity over all its tries: the owner key, and the parts that a person can read."""
    ti = context["ti"]
    parts = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id}
    map_index = getattr(ti, "map_index", -1)
    if map_index is None:
        map_index = -1
    return owner_key(ti.dag_id, ti.run_id, ti.task_id, map_index), {**parts, "map_index": str(map_index)}


def task_try(context: Context) -> Try:
    """This try, as far as jobs are concerned.

    A retry after a crash keeps ``max_tries`` and the run's start; a Clear raises the one, and in a run that had ended
    sets the other anew (``clear_task_instances`` in ``airflow/models/taskinstance.py`` of 2.11 and 3.3).
    """
    ti = context["ti"]
    owner, _ = task_owner(context)
    started = getattr(context.get("dag_run"), "start_date", None)
    return Try(
        owner,
        number=getattr(ti, "try_number", None) or 1,
        clear_epoch=f"{started.isoformat() if started else ''}/{getattr(ti, 'max_tries', 0)}",
        key=str(getattr(ti, "id", "") or ""),
    )


class ConnectionMixin:
    """Parameters that every operator and sensor has, as in the Google provider.

    :param project_id: Project of the cluster; default: the connection's.
    :param location: Region of the cluster, such as ``us-central1``.
    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain; default: the connection's.
    """

    connection_fields: ClassVar[Sequence[str]] = (
        "project_id",
        "location",
        "gcp_conn_id",
        "impersonation_chain",
    )
    project_id: str | None
    location: str | None
    gcp_conn_id: str
    impersonation_chain: str | Sequence[str] | None

    def _set_connection(
        self,
        project_id: str | None,
        location: str | None,
        gcp_conn_id: str,
        impersonation_chain: str | Sequence[str] | None,
    ) -> None:
        self.project_id = project_id
        self.location = location
        self.gcp_conn_id = gcp_conn_id
        self.impersonation_chain = impersonation_chain

    @property
    def cluster_hook(self) -> VertexRayClusterAsyncHook:
        """Clusters, through this task's connection."""
        from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook

        return VertexRayClusterAsyncHook(
            self.gcp_conn_id, self.impersonation_chain, self.project_id or None, self.location or None
        )

    @property
    def job_hook(self) -> VertexRayJobAsyncHook:
        """Jobs, through this task's connection."""
        from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook

        return VertexRayJobAsyncHook(
            self.gcp_conn_id, self.impersonation_chain, self.project_id or None, self.location or None
        )

    def _name(self, cluster_id: str) -> ClusterName:
        """The full name, before any call; the connection is asked for the project only when nothing else says it.

        :raises InvalidArgumentError: Names the field that is missing or malformed.
        """
        if self.project_id or str(cluster_id).startswith("projects/"):
            return parse_cluster_name(cluster_id, self.project_id or None, self.location or None)
        return parse_cluster_name(cluster_id, self._connection_project(), self.location or None)

    def _connection_project(self) -> str | None:
        from airflow_provider_vertex_ray.hooks.base import VertexRayBaseHook

        return VertexRayBaseHook(self.gcp_conn_id, self.impersonation_chain, self.project_id or None).known_project()

    def _connection_arguments(self) -> dict[str, Any]:
        """What a trigger needs to open the same connection."""
        chain = self.impersonation_chain
        return {
            "gcp_conn_id": self.gcp_conn_id,
            "impersonation_chain": chain if chain is None or isinstance(chain, str) else list(chain),
        }

    def _checked_cluster_id(self, cluster_id: Any) -> Any:
        """At DAG parse: refuse a malformed id that is no template and no XComArg.

        None is left to the ``VertexRayCluster`` group around the task, which puts its own cluster in.

        :raises InvalidArgumentError: It is malformed, or None outside of such a group.
        """
        if cluster_id is None and not in_cluster_group(self):
            rule = "give a cluster's id or its full resource name, or put the task into a VertexRayCluster group"
            raise InvalidArgumentError("cluster_id", cluster_id, rule)
        if isinstance(cluster_id, str) and not has_template(cluster_id):
            parse_cluster_name(cluster_id, "any-project", "us-central1")
        return cluster_id


def in_cluster_group(task: Any) -> bool:
    """Whether a task is within a ``VertexRayCluster`` group, at any depth."""
    group = getattr(task, "task_group", None)
    while group is not None:
        if getattr(group, "is_vertex_ray_cluster", False):
            return True
        group = getattr(group, "parent_group", None)
    return False


class VertexRayBaseOperator(ConnectionMixin, BaseOperator):
    """Base of the operators here.

    :param project_id: Project of the cluster; default: the connection's.
    :param location: Region of the cluster, such as ``us-central1``; a full cluster name brings its own.
    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain; default: the connection's.
    """

    template_fields: Sequence[str] = ConnectionMixin.connection_fields
    ui_color = "#d9ecff"

    def __init__(
        self,
        *,
        project_id: str | None = None,
        location: str | None = None,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._set_connection(project_id, location, gcp_conn_id, impersonation_chain)

    def _wait(self, context: Context, trigger: WaitTrigger, deferrable: bool, method: str = "execute_complete") -> Any:
        """Wait for a trigger's event: deferred, or here in the worker with the trigger's very code."""
        if deferrable:
            self.defer(trigger=trigger, method_name=method)
        from airflow_provider_vertex_ray.hooks.base import run_sync

        return getattr(self, method)(context, run_sync(trigger.outcome))
