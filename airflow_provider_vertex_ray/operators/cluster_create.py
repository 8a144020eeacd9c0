"""Operator that creates a cluster: one of the task's own, or a shared one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_choice, check_duration, has_template, unless_empty
from airflow_provider_vertex_ray.core.cluster.name import ClusterName, parse_cluster_name, validate_location
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.sharing.generations import ON_SPEC_MISMATCH, SPEC_LABEL, validate_shared_name
from airflow_provider_vertex_ray.core.sharing.regions import CAPACITY_ERRORS
from airflow_provider_vertex_ray.errors import ClusterExistsError, InvalidArgumentError, VertexRayError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import WHOLE_CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.arguments import (
    check_flags,
    check_locations,
    check_strings,
    resolve_deferrable,
)
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, task_owner, task_try
from airflow_provider_vertex_ray.operators.cluster_clean_up import ClusterCleanUpMixin
from airflow_provider_vertex_ray.operators.google_arguments import either, flat_spec, generated_cluster_id
from airflow_provider_vertex_ray.operators.leases import LEASE_TTL, check_lease, lease_holder_of, task_scope
from airflow_provider_vertex_ray.operators.owner_labels import OWNER_LABEL, owner_label, owner_labels
from airflow_provider_vertex_ray.operators.price_tables import check_cost_limit, check_prices, load_price_table
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterReadyTrigger
from airflow_provider_vertex_ray.triggers.ensure import VertexRayClusterEnsureTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.cluster.tries import Started


class VertexRayCreateClusterOperator(ClusterCleanUpMixin, VertexRayBaseOperator):
    """Create a Ray cluster and wait until it is RUNNING and its dashboard answers.

    With ``cluster_id``, the cluster belongs to this task. It incurs charges until it is deleted, so add a
    ``VertexRayDeleteClusterOperator`` as teardown. A retry finds the cluster that an earlier try created by its labels,
    and does not fail. While Vertex AI blocks the ID, because a cluster with it was deleted a short time ago (by the
    clean-up of an earlier try, or before the task was cleared), the cluster gets the ID ``<cluster_id>-2``,
    ``<cluster_id>-3``, and so on. So the tasks that use the cluster should take its name from this task's result, as
    those in a ``VertexRayCluster`` group do.

    With ``locations``, the task tries these regions in order: after a stockout or an exceeded quota, it goes on with
    the next one. The region is part of the result.

    With ``shared_name``, the task ensures that a shared cluster exists. It uses the live generation of that name,
    whoever created it, and waits while that generation is PROVISIONING or UPDATING. It creates the next generation
    (such as ``<shared_name>-g7``) if none is live, or if the live one is in ERROR, older than ``max_age``, or (with
    ``on_spec_mismatch="replace"``) does not match the spec. Concurrent tasks end up on the same cluster. A
    ``VertexRayDeleteIdleClustersOperator`` deletes the cluster once it is idle.

    Returns ``Cluster.summary()``: ``cluster_id``, ``name``, ``state``, ``node_count``, ``pools``, ``dashboard_url`` and
    more; for a shared cluster also ``shared_name``, ``generation`` and ``lease_owner``.

    :param spec: spec of the cluster: a ``ClusterSpec``, or a dict of its fields; default: ``ClusterSpec()`` with the
        fields that are set as arguments. (templated)
    :param cluster_id: cluster ID: 1 to 63 characters of ``[a-z0-9-]``, starting with a letter. Use an ID that changes
        with the run. None generates one from the task instance; it is the XCom ``cluster_id``. (templated)
    :param shared_name: name of a shared cluster, instead of ``cluster_id``; at most 54 characters. (templated)
    :param on_spec_mismatch: what to do if the shared cluster was created with another spec: ``attach`` (use it and log
        a warning), ``fail``, or ``replace`` (create the next generation; the old one is deleted once it is idle).
    :param max_age: seconds since a shared cluster was first RUNNING after which it takes no new work: the next
        generation is created, and the old one is deleted once it is idle. None: no limit. Google recommends 30 days.
    :param lease_uri: Cloud Storage folder for leases, such as ``gs://bucket/leases``, which mark a shared cluster as in
        use. None: only jobs and drivers on the cluster count as use. (templated)
    :param lease_ttl: seconds after which this run's lease expires; the jobs of the run renew it.
    :param lease_owner: owner of the lease; default: ``<dag_id>/<run_id>``. (templated)
    :param max_cost: fail if the shared cluster has already cost more than this amount, in the currency of
        ``price_table``. None: no limit.
    :param price_table: prices for ``max_cost``, and for the cost an hour that the task log tells during the creation;
        see ``VertexRayClusterCostOperator``. (templated)
    :param locations: regions to try in this order; takes precedence over ``location``. (templated)
    :param provision_timeout: seconds within which the cluster must be RUNNING with a dashboard that answers, in each
        region; creation takes 10 to 20 minutes.
    :param dashboard_timeout: seconds within which the dashboard must answer once the cluster is RUNNING.
    :param delete_on_failure: whether to delete a cluster that this task created and that did not become ready. The
        task waits for that, in the triggerer, for up to six hours, because Vertex AI deletes no cluster that is
        PROVISIONING.
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
    :raises VertexRayError: a node of the shared cluster has no price, which ``max_cost`` requires.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "shared_name",
        "spec",
        "lease_uri",
        "lease_owner",
        "price_table",
        "locations",
        *VertexRayBaseOperator.connection_fields,
    )
    operator_extra_links = WHOLE_CLUSTER_LINKS

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
        locations: Sequence[str] | None = None,
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
        check_choice("on_spec_mismatch", on_spec_mismatch, ON_SPEC_MISMATCH)
        if locations is not None:
            check_locations(locations)
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
        self.locations = locations
        self.provision_timeout = provision_timeout
        self.dashboard_timeout = dashboard_timeout
        self.delete_on_failure = delete_on_failure
        self.poll_interval = poll_interval
        self.deferrable = resolve_deferrable(deferrable)
        self._started: ClusterName | None = None

    def execute(self, context: Context) -> Any:
        """Start the creation, then wait until the cluster is ready."""
        spec = ClusterSpec.from_value(self.spec)
        spec.validate()
        for warning in spec.warnings():
            self.log.warning("%s", warning)
        places = self._places(spec)
        if self.shared_name is not None:
            return self._ensure(context, spec, places)
        names = self._names(context, places)
        # Before the request, and under the key of the Google provider: a task that deletes the cluster whatever happens
        # finds it there.
        context["ti"].xcom_push(key="cluster_id", value=names[0].cluster_id)
        return self._start(context, spec, names, [])

    def _places(self, spec: ClusterSpec) -> list[str]:
        """Return the regions to try, for each of which the spec is valid."""
        if self.locations:
            check_locations(self.locations)
            places = [validate_location(each, "locations") for each in self.locations]
        elif self.shared_name is not None:
            places = [validate_location(self.location)]
        else:
            places = [self._name(self.cluster_id or "any").location]
        for place in places:
            spec.to_persistent_resource(place)
        return places

    def _names(self, context: Context, places: Sequence[str]) -> list[ClusterName]:
        """Return the names to try, one for each region."""
        cluster_id = self.cluster_id
        if cluster_id is None:
            _, parts = task_owner(context)
            cluster_id = generated_cluster_id(
                parts["dag_id"], parts["run_id"], parts["task_id"], int(parts["map_index"])
            )
        if not self.locations:
            return [self._name(cluster_id)]
        if "/" in cluster_id:
            raise InvalidArgumentError("cluster_id", cluster_id, "Use an ID without a region; locations names it.")
        project = self.project_id or self._connection_project()
        return [parse_cluster_name(cluster_id, project, place) for place in places]

    def _start(self, context: Context, spec: ClusterSpec, names: list[ClusterName], leftovers: list[str]) -> Any:
        """Start the creation in the first region that accepts it, then wait until the cluster is ready."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        # Before the creation: a table that cannot be read must not leave a cluster behind.
        table = load_price_table(self, self.price_table, *(each.location for each in names))
        try:
            started, later = run_sync(lambda: self._create(names, spec, context))
        except ClusterExistsError:
            # It is somebody else's: a task that deletes what this one has made must not find it.
            context["ti"].xcom_push(key="cluster_id", value="")
            raise
        name = started.name
        if name.cluster_id != names[0].cluster_id:
            context["ti"].xcom_push(key="cluster_id", value=name.cluster_id)
        persist_link_facts(context, project_id=name.project, location=name.location, cluster_id=name.cluster_id)
        if self.delete_on_failure:
            leftovers = [*leftovers, *started.broken]
        self._started = name
        trigger = VertexRayClusterReadyTrigger(
            cluster_name=name.full,
            operation=started.operation,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.provision_timeout),
            dashboard_timeout=self.dashboard_timeout,
            created_at=time.time(),
            leftovers=leftovers,
            labels=owner_label(context),
            delete_on_kill=self.delete_on_failure,
            prices=table.to_json() if table else None,
            passthrough={"cluster_name": name.full, "later": [each.full for each in later], "leftovers": leftovers},
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def _ensure(self, context: Context, spec: ClusterSpec, places: list[str]) -> Any:
        lease_uri = unless_empty(self.lease_uri)
        check_lease(lease_uri, self.lease_ttl)
        holder = lease_holder_of(self, context, self.lease_owner, task_scope(context))
        table = load_price_table(self, self.price_table, *places)
        if self.max_cost is not None:
            # Before the creation, whose cluster could otherwise not be used.
            check_prices(spec, table, places)
        trigger = VertexRayClusterEnsureTrigger(
            shared_name=validate_shared_name(str(self.shared_name)),
            spec=spec.to_dict(),
            project_id=self.project_id or self._connection_project(),
            location=places[0],
            locations=places,
            labels=owner_labels(context),
            on_spec_mismatch=self.on_spec_mismatch,
            max_age=self.max_age,
            lease_uri=lease_uri,
            lease_ttl=self.lease_ttl,
            lease_owner=holder.owner,
            lease_scope=holder.scope,
            max_cost=self.max_cost,
            prices=table.to_json() if table else None,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.provision_timeout),
            dashboard_timeout=self.dashboard_timeout,
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    async def _create(
        self, names: list[ClusterName], spec: ClusterSpec, context: Context
    ) -> tuple[Started, list[ClusterName]]:
        """Start the creation; return the cluster, and the names in the regions after its own."""
        labels = {**owner_labels(context), SPEC_LABEL: spec.spec_hash()}
        from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
        from airflow_provider_vertex_ray.core.cluster.tries import ClusterTries

        async with self.cluster_hook.session() as (transport, _):
            tries = ClusterTries(ClustersApi(transport), spec, labels, OWNER_LABEL, self.log.info)
            # Only a retry or a cleared task can have a cluster whose id differs from the one that was asked for.
            found = await tries.find(names) if task_try(context).number > 1 else None
            if found is not None:
                self.log.info("Cluster %s was already started by an earlier attempt; waiting for it", found.name.full)
                places = [name.location for name in names]
                return found, names[places.index(found.name.location) + 1 :]
            for place, name in enumerate(names):
                try:
                    started = await tries.start(name)
                except CAPACITY_ERRORS as error:
                    if place == len(names) - 1:
                        raise
                    self.log.warning("%s\nTrying region %s", error, names[place + 1].location)
                    continue
                if not started.adopted:
                    self.log.info("Creating cluster %s with %d nodes", started.name.full, spec.node_count())
                return started, names[place + 1 :]
        raise InvalidArgumentError("locations", [], "Use at least one region.")

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the cluster; or try the next region; or clean up, then raise the reason for the failure."""
        try:
            result = result_of(event)
        except VertexRayError as error:
            return self._failed(context, error, (event or {}).get("passthrough") or {})
        for name in result.pop("leftovers", ()):
            self.log.warning(
                "Cluster %s of a failed attempt may still exist. VertexRayDeleteIdleClustersOperator finds it by its "
                "labels in its region",
                name,
            )
        cluster = {key: result[key] for key in ("project_id", "location", "cluster_id")}
        dashboard = str(result["dashboard_url"] or "").removeprefix("https://")
        persist_link_facts(context, **cluster, dashboard_uri=dashboard, shell_uri=result.get("shell_url"))
        if self.shared_name is not None:
            # Only now is it known which generation it is.
            context["ti"].xcom_push(key="cluster_id", value=result["cluster_id"])
        return result

    def _failed(self, context: Context, error: VertexRayError, known: dict[str, Any]) -> dict[str, Any]:
        """Try the next region after a stockout or an exceeded quota; otherwise clean up, then raise the error."""
        # A shared cluster is deleted only if this task created it, and then only if nobody uses it.
        shared = error.details.get("cluster") if error.details.get("made_here") else None
        name = known.get("cluster_name") or shared
        leftovers = [*(known.get("leftovers") or ()), *(error.details.get("leftovers") or ())]
        if name is not None and self.delete_on_failure:
            leftovers = list(dict.fromkeys([*leftovers, name]))
        later = [parse_cluster_name(each) for each in known.get("later") or ()]
        if later and isinstance(error, CAPACITY_ERRORS):
            self.log.warning("%s\nTrying region %s", error, later[0].location)
            try:
                return dict(self._start(context, ClusterSpec.from_value(self.spec), later, leftovers))
            except VertexRayError as last:
                return self._clean_up(context, last, leftovers)
        return self._clean_up(context, error, leftovers)

    def on_kill(self) -> None:
        """Delete the cluster that this task created when the task is killed while it waits in the worker."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        if self._started is None or not self.delete_on_failure:
            return
        name = self._started.full
        self.log.info("The task was killed; deleting cluster %s", name)
        try:
            run_sync(lambda: self.cluster_hook.delete_cluster(name))
        except VertexRayError as error:
            # The service does not delete a cluster that is PROVISIONING, and a killed task has no time to wait.
            self.log.error("Could not delete cluster %s; it will incur charges until it is deleted: %s", name, error)
