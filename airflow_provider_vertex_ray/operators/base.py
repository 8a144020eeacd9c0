"""Base classes of the operators: connection parameters, and waits that run deferred or in the worker."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_vertex_ray.core.checks import everything_known, has_template, is_everything_known
from airflow_provider_vertex_ray.core.cluster.name import (
    ClusterName,
    dashboard_host,
    is_dashboard_address,
    parse_cluster_name,
    region_of_dashboard,
)
from airflow_provider_vertex_ray.core.job.state import Try, owner_key
from airflow_provider_vertex_ray.core.storable import storable
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.links.base import begin_link_facts
from airflow_provider_vertex_ray.operators.arguments import check_carried, check_strings, refuse_unknown_arguments
from airflow_provider_vertex_ray.operators.templates import TemplatesMixin
from airflow_provider_vertex_ray.operators.triggerer_health import warn_without_triggerer

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls
    from airflow_provider_vertex_ray.hooks.calls.job import JobCalls
    from airflow_provider_vertex_ray.triggers.base import WaitTrigger


def task_owner(context: Context) -> tuple[str, dict[str, str]]:
    """Return the identity of the task instance, the same for all its tries: the owner key, and its readable parts."""
    ti = context["ti"]
    parts = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id}
    map_index = map_index_of(ti)
    return owner_key(ti.dag_id, ti.run_id, ti.task_id, map_index), {**parts, "map_index": str(map_index)}


def map_index_of(ti: Any) -> int:
    """Return the map index of a task instance; -1 if the task is not mapped."""
    found = getattr(ti, "map_index", -1)
    return -1 if found is None else int(found)


def task_try(context: Context) -> Try:
    """Return the current try of the task instance.

    A retry after a crash keeps ``max_tries`` and the run's start. A clear raises ``max_tries`` and, in a run that had
    ended, sets a new start (``clear_task_instances`` in ``airflow/models/taskinstance.py`` of 2.11 and 3.3).
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


def is_last_try(context: Context) -> bool:
    """Tell whether Airflow does not retry the task if this try fails."""
    ti = context["ti"]
    return (getattr(ti, "try_number", None) or 1) > (getattr(ti, "max_tries", None) or 0)


RETURNING = ("execute", "execute_complete")
"""Methods whose result Airflow stores as the task's XCom."""


