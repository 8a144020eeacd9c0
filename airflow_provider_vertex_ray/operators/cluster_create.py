"""Operator that creates a cluster: one of the task's own, or a shared one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_duration, has_template
from airflow_provider_vertex_ray.core.cluster.name import ClusterName, validate_location
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.sharing.generations import ON_SPEC_MISMATCH, SPEC_LABEL, validate_shared_name
from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    InvalidArgumentError,
    NameNotReusableError,
    VertexRayError,
    error_from_dict,
)
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.arguments import (
    check_flags,
    check_strings,
    resolve_deferrable,
)
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, task_owner
from airflow_provider_vertex_ray.operators.google_arguments import either, flat_spec, generated_cluster_id
from airflow_provider_vertex_ray.operators.leases import LEASE_TTL, check_lease, lease_owner_of
from airflow_provider_vertex_ray.operators.owner_labels import OWNER_LABEL, owner_labels
from airflow_provider_vertex_ray.operators.price_tables import check_cost_limit, load_price_table
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterDeleteTrigger, VertexRayClusterReadyTrigger
from airflow_provider_vertex_ray.triggers.ensure import VertexRayClusterEnsureTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

GENERATED_IDS = 10
"""Maximum number of generated IDs that are tried; each one but the last is of a cluster that was deleted recently."""

CLEAN_UP_TIMEOUT = 3600.0
"""Seconds within which a cluster whose creation failed must be deleted; the service first ends PROVISIONING."""


class VertexRayCreateClusterOperator(VertexRayBaseOperator):
    """Create a Ray cluster and wait until it is RUNNING and its dashboard answers.

    With ``cluster_id``, the cluster belongs to this task. It incurs charges until it is deleted, so add a
    ``VertexRayDeleteClusterOperator`` as teardown. A retry finds the cluster that an earlier try created by its labels,
    and does not fail.

    With ``shared_name``, the task ensures that a shared cluster exists. It uses the live generation of that name,
    whoever created it, and waits while that generation is PROVISIONING or UPDATING. It creates the next generation
    (such as ``<shared_name>-g7``) if none is live, or if the live one is in ERROR, older than ``max_age``, or (with
    ``on_spec_mismatch="replace"``) does not match the spec. Concurrent tasks end up on the same cluster. A
    ``VertexRayDeleteIdleClustersOperator`` deletes the cluster once it is idle.

    Returns ``Cluster.summary()``: ``cluster_id``, ``name``, ``state``, ``node_count``, ``pools``, ``dashboard_url`` and
    more; for a shared cluster also ``shared_name``, ``generation`` and ``lease_owner``.

    :param spec: spec of the cluster: a ``ClusterSpec``, or a dict of its fields; default: ``ClusterSpec()`` with the
        fields that are set as arguments. (templated)
    :param cluster_id: cluster ID: 1 to 63 characters of ``[a-z0-9-]``, starting with a letter. Vertex AI blocks the ID
        of a deleted cluster for up to 2 hours, so use an ID that changes with the run. None generates one from the task
        instance; it is the XCom ``cluster_id``. (templated)
    :param shared_name: name of a shared cluster, instead of ``cluster_id``; at most 54 characters. (templated)
    :param on_spec_mismatch: what to do if the shared cluster was created with another spec: ``attach`` (use it and log
        a warning), ``fail``, or ``replace`` (create the next generation; the old one is deleted once it is idle).
    :param max_age: seconds after which a shared cluster takes no new work: the next generation is created, and the old
        one is deleted once it is idle. None: no limit. Google recommends recreating a cluster every 30 days.
    :param lease_uri: Cloud Storage folder for leases, such as ``gs://bucket/leases``, which mark a shared cluster as in
        use. None: only jobs and drivers on the cluster count as use. (templated)
    :param lease_ttl: seconds after which this run's lease expires; the jobs of the run renew it.
    :param lease_owner: owner of the lease; default: ``<dag_id>/<run_id>``. (templated)
    :param max_cost: fail if the shared cluster has already cost more than this amount, in the currency of
        ``price_table``. None: no limit.
    :param price_table: prices for ``max_cost``; see ``VertexRayClusterCostOperator``. (templated)
    :param provision_timeout: seconds within which the cluster must be RUNNING with a dashboard that answers; creation
        takes 10 to 20 minutes.
    :param dashboard_timeout: seconds within which the dashboard must answer once the cluster is RUNNING.
    :param delete_on_failure: whether to delete a cluster that this task created and that did not become ready.
    :param poll_interval: seconds between two status requests.
    :param deferrable: whether to wait in the triggerer, without a worker slot; default:
        ``[operators] default_deferrable``.
    :param cluster_name: name of ``cluster_id`` in the Google provider.
    :param head_node_type: field of the spec, as in the Google provider.
    :param worker_node_types: field of the spec, as in the Google provider.
    :param ray_version: field of the spec, as in the Google provider.
    :param python_version: field of the spec, as in the Google provider.
    :param network: field of the spec, as in the Google provider.
    :param service_account: field of the spec, as in the Google provider.
    :param custom_images: field of the spec, as in the Google provider.
    :param enable_metrics_collection: field of the spec, as in the Google provider.
    :param enable_logging: field of the spec, as in the Google provider.
    :param psc_interface_config: field of the spec, as in the Google provider.
    :param reserved_ip_ranges: field of the spec, as in the Google provider.
    :param labels: field of the spec, as in the Google provider.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises InvalidRequestError: Vertex AI rejected the spec.
    :raises NotAuthorisedError: the credentials lack a permission.
    :raises QuotaExceededError: the training quota does not cover the cluster.
    :raises StockoutError: the region has no capacity for the requested machines.
    :raises NetworkExhaustedError: the peered network has no free IP range.
    :raises NameNotReusableError: a cluster with this ID was deleted a short time ago.
    :raises ClusterExistsError: a cluster with this ID exists and was not created by this task instance.
    :raises ClusterFailedError: the cluster went into state ERROR.
    :raises ProvisioningTimeoutError: the cluster was not RUNNING within ``provision_timeout``.
    :raises DashboardNotReadyError: the dashboard did not answer within ``dashboard_timeout``.
    :raises ClusterSpecMismatchError: the shared cluster has another spec, and ``on_spec_mismatch`` is ``fail``.
    :raises BudgetExceededError: the shared cluster has already cost more than ``max_cost``.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "shared_name",
        "spec",
        "lease_uri",
        "lease_owner",
        "price_table",
        *VertexRayBaseOperator.connection_fields,
    )
    operator_extra_links = CLUSTER_LINKS

    def __init__(
        self,
        *,
        spec: ClusterSpec | dict[str, Any] | None = None,
        cluster_id: str | None = None,
        shared_name: str | None = None,
        on_spec_mismatch: str = "attach",
        max_age: float | None = None,
        lease_uri: str | None = None,
        lease_ttl: float = LEASE_TTL,
        lease_owner: str | None = None,
        max_cost: float | None = None,
        price_table: Any = None,
        provision_timeout: float = 3600.0,
        dashboard_timeout: float = 600.0,
        delete_on_failure: bool = True,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        cluster_name: str | None = None,
        head_node_type: Any = None,
        worker_node_types: Sequence[Any] | None = None,
        ray_version: str | None = None,
        python_version: str | None = None,
        network: str | None = None,
        service_account: str | None = None,
        custom_images: Any = None,
        enable_metrics_collection: bool | None = None,
        enable_logging: bool | None = None,
        psc_interface_config: Any = None,
        reserved_ip_ranges: Sequence[str] | None = None,
        labels: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = either("cluster_id", cluster_id, "cluster_name", cluster_name)
        if cluster_id is not None and shared_name is not None:
            raise InvalidArgumentError("cluster_id", cluster_id, "Use either cluster_id or shared_name.")
        check_strings(shared_name=shared_name, lease_owner=lease_owner)
        check_flags(delete_on_failure=delete_on_failure)
        if shared_name is None:
            if cluster_id is not None:
                self._checked_cluster_id(cluster_id)
            for field, given in (
                ("max_age", max_age),
                ("lease_uri", lease_uri),
                ("lease_owner", lease_owner),
                ("max_cost", max_cost),
            ):
                if given is not None:
                    raise InvalidArgumentError(field, given, "It applies to a shared cluster only; set shared_name.")
        elif isinstance(shared_name, str) and not has_template(shared_name):
            validate_shared_name(shared_name)
        if on_spec_mismatch not in ON_SPEC_MISMATCH:
            raise InvalidArgumentError(
                "on_spec_mismatch", on_spec_mismatch, f"Use one of {', '.join(ON_SPEC_MISMATCH)}."
            )
        check_duration("max_age", max_age)
        check_lease(lease_uri, lease_ttl)
        check_cost_limit(max_cost, price_table)
        self.spec = flat_spec(
            spec,
            {
                "head_node_type": head_node_type,
                "worker_node_types": worker_node_types,
                "ray_version": ray_version,
                "python_version": python_version,
                "network": network,
                "service_account": service_account,
                "custom_images": custom_images,
                "enable_metrics_collection": enable_metrics_collection,
                "enable_logging": enable_logging,
                "psc_interface_config": psc_interface_config,
                "reserved_ip_ranges": reserved_ip_ranges,
                "labels": labels,
            },
        )
        check_duration("provision_timeout", provision_timeout, none_allowed=False)
        check_duration("dashboard_timeout", dashboard_timeout, none_allowed=False)
        check_duration("poll_interval", poll_interval, none_allowed=False)
        self.cluster_id = cluster_id
        self.shared_name = shared_name
        self.on_spec_mismatch = on_spec_mismatch
        self.max_age = max_age
        self.lease_uri = lease_uri
        self.lease_ttl = lease_ttl
        self.lease_owner = lease_owner
        self.max_cost = max_cost
        self.price_table = price_table
        self.provision_timeout = provision_timeout
        self.dashboard_timeout = dashboard_timeout
        self.delete_on_failure = delete_on_failure
        self.poll_interval = poll_interval
        self.deferrable = resolve_deferrable(deferrable)
        self._started: ClusterName | None = None

    def execute(self, context: Context) -> Any:
        """Start the creation, then wait until the cluster is ready."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        spec = ClusterSpec.from_value(self.spec)
        spec.validate()
        for warning in spec.warnings():
            self.log.warning("%s", warning)
        if self.shared_name is not None:
            return self._ensure(context, spec)
        names = self._names(context)
        name, operation = run_sync(lambda: self._create_one_of(names, spec, context))
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        self._started = name
        trigger = VertexRayClusterReadyTrigger(
            cluster_name=name.full,
            operation=operation,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.provision_timeout),
            dashboard_timeout=self.dashboard_timeout,
            created_at=time.time(),
            passthrough={"cluster_name": name.full},
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def _ensure(self, context: Context, spec: ClusterSpec) -> Any:
        check_lease(self.lease_uri, self.lease_ttl)
        table = load_price_table(self, self.price_table)
        trigger = VertexRayClusterEnsureTrigger(
            shared_name=validate_shared_name(str(self.shared_name)),
            spec=spec.to_dict(),
            project_id=self.project_id or self._connection_project(),
            location=validate_location(self.location),
            labels=owner_labels(context),
            on_spec_mismatch=self.on_spec_mismatch,
            max_age=self.max_age,
            lease_uri=self.lease_uri,
            lease_ttl=self.lease_ttl,
            lease_owner=lease_owner_of(context, self.lease_owner),
            max_cost=self.max_cost,
            prices=table.to_json() if table else None,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.provision_timeout),
            dashboard_timeout=self.dashboard_timeout,
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def _names(self, context: Context) -> list[ClusterName]:
        """Return the name of the cluster or, if none is given, the generated ones in the order in which to try them."""
        if self.cluster_id is not None:
            return [self._name(self.cluster_id)]
        _, parts = task_owner(context)
        owner = parts["dag_id"], parts["run_id"], parts["task_id"], int(parts["map_index"])
        first = self._name(generated_cluster_id(*owner, 1))
        others = (generated_cluster_id(*owner, number) for number in range(2, GENERATED_IDS + 1))
        return [first, *(replace(first, cluster_id=other) for other in others)]

    async def _create_one_of(
        self, names: list[ClusterName], spec: ClusterSpec, context: Context
    ) -> tuple[ClusterName, str | None]:
        """Start the creation under the first name that is not blocked; return it and the operation."""
        for name in names[:-1]:
            try:
                return name, await self._create(name, spec, context)
            except NameNotReusableError as error:
                self.log.info("Vertex AI blocks the ID %s; trying the next one: %s", name.cluster_id, error.message)
        return names[-1], await self._create(names[-1], spec, context)

    async def _create(self, name: ClusterName, spec: ClusterSpec, context: Context) -> str | None:
        labels = {**owner_labels(context), SPEC_LABEL: spec.spec_hash()}
        owner = labels[OWNER_LABEL]
        # Before the request, and under the key of the Google provider: a task that deletes the cluster whatever happens
        # finds it there.
        context["ti"].xcom_push(key="cluster_id", value=name.cluster_id)
        hook = self.cluster_hook
        async with hook.session():
            try:
                operation = await hook.create_cluster(name, spec, labels)
            except ClusterExistsError as error:
                cluster = await hook.get_cluster(name)
                if cluster.labels.get(OWNER_LABEL) != owner:
                    whose = cluster.labels.get("airflow-dag")
                    by = f" by DAG {whose}, task {cluster.labels.get('airflow-task')}" if whose else ""
                    raise ClusterExistsError(
                        f"cluster_id={name.cluster_id!r}: {error.message} It is {cluster.state.value}, "
                        f"created {cluster.create_time}{by}.",
                        error.details,
                    ) from error
                self.log.info("Cluster %s was already started by an earlier attempt; waiting for it", name.full)
                return None
        self.log.info("Creating cluster %s with %d nodes", name.full, spec.node_count())
        return operation

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the cluster; or clean up, then raise the reason for the failure."""
        try:
            result = result_of(event)
        except VertexRayError as error:
            # A shared cluster is deleted only if this task created it.
            shared = error.details.get("cluster") if error.details.get("made_here") else None
            name = ((event or {}).get("passthrough") or {}).get("cluster_name") or shared
            if not self.delete_on_failure or name is None:
                raise
            self.log.error("%s", error)
            self.log.info("Cleaning up partially created cluster %s", name)
            trigger = VertexRayClusterDeleteTrigger(
                cluster_name=name,
                poll_interval=self.poll_interval,
                deadline=deadline_after(CLEAN_UP_TIMEOUT),
                passthrough={"error": error.to_dict()},
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
        context["ti"].xcom_push(key="cluster_id", value=result["cluster_id"])
        return result

    def clean_up_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Raise the reason for the failed creation, after the clean-up."""
        original = error_from_dict(((event or {}).get("passthrough") or {}).get("error") or {})
        try:
            result_of(event)
        except VertexRayError as left:
            raise type(original)(f"{original.message} The clean-up failed: {left}", original.details) from left
        raise original

    def on_kill(self) -> None:
        """Delete the cluster that this task created when the task is killed while it waits in the worker."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        if self._started is None or not self.delete_on_failure:
            return
        name = self._started.full
        self.log.info("The task was killed; deleting cluster %s", name)
        try:
            run_sync(lambda: self.cluster_hook.delete_cluster(name))
        except VertexRayError as error:
            # The service does not delete a cluster that is PROVISIONING, and a killed task has no time to wait.
            self.log.error("Could not delete cluster %s; it will incur charges until it is deleted: %s", name, error)
