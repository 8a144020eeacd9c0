"""A cluster around a group of tasks: set up before them, torn down after them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import TaskGroup

from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator
from airflow_provider_vertex_ray.operators.leases import LEASE_TTL, VertexRayReleaseClusterOperator
from airflow_provider_vertex_ray.task_groups.task_states import NOT_WELL, states_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

DELETE = ("never", "always", "on_success")


class VertexRayCluster(TaskGroup):
    """A task group whose tasks have a cluster.

    ``with VertexRayCluster("etl", shared_name="etl", spec=…, location="us-central1"):`` puts a set-up task
    (``create_cluster``) before and, where there is something to do at the end, a teardown task after the tasks inside.
    They are Airflow's own set-up and teardown: a failure inside still tears down, and clearing a task inside sets up
    again. Tasks of this package inside that name no ``cluster_id`` get this cluster, mapped ones and those in nested
    groups too; also the connection and the lease, where they name none.

    :param group_id: The group's id.
    :param spec: What the cluster looks like: a ``ClusterSpec``, or a dict of its fields.
    :param cluster_id: Id of a cluster of this group's own; use one that changes with the run, such as
        ``etl-{{ ts_nodash | lower }}``.
    :param shared_name: Name of a shared cluster, instead of ``cluster_id``.
    :param delete: When the teardown deletes the cluster: ``always``, ``on_success`` (only if no task inside has failed;
        otherwise it stays, and costs money, for a look at it) or ``never``. Default: ``always`` for ``cluster_id``;
        ``never`` for ``shared_name``, because others may use it: a ``VertexRayDeleteIdleClustersOperator`` deletes it.
    :param lease_uri: Folder in Cloud Storage with the leases of shared clusters; the teardown gives this run's hold
        back.
    :param lease_ttl: Seconds for which the run holds the cluster without saying so again.
    :param deferrable: Whether set-up and teardown wait in the triggerer; default: the DAG's ``default_args``, else
        ``[operators] default_deferrable``.
    :param project_id: Project of the cluster; default: that of ``default_args``, else the connection's.
    :param location: Region of the cluster; default: that of ``default_args``.
    :param gcp_conn_id: The Airflow connection; default: that of ``default_args``, else ``google_cloud_default``.
    :param impersonation_chain: Service account to act as, or a chain.
    :param create: More arguments of ``VertexRayCreateClusterOperator``, such as ``max_age`` or ``provision_timeout``.
    :param kwargs: Arguments of Airflow's ``TaskGroup``.

    Raises InvalidArgumentError at DAG parse for wrong input.
    """

    is_vertex_ray_cluster: ClassVar[bool] = True

    def __init__(
        self,
        group_id: str,
        *,
        spec: ClusterSpec | dict[str, Any],
        cluster_id: str | None = None,
        shared_name: str | None = None,
        delete: str | None = None,
        lease_uri: str | None = None,
        lease_ttl: float = LEASE_TTL,
        deferrable: bool | None = None,
        project_id: str | None = None,
        location: str | None = None,
        gcp_conn_id: str | None = None,
        impersonation_chain: str | list[str] | None = None,
        create: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if (cluster_id is None) == (shared_name is None):
            raise InvalidArgumentError("cluster_id", cluster_id, "give either cluster_id or shared_name")
        delete = delete or ("always" if shared_name is None else "never")
        if delete not in DELETE:
            raise InvalidArgumentError("delete", delete, f"use one of {', '.join(DELETE)}")
        if shared_name is not None and delete != "never":
            rule = "others may use a shared cluster; VertexRayDeleteIdleClustersOperator deletes it once nobody does"
            raise InvalidArgumentError("delete", delete, rule)
        super().__init__(group_id, **kwargs)
        parent = self.parent_group
        while parent is not None:
            if hasattr(parent, "_expand_input"):
                raise InvalidArgumentError("group_id", group_id, "a cluster can not be within a mapped task group")
            parent = parent.parent_group
        self._delete = delete
        self._lease = {} if lease_uri is None else {"lease_uri": lease_uri, "lease_ttl": lease_ttl}
        # What is not given is left out, so that the DAG's default_args count.
        self._connection = _given(
            project_id=project_id,
            location=location,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
        )
        self._deferrable = _given(deferrable=deferrable)
        self._create: dict[str, Any] = {
            "spec": spec,
            "cluster_id": cluster_id,
            "shared_name": shared_name,
            **self._deferrable,
            **self._lease,
            **(create or {}),
        }
        self._set_up: VertexRayCreateClusterOperator | None = None

    @property
    def cluster_id(self) -> str:
        """The cluster's full name, as a template for any templated field of a task inside."""
        return self._result("name")

    @property
    def dashboard_url(self) -> str:
        """The address of its dashboard, as a template."""
        return self._result("dashboard_url")

    def _result(self, key: str) -> str:
        task_id = self.child_id("create_cluster")  # type: ignore[no-untyped-call]
        return f"{{{{ task_instance.xcom_pull(task_ids='{task_id}')['{key}'] }}}}"

    def __enter__(self) -> VertexRayCluster:
        """Begin the group, with its set-up task."""
        super().__enter__()
        try:
            self._set_up = VertexRayCreateClusterOperator(task_id="create_cluster", **self._connection, **self._create)
            self._set_up.as_setup()  # type: ignore[no-untyped-call]
        except BaseException as error:
            # Nobody ends a block that has not begun.
            super().__exit__(type(error), error, None)  # type: ignore[no-untyped-call]
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the group: give the tasks their cluster, and put them between set-up and teardown."""
        try:
            if kind is None and self._set_up is not None:
                self._wire(self._set_up)
        finally:
            super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def _wire(self, set_up: VertexRayCreateClusterOperator) -> None:
        inside = [task for task in _tasks(self) if task is not set_up]
        for task in inside:
            self._fill(task)
        ids = {task.task_id for task in inside}
        first = [task for task in inside if not task.upstream_task_ids & ids]
        last = [task for task in inside if not task.downstream_task_ids & ids]
        tear_down = self._tear_down(ids)
        for task in first:
            set_up.set_downstream(task)
        if tear_down is None:
            return
        for task in last:
            task.set_downstream(tear_down)
        # With "on_failure_fail_dagrun", a teardown that succeeds would hide that a task before it failed.
        tear_down.as_teardown(setups=set_up)

    def _tear_down(self, inside: set[str]) -> VertexRayDeleteClusterOperator | VertexRayReleaseClusterOperator | None:
        common = {"cluster_id": self.cluster_id, **self._connection}
        if self._delete == "always":
            return VertexRayDeleteClusterOperator(task_id="delete_cluster", **self._deferrable, **common)
        if self._delete == "on_success":
            return _DeleteUnlessFailedOperator(
                task_id="delete_cluster", inside=sorted(inside), **self._deferrable, **common
            )
        if self._lease:
            return VertexRayReleaseClusterOperator(
                task_id="release_cluster", lease_uri=str(self._lease["lease_uri"]), **common
            )
        return None

    def _fill(self, task: Any) -> None:
        """Give a task of this package what it names nothing for."""
        if not type_of(task).__module__.startswith(__name__.partition(".")[0]):
            return
        wanted = {"cluster_id": self.cluster_id, **self._connection, **self._lease}
        names = set(type_of(task).template_fields) | ({"lease_ttl"} if hasattr_of(task, "lease_ttl") else set())
        for name, value in wanted.items():
            if name in names and _is_open(task, name):
                _give(task, name, value)


class _DeleteUnlessFailedOperator(VertexRayDeleteClusterOperator):
    """Deletes the cluster unless a task has failed that used it.

    :param inside: Ids of these tasks.
    """

    def __init__(self, *, inside: Iterable[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inside = list(inside)

    def execute(self, context: Context) -> Any:
        """Look at the tasks, then delete."""
        failed = sorted(name for name, state in states_of(context, self.inside).items() if state in NOT_WELL)
        if not failed:
            return super().execute(context)
        name = self._name(str(self.cluster_id))
        self.log.warning(
            "Cluster %s stays, and costs money until it is deleted, because these failed: %s", name, ", ".join(failed)
        )
        return {"cluster_id": name.cluster_id, "name": name.full, "existed": True, "kept_for": failed}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _tasks(group: TaskGroup) -> list[Any]:
    found: list[Any] = []
    for child in group.children.values():
        found += _tasks(child) if isinstance(child, TaskGroup) else [child]
    return found


def type_of(task: Any) -> type[Any]:
    """The operator class of a task, mapped or not."""
    found = getattr(task, "operator_class", None)
    return found if isinstance(found, type) else type(task)


def hasattr_of(task: Any, name: str) -> bool:
    """Whether a task, mapped or not, takes an argument of that name."""
    return any(name in inspect.signature(kind).parameters for kind in type_of(task).__mro__ if kind is not object)


def _is_open(task: Any, name: str) -> bool:
    """Whether a task has nothing of its own for an argument."""
    default = {"gcp_conn_id": "google_cloud_default", "lease_ttl": LEASE_TTL}.get(name)
    partial = getattr(task, "partial_kwargs", None)
    if partial is None:
        return bool(getattr(task, name, None) == default)
    expanded = getattr(getattr(task, "expand_input", None), "value", None)
    return bool(partial.get(name, default) == default) and not (isinstance(expanded, dict) and name in expanded)


def _give(task: Any, name: str, value: Any) -> None:
    if getattr(task, "partial_kwargs", None) is None:
        setattr(task, name, value)
    else:
        task.partial_kwargs[name] = value
