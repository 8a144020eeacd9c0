"""Clusters as tasks: create, get, list, resize, delete."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_vertex_ray.cluster_name import ClusterName
from airflow_provider_vertex_ray.cluster_spec import ClusterSpec
from airflow_provider_vertex_ray.cluster_state import Cluster, ClusterState
from airflow_provider_vertex_ray.deadlines import deadline_after
from airflow_provider_vertex_ray.errors import ClusterExistsError, VertexRayError, error_from_dict
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.cluster import (
    VertexRayClusterLink,
    VertexRayClusterListLink,
    VertexRayDashboardLink,
    VertexRayLogsLink,
)
from airflow_provider_vertex_ray.operators.base import (
    VertexRayBaseOperator,
    deferrable_by_default,
    positive,
    task_owner,
)
from airflow_provider_vertex_ray.spec_error import SpecError
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster import (
    VertexRayClusterDeleteTrigger,
    VertexRayClusterReadyTrigger,
    VertexRayClusterResizeTrigger,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

OWNER_LABEL = "airflow-owner"
CLEAN_UP_TIMEOUT = 3600.0
"""Seconds for the deletion of a cluster whose creation failed: PROVISIONING has to end first."""


def label_value(text: str) -> str:
    """A text as a label's value: at most 63 lower-case letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63].strip("-_")