def _returning_storable(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method return only what Airflow can store, and check the connection's parameters before it is executed.

    :raises NotStorableError: by the method, if its result cannot be stored.
    :raises InvalidArgumentError: by ``execute``, if a parameter of the connection was rendered to something else.
    """

    @functools.wraps(method)
    def returning(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_everything_known():
            # Called by another such method, which passes the result through the gate.
            return method(self, *args, **kwargs)
        with everything_known():
            if method.__name__ == "execute":
                # Airflow 2 adds an argument of its own.
                begin_link_facts(args[0] if args else kwargs["context"])
                self._check_rendered_connection()
            result = method(self, *args, **kwargs)
        return storable(result, "result", notify=self.log.warning)

    return returning


class ConnectionMixin(TemplatesMixin):
    """Connection parameters of every operator and sensor, as in the Google provider."""

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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for method in RETURNING:
            if method in cls.__dict__:
                setattr(cls, method, _returning_storable(cls.__dict__[method]))

    def _set_connection(
        self,
        project_id: str | None,
        location: str | None,
        gcp_conn_id: str,
        impersonation_chain: str | Sequence[str] | None,
    ) -> None:
        check_strings(project_id=project_id, location=location, gcp_conn_id=gcp_conn_id)
        if isinstance(impersonation_chain, (list, tuple)):
            for place, account in enumerate(impersonation_chain):
                check_strings(**{f"impersonation_chain[{place}]": account})
        else:
            check_strings(impersonation_chain=impersonation_chain)
        self.project_id = project_id
        self.location = location
        self.gcp_conn_id = gcp_conn_id
        self.impersonation_chain = impersonation_chain

    def _check_rendered_connection(self) -> None:
        """Validate the connection parameters again: with native rendering, a template may become any value.

        :raises InvalidArgumentError: a parameter is malformed.
        """
        chain = self.impersonation_chain
        accounts = {"impersonation_chain": chain}
        if isinstance(chain, (list, tuple)):
            accounts = {f"impersonation_chain[{place}]": account for place, account in enumerate(chain)}
        for field in ("project_id", "location", "gcp_conn_id"):
            accounts[field] = getattr(self, field)
        for field, value in accounts.items():
            if value is not None:
                check_carried(field, value)

    @property
    def cluster_hook(self) -> ClusterCalls:
        """Hook for clusters, with the connection of this task."""
        from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

        return ClusterCalls(self.gcp_conn_id, self.impersonation_chain, self.project_id or None, self.location or None)

    @property
    def job_hook(self) -> JobCalls:
        """Hook for jobs, with the connection of this task."""
        from airflow_provider_vertex_ray.hooks.calls.job import JobCalls

        return JobCalls(self.gcp_conn_id, self.impersonation_chain, self.project_id or None, self.location or None)

    def _name(self, cluster_id: str) -> ClusterName:
        """Return the full cluster name; the connection is read only when nothing else names the project.

        :raises InvalidArgumentError: a part of the name is missing or malformed.
        """
        if isinstance(cluster_id, str):
            cluster_id = cluster_id.removeprefix("vertex_ray://")
            if is_dashboard_address(cluster_id):
                return self._name_of_dashboard(cluster_id)
        if self.project_id or str(cluster_id).startswith("projects/"):
            return parse_cluster_name(cluster_id, self.project_id or None, self.location or None)
        return parse_cluster_name(cluster_id, self._connection_project(), self.location or None)

    def _name_of_dashboard(self, address: str) -> ClusterName:
        """Return the name of the cluster with a dashboard, the form of address of the Google provider's job operators.

        :raises InvalidArgumentError: no cluster in the region has this dashboard.
        """
        from airflow_provider_vertex_ray.core.threads import run_sync
        from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

        region = self.location or region_of_dashboard(address)
        project = self.project_id or self._connection_project()
        hook = ClusterCalls(self.gcp_conn_id, self.impersonation_chain, project, region)
        wanted = dashboard_host(address)
        for cluster in run_sync(lambda: hook.list_clusters()):
            if cluster.dashboard_uri and dashboard_host(cluster.dashboard_uri) == wanted:
                return parse_cluster_name(cluster.name)
        rule = f"Use the name of a cluster: no cluster of project {project} in {region} has this dashboard."
        raise InvalidArgumentError("cluster_id", address, rule)

    def _connection_project(self) -> str | None:
        from airflow_provider_vertex_ray.hooks.connection import GoogleConnection

        return self.project_id or GoogleConnection(self.gcp_conn_id, self.impersonation_chain).project()

    def _connection_arguments(self) -> dict[str, Any]:
        """Return the arguments with which a trigger opens the same connection."""
        chain = self.impersonation_chain
        return {
            "gcp_conn_id": self.gcp_conn_id,
            "impersonation_chain": chain if chain is None or isinstance(chain, str) else list(chain),
        }

    def _checked_cluster_id(self, cluster_id: Any) -> Any:
        """Return ``cluster_id`` once it is validated at DAG parse; templates and XComArgs pass.

        None is valid inside a ``VertexRayCluster`` group, which sets the id of its own cluster.

        :raises InvalidArgumentError: the id is malformed, or None outside such a group.
        """
        if cluster_id is None and not in_cluster_group(self):
            rule = "Use a cluster id or a full resource name, or put the task into a VertexRayCluster group."
            raise InvalidArgumentError("cluster_id", cluster_id, rule)
        check_strings(cluster_id=cluster_id)
        if isinstance(cluster_id, str) and not has_template(cluster_id) and not is_dashboard_address(cluster_id):
            parse_cluster_name(cluster_id.removeprefix("vertex_ray://"), "any-project", "us-central1")
        return cluster_id


def in_cluster_group(task: Any) -> bool:
    """Tell whether a task is inside a ``VertexRayCluster`` group, at any depth."""
    group = getattr(task, "task_group", None)
    while group is not None:
        if getattr(group, "is_vertex_ray_cluster", False):
            return True
        group = getattr(group, "parent_group", None)
    return False


class VertexRayBaseOperator(ConnectionMixin, BaseOperator):
    """Base class of the operators.

    :param project_id: project ID; default: the project of the connection. (templated)
    :param location: region, such as ``us-central1``; not needed with a full resource name. (templated)
    :param gcp_conn_id: Airflow connection to Google Cloud. (templated)
    :param impersonation_chain: Service account to impersonate, or a list of accounts that ends with it; default: the
        impersonation chain of the connection. (templated)
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
        refuse_unknown_arguments(type(self), BaseOperator, kwargs)
        super().__init__(**kwargs)
        self._set_connection(project_id, location, gcp_conn_id, impersonation_chain)

    def _wait(self, context: Context, trigger: WaitTrigger, deferrable: bool, method: str = "execute_complete") -> Any:
        """Wait for the event of a trigger: deferred, or in the worker with the same code."""
        if deferrable:
            warn_without_triggerer(self.log)
            end = self._task_end(context) if method == "execute_complete" else None
            if end is not None:
                trigger.arguments["end"] = end
            self.defer(trigger=trigger, method_name=method)
        from airflow_provider_vertex_ray.core.threads import run_sync

        return getattr(self, method)(context, run_sync(trigger.outcome))

    def _task_end(self, context: Context) -> dict[str, Any] | None:
        """Return how the task ends in the triggerer once its wait is over; None if a worker resumes it."""
        return None
