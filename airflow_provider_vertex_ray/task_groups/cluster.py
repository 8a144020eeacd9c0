"""Task group with a cluster: set up before its tasks, torn down after them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import TaskGroup

from airflow_provider_vertex_ray.core.checks import check_choice
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator
from airflow_provider_vertex_ray.operators.leases import LEASE_TTL, VertexRayReleaseClusterOperator
from airflow_provider_vertex_ray.task_groups.task_states import FAILED_STATES, states_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

DELETE = ("never", "always", "on_success")


class VertexRayCluster(TaskGroup):
    """Task group whose tasks run on a cluster of the group.

    ``with VertexRayCluster("etl", shared_name="etl", spec=…, location="us-central1"):`` adds a setup task
    (``create_cluster``) before the tasks inside and, if the end of the group requires one, a teardown task after them.
    Both are Airflow's own setup and teardown tasks: the teardown also runs after a failure inside, and clearing a task
    inside also clears the setup. Tasks of this package inside the group that set no ``cluster_id`` use this cluster,
    including mapped tasks and tasks in nested groups. They also use its connection and its lease, unless they set their
    own.

    :param group_id: ID of the group.
    :param spec: spec of the cluster: a ``ClusterSpec``, or a dict of its fields.
    :param cluster_id: ID of a cluster that belongs to the group; use one that changes with the run, such as
        ``etl-{{ dag_run.start_date.strftime('%Y%m%dt%H%M%S') }}``.
    :param shared_name: name of a shared cluster, instead of ``cluster_id``.
    :param delete: when the teardown deletes the cluster: ``always``, ``on_success`` (only if no task inside failed;
        otherwise the cluster is kept for debugging and incurs charges) or ``never``. Default: ``always`` for
        ``cluster_id``, and ``never`` for ``shared_name``, because others may use the cluster; a
        ``VertexRayDeleteIdleClustersOperator`` deletes it.
    :param lease_uri: Cloud Storage folder with the leases of shared clusters; the teardown releases the run's lease.
    :param lease_ttl: seconds after which the lease expires unless it is renewed.
    :param deferrable: whether setup and teardown wait in the triggerer; default: the DAG's ``default_args``, else
        ``[operators] default_deferrable``.
    :param project_id: project ID; default: that of ``default_args``, else the project of the connection.
    :param location: region; default: that of ``default_args``.
    :param gcp_conn_id: Airflow connection to Google Cloud; default: that of ``default_args``, else
        ``google_cloud_default``.
    :param impersonation_chain: Service account to impersonate, or a list of accounts that ends with it.
    :param create: other arguments of ``VertexRayCreateClusterOperator``, such as ``max_age`` or ``provision_timeout``.
        Its ``lease_owner`` applies to all tasks of the group.
    :param kwargs: arguments of Airflow's ``TaskGroup``.
    :raises InvalidArgumentError: an argument is invalid; raised at DAG parse.
    """

    is_vertex_ray_cluster: ClassVar[bool] = True

    lease_tasks: set[str]
    """IDs of the tasks that use the group's cluster; they share one hold on it."""

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
            raise InvalidArgumentError("cluster_id", cluster_id, "Use either cluster_id or shared_name.")
        delete = delete or ("always" if shared_name is None else "never")
        check_choice("delete", delete, DELETE)
        if shared_name is not None and delete != "never":
            rule = (
                "Use never: others may use a shared cluster. VertexRayDeleteIdleClustersOperator deletes idle clusters."
            )
            raise InvalidArgumentError("delete", delete, rule)
        super().__init__(group_id, **kwargs)
        self.lease_tasks = set()
        parent = self.parent_group
        while parent is not None:
            if hasattr(parent, "_expand_input"):
                raise InvalidArgumentError("group_id", group_id, "A cluster cannot be inside a mapped task group.")
            parent = parent.parent_group
        self._delete = delete
        self._lease: dict[str, Any] = {} if lease_uri is None else {"lease_uri": lease_uri, "lease_ttl": lease_ttl}
        # All tasks of the group share one hold, so they need the same owner.
        self._owner = _given(lease_owner=(create or {}).get("lease_owner"))
        # Arguments that are not given are left out, so that the DAG's default_args apply.
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
        """Full name of the cluster, as a template for the templated fields of the tasks inside."""
        return self._result("name")

    @property
    def dashboard_url(self) -> str:
        """Address of the cluster's dashboard, as a template for the templated fields of the tasks inside."""
        return self._result("dashboard_url")

    def _result(self, key: str) -> str:
        task_id = self.child_id("create_cluster")  # type: ignore[no-untyped-call]
        return f"{{{{ task_instance.xcom_pull(task_ids='{task_id}')['{key}'] }}}}"

    def __enter__(self) -> VertexRayCluster:
        """Open the group and add its setup task."""
        super().__enter__()
        try:
            self._set_up = VertexRayCreateClusterOperator(task_id="create_cluster", **self._connection, **self._create)
            self._set_up.as_setup()  # type: ignore[no-untyped-call]
        except BaseException as error:
            # Python does not call __exit__ if __enter__ fails.
            super().__exit__(type(error), error, None)  # type: ignore[no-untyped-call]
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the group: set the cluster of its tasks, and put them between setup and teardown."""
        try:
            if kind is None and self._set_up is not None:
                self._wire(self._set_up)
        finally:
            super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def _wire(self, set_up: VertexRayCreateClusterOperator) -> None:
        inside = [task for task in _tasks(self) if task is not set_up]
        for task in inside:
            self._fill(task)
            if _argument(task, "cluster_id") == self.cluster_id:
                self.lease_tasks.add(task.task_id)
        self.lease_tasks.add(set_up.task_id)
        ids = {task.task_id for task in inside}
        first = [task for task in inside if not task.upstream_task_ids & ids]
        last = [task for task in inside if not task.downstream_task_ids & ids]
        tear_down = self._tear_down(ids)
        for task in first:
            set_up.set_downstream(task)
        if tear_down is None:
            return
        self.lease_tasks.add(tear_down.task_id)
        for task in last:
            task.set_downstream(tear_down)
        # Not "on_failure_fail_dagrun": a teardown that succeeds would hide the failure of a task before it.
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
                task_id="release_cluster", lease_uri=str(self._lease["lease_uri"]), **self._owner, **common
            )
        return None

    def _fill(self, task: Any) -> None:
        """Set the cluster, connection and lease of a task of this package, where it sets none itself."""
        if not _operator_class(task).__module__.startswith(__name__.partition(".")[0]):
            return
        values = {"cluster_id": self.cluster_id, **self._connection, **self._lease, **self._owner}
        names = set(_operator_class(task).template_fields)
        if _has_parameter(task, "lease_ttl"):
            names.add("lease_ttl")
        for name, value in values.items():
            if name in names and _is_unset(task, name):
                _set_argument(task, name, value)


class _DeleteUnlessFailedOperator(VertexRayDeleteClusterOperator):
    """Delete the cluster, unless a task that used it failed.

    :param inside: IDs of the tasks that use the cluster.
    """

    def __init__(self, *, inside: Iterable[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inside = list(inside)

    def execute(self, context: Context) -> Any:
        """Check the states of the tasks, then delete the cluster."""
        failed = sorted(name for name, state in states_of(context, self.inside).items() if state in FAILED_STATES)
        if not failed:
            return super().execute(context)
        name = self._name(str(self.cluster_id))
        self.log.warning(
            "Keeping cluster %s, which incurs charges until it is deleted, because these tasks failed: %s",
            name,
            ", ".join(failed),
        )
        return {"cluster_id": name.cluster_id, "name": name.full, "existed": True, "kept_for": failed}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _tasks(group: TaskGroup) -> list[Any]:
    found: list[Any] = []
    for child in group.children.values():
        found += _tasks(child) if isinstance(child, TaskGroup) else [child]
    return found


def _operator_class(task: Any) -> type[Any]:
    """Return the operator class of a task, mapped or not."""
    found = getattr(task, "operator_class", None)
    return found if isinstance(found, type) else type(task)


def _has_parameter(task: Any, name: str) -> bool:
    """Tell whether the operator class of a task, mapped or not, has a parameter."""
    classes = _operator_class(task).__mro__
    return any(name in inspect.signature(kind).parameters for kind in classes if kind is not object)


def _is_unset(task: Any, name: str) -> bool:
    """Tell whether a task leaves an argument at its default."""
    default = {"gcp_conn_id": "google_cloud_default", "lease_ttl": LEASE_TTL}.get(name)
    partial = getattr(task, "partial_kwargs", None)
    if partial is None:
        return bool(getattr(task, name, None) == default)
    expanded = getattr(getattr(task, "expand_input", None), "value", None)
    return bool(partial.get(name, default) == default) and not (isinstance(expanded, dict) and name in expanded)


def _argument(task: Any, name: str) -> Any:
    """Return an argument of a task, mapped or not."""
    partial = getattr(task, "partial_kwargs", None)
    return getattr(task, name, None) if partial is None else partial.get(name)


def _set_argument(task: Any, name: str, value: Any) -> None:
    if getattr(task, "partial_kwargs", None) is None:
        setattr(task, name, value)
    else:
        task.partial_kwargs[name] = value