class VertexRayCreateClusterOperator(VertexRayBaseOperator):
    """Creates a Ray cluster and waits until it is RUNNING and its dashboard answers.

    The cluster lives, and costs money, until it is deleted: put a ``VertexRayDeleteClusterOperator`` behind it as
    teardown. A retry of this task finds the cluster that an earlier try started, by its labels, instead of failing.

    Returns ``Cluster.summary()``: ``cluster_id``, ``name``, ``state``, ``node_count``, ``pools``, ``dashboard_url``, ….

    :param cluster_id: The id; 1 to 63 of ``[a-z0-9-]``, beginning with a letter. The service blocks the id of a deleted
        cluster for up to 2 hours, so use one that changes with the run. (templated)
    :param spec: A ``ClusterSpec``, or a dict of its fields. (templated)
    :param provision_timeout: Seconds until RUNNING with a dashboard that answers; creation takes 10 to 20 minutes.
    :param dashboard_timeout: Seconds that the dashboard may need after RUNNING.
    :param delete_on_failure: Whether a cluster that this task started is deleted when it does not become ready.
    :param poll_interval: Seconds between two looks at the cluster.
    :param deferrable: Wait in the triggerer, without a worker slot; default: ``[operators] default_deferrable``.

    Raises SpecError before any call for wrong input; from the service QuotaExceededError, StockoutError,
    NetworkExhaustedError, NameNotReusableError, ClusterExistsError, NotAuthorisedError, InvalidRequestError; and
    ClusterFailedError, ProvisioningTimeoutError, DashboardNotReadyError.
    """

    template_fields: Sequence[str] = ("cluster_id", "spec", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = (VertexRayClusterLink(), VertexRayDashboardLink(), VertexRayLogsLink())

    def __init__(
        self,
        *,
        cluster_id: str,
        spec: ClusterSpec | dict[str, Any],
        provision_timeout: float = 3600.0,
        dashboard_timeout: float = 600.0,
        delete_on_failure: bool = True,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_cluster_id(cluster_id)
        # Judged at DAG parse, kept as a dict so that Airflow renders the templates in it.
        self.spec = ClusterSpec.from_value(spec).to_dict()
        positive("provision_timeout", provision_timeout, none_allowed=False)
        positive("dashboard_timeout", dashboard_timeout, none_allowed=False)
        positive("poll_interval", poll_interval, none_allowed=False)
        self.cluster_id = cluster_id
        self.provision_timeout = provision_timeout
        self.dashboard_timeout = dashboard_timeout
        self.delete_on_failure = delete_on_failure
        self.poll_interval = poll_interval
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable
        self._started: ClusterName | None = None

    def execute(self, context: Context) -> Any:
        """Start the creation, then wait."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        spec = ClusterSpec.from_value(self.spec)
        spec.validate()
        name = self._name(self.cluster_id)
        for warning in spec.warnings():
            self.log.warning("%s", warning)
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        operation = run_sync(lambda: self._create(name, spec, context))
        self._started = name
        trigger = VertexRayClusterReadyTrigger(
            cluster_name=name.full,
            operation=operation,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.provision_timeout),
            dashboard_timeout=self.dashboard_timeout,
            created_at=time.time(),
            carry={"cluster_name": name.full},
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    async def _create(self, name: ClusterName, spec: ClusterSpec, context: Context) -> str | None:
        owner, parts = task_owner(context)
        labels = {
            OWNER_LABEL: owner,
            "airflow-dag": label_value(parts["dag_id"]),
            "airflow-run": label_value(parts["run_id"]),
            "airflow-task": label_value(parts["task_id"]),
            "vertex-ray-spec": spec.spec_hash(),
        }
        hook = self.cluster_hook
        async with hook.session():
            try:
                operation = await hook.create_cluster(name.full, spec, labels)
            except ClusterExistsError as error:
                cluster = await hook.get_cluster(name.full)
                if cluster.labels.get(OWNER_LABEL) != owner:
                    whose = cluster.labels.get("airflow-dag")
                    by = f" by DAG {whose}, task {cluster.labels.get('airflow-task')}" if whose else ""
                    raise ClusterExistsError(
                        f"cluster_id={name.cluster_id!r}: {error.message} It is {cluster.state.value}, "
                        f"created {cluster.create_time}{by}.",
                        error.details,
                    ) from error
                self.log.info("Cluster %s was started by an earlier try of this task; going on with it", name.full)
                return None
        self.log.info("Creating cluster %s with %d nodes", name.full, spec.node_count())
        return operation

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the cluster, or clean up and raise why there is none."""
        try:
            result = result_of(event)
        except VertexRayError as error:
            name = ((event or {}).get("carry") or {}).get("cluster_name")
            if not self.delete_on_failure or name is None:
                raise
            self.log.error("%s", error)
            self.log.info("Deleting what was started of %s", name)
            trigger = VertexRayClusterDeleteTrigger(
                cluster_name=name,
                poll_interval=self.poll_interval,
                deadline=deadline_after(CLEAN_UP_TIMEOUT),
                carry={"error": error.to_dict()},
                **self._connection_arguments(),
            )
            return dict(self._wait(context, trigger, self.deferrable, "clean_up_complete"))
        dashboard = str(result["dashboard_url"] or "").removeprefix("https://")
        persist_link_facts(
            context,
            project_id=result["project_id"],
            location=result["location"],
            cluster_id=result["cluster_id"],
            dashboard_uri=dashboard,
        )
        return result

    def clean_up_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Raise why the creation failed, now that nothing is left of it."""
        original = error_from_dict(((event or {}).get("carry") or {}).get("error") or {})
        try:
            result_of(event)
        except VertexRayError as left:
            raise type(original)(f"{original.message} Cleaning up failed: {left}", original.details) from left
        raise original

    def on_kill(self) -> None:
        """The task is killed while it waits in the worker: nobody would use the cluster that it started."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        if self._started is None or not self.delete_on_failure:
            return
        name = self._started.full
        self.log.info("The task was killed; deleting cluster %s", name)
        try:
            run_sync(lambda: self.cluster_hook.delete_cluster(name))
        except VertexRayError as error:
            # A cluster that is PROVISIONING can not be deleted, and there is no time to wait for that here.
            self.log.error("Cluster %s could not be deleted, so it will cost money: %s", name, error)


class VertexRayGetClusterOperator(VertexRayBaseOperator):
    """Reads one cluster and returns ``Cluster.summary()``.

    :param cluster_id: Id or full resource name. (templated)

    Raises ClusterNotFoundError, NotARayClusterError.
    """

    template_fields: Sequence[str] = ("cluster_id", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = (VertexRayClusterLink(), VertexRayDashboardLink(), VertexRayLogsLink())

    def __init__(self, *, cluster_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_cluster_id(cluster_id)
        self.cluster_id = cluster_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask the service."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._name(self.cluster_id)
        cluster = run_sync(lambda: self.cluster_hook.get_cluster(name.full)).require_ray()
        persist_cluster_facts(context, name, cluster)
        return cluster.summary()


class VertexRayListClustersOperator(VertexRayBaseOperator):
    """Lists the Ray clusters of a project and region; returns a list of ``Cluster.summary()``.

    :param labels: Only clusters that carry all of these labels. (templated)
    """

    template_fields: Sequence[str] = ("labels", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = (VertexRayClusterListLink(),)

    def __init__(self, *, labels: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.labels = labels

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Ask the service, page by page."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        project = self.project_id or self._connection_project()
        persist_link_facts(context, project_id=project)
        found = run_sync(lambda: self.cluster_hook.list_clusters(self.labels))
        for cluster in found:
            self.log.info("%s: %s, %d nodes", cluster.cluster_id, cluster.state.value, cluster.node_count)
        return [cluster.summary() for cluster in found]


class VertexRayResizeClusterOperator(VertexRayBaseOperator):
    """Changes the numbers of nodes of a cluster, waits, and verifies what came of it.

    The result is ``Cluster.summary()`` with ``live_nodes``: the nodes that Ray itself sees alive.

    :param cluster_id: Id or full resource name. (templated)
    :param replicas: New replica count by pool id, such as ``{"worker-pool1": 4}``; the head's pool counts its head too.
        Autoscaling pools can not be resized, and no pool goes below 1. (templated)
    :param resize_timeout: Seconds that it may take; the service takes a few minutes.
    :param poll_interval: Seconds between two looks.
    :param deferrable: Wait in the triggerer; default: ``[operators] default_deferrable``.

    Raises SpecError for counts that the service can not do, QuotaExceededError, StockoutError, PreconditionError,
    ResizeFailedError.
    """

    template_fields: Sequence[str] = ("cluster_id", "replicas", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = (VertexRayClusterLink(), VertexRayDashboardLink(), VertexRayLogsLink())
    _at_least: ClassVar[int] = 1

    def __init__(
        self,
        *,
        cluster_id: str,
        replicas: dict[str, int],
        resize_timeout: float = 1800.0,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_cluster_id(cluster_id)
        if isinstance(replicas, dict):
            if not replicas:
                raise SpecError("replicas", replicas, "give a new replica count for at least one pool")
            for pool, count in replicas.items():
                if isinstance(count, int) and count < self._at_least:
                    raise SpecError(f"replicas[{pool!r}]", count, "a pool has 1 to 1000 nodes")
        positive("resize_timeout", resize_timeout, none_allowed=False)
        positive("poll_interval", poll_interval, none_allowed=False)
        self.cluster_id = cluster_id
        self.replicas = replicas
        self.resize_timeout = resize_timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable

    def execute(self, context: Context) -> Any:
        """Start the resize, then wait."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._name(self.cluster_id)
        try:
            replicas = {str(pool): int(count) for pool, count in self.replicas.items()}
        except (TypeError, ValueError) as error:
            raise SpecError("replicas", self.replicas, "give whole numbers by pool id") from error
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        operation = run_sync(lambda: self.cluster_hook.resize_cluster(name.full, replicas))
        trigger = VertexRayClusterResizeTrigger(
            cluster_name=name.full,
            replicas=replicas,
            operation=operation,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.resize_timeout),
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the resized cluster, or raise why it is not."""
        return result_of(event)


class VertexRayDeleteClusterOperator(VertexRayBaseOperator):
    """Deletes a cluster and waits until it is gone, so that it stops costing money.

    A cluster that is not there is deleted already. One that is PROVISIONING can not be deleted yet: that is waited out.
    The result has ``cluster_id``, ``name`` and ``existed``.

    :param cluster_id: Id or full resource name. (templated)
    :param delete_timeout: Seconds that it may take, the end of PROVISIONING included.
    :param poll_interval: Seconds between two looks.
    :param deferrable: Wait in the triggerer; default: ``[operators] default_deferrable``.

    Raises NotAuthorisedError, OperationTimeoutError.
    """

    template_fields: Sequence[str] = ("cluster_id", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = (VertexRayClusterListLink(),)

    def __init__(
        self,
        *,
        cluster_id: str,
        delete_timeout: float = 3600.0,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_cluster_id(cluster_id)
        positive("delete_timeout", delete_timeout, none_allowed=False)
        positive("poll_interval", poll_interval, none_allowed=False)
        self.cluster_id = cluster_id
        self.delete_timeout = delete_timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable

    def execute(self, context: Context) -> Any:
        """Delete, in the trigger, because the first tries may be refused."""
        name = self._name(self.cluster_id)
        persist_link_facts(context, project_id=name.project)
        trigger = VertexRayClusterDeleteTrigger(
            cluster_name=name.full,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.delete_timeout),
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was deleted, or raise why it was not."""
        return result_of(event)


def persist_cluster_facts(context: Context, name: ClusterName, cluster: Cluster) -> None:
    """Keep the facts of a cluster for the links; without a dashboard while it has none."""
    usable = cluster.state in (ClusterState.RUNNING, ClusterState.UPDATING)
    persist_link_facts(
        context,
        project_id=name.project,
        location=name.location,
        cluster_id=name.cluster_id,
        dashboard_uri=cluster.dashboard_uri if usable else None,
    )
