"""Creating a cluster, of one's own or to share."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_duration, has_template
from airflow_provider_vertex_ray.core.cluster.name import ClusterName, validate_location
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.sharing.generations import ON_SPEC_MISMATCH, SPEC_LABEL, validate_shared_name
from airflow_provider_vertex_ray.errors import ClusterExistsError, InvalidArgumentError, VertexRayError, error_from_dict
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS
from airflow_provider_vertex_ray.operators.base import (
    VertexRayBaseOperator,
    deferrable_by_default,
    task_owner,
)
from airflow_provider_vertex_ray.operators.cost import check_budget_input, load_price_table
from airflow_provider_vertex_ray.operators.leases import LEASE_TTL, check_lease, lease_owner_of
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterDeleteTrigger, VertexRayClusterReadyTrigger
from airflow_provider_vertex_ray.triggers.ensure import VertexRayClusterEnsureTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


OWNER_LABEL = "airflow-owner"
CLEAN_UP_TIMEOUT = 3600.0
"""Seconds for the deletion of a cluster whose creation failed: PROVISIONING has to end first."""


def label_value(text: str) -> str:
    """A text as a label's value: at most 63 lower-case letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63].strip("-_")


def owner_labels(context: Context) -> dict[str, str]:
    """The labels that say which task has created a cluster."""
    owner, parts = task_owner(context)
    return {
        OWNER_LABEL: owner,
        "airflow-dag": label_value(parts["dag_id"]),
        "airflow-run": label_value(parts["run_id"]),
        "airflow-task": label_value(parts["task_id"]),
    }


class VertexRayCreateClusterOperator(VertexRayBaseOperator):
    """Creates a Ray cluster and waits until it is RUNNING and its dashboard answers.

    With ``cluster_id`` the cluster is this task's own. It lives, and costs money, until it is deleted: put a
    ``VertexRayDeleteClusterOperator`` behind it as teardown. A retry of this task finds the cluster that an earlier try
    started, by its labels, instead of failing.

    With ``shared_name`` the task ensures that there is one: it uses the live generation of that name, whoever created
    it, waits while that is PROVISIONING or UPDATING, and creates the next one (``<shared_name>-g7``) when there is
    none, or when it is in ERROR, too old, or (``on_spec_mismatch="replace"``) another one than the spec asks for. Those
    who race end on one cluster. A ``VertexRayDeleteIdleClustersOperator`` deletes it once nobody uses it.

    Returns ``Cluster.summary()``: ``cluster_id``, ``name``, ``state``, ``node_count``, ``pools``, ``dashboard_url``, …;
    for a shared one also ``shared_name``, ``generation`` and ``lease_owner``.

    :param cluster_id: The id; 1 to 63 of ``[a-z0-9-]``, beginning with a letter. The service blocks the id of a deleted
        cluster for up to 2 hours, so use one that changes with the run. (templated)
    :param shared_name: The name by which the cluster is shared, instead of ``cluster_id``; 54 characters at most.
        (templated)
    :param spec: A ``ClusterSpec``, or a dict of its fields. (templated)
    :param on_spec_mismatch: What to do when the shared cluster was created with another spec: ``attach`` (use it, with
        a warning), ``fail``, or ``replace`` (create the next generation; the old one is deleted once it is not used).
    :param max_age: Seconds after which a shared cluster gets no new work: the next generation is created, and the old
        one deleted once nobody uses it. None: no limit. Google advises to recreate a cluster every 30 days.
    :param lease_uri: Folder in Cloud Storage, such as ``gs://bucket/leases``, in which those who use the shared cluster
        say so. None: only jobs and drivers on the cluster count as use. (templated)
    :param lease_ttl: Seconds for which this run holds the cluster, from now on; its jobs prolong it.
    :param lease_owner: Who holds it; default: ``<dag_id>/<run_id>``. (templated)
    :param max_cost: What a shared cluster may have cost so far, in the currency of ``price_table``, to get new work.
    :param price_table: Prices for ``max_cost``; see ``VertexRayClusterCostOperator``. (templated)
    :param provision_timeout: Seconds until RUNNING with a dashboard that answers; creation takes 10 to 20 minutes.
    :param dashboard_timeout: Seconds that the dashboard may need after RUNNING.
    :param delete_on_failure: Whether a cluster that this task started is deleted when it does not become ready.
    :param poll_interval: Seconds between two looks at the cluster.
    :param deferrable: Wait in the triggerer, without a worker slot; default: ``[operators] default_deferrable``.

    Raises InvalidArgumentError before any call for wrong input; from the service QuotaExceededError, StockoutError,
    NetworkExhaustedError, NameNotReusableError, ClusterExistsError, NotAuthorisedError, InvalidRequestError; and
    ClusterFailedError, ProvisioningTimeoutError, DashboardNotReadyError; for a shared cluster ClusterSpecMismatchError,
    BudgetExceededError.
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
        spec: ClusterSpec | dict[str, Any],
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (cluster_id is None) == (shared_name is None):
            raise InvalidArgumentError("cluster_id", cluster_id, "give either cluster_id or shared_name")
        if shared_name is None:
            self._checked_cluster_id(cluster_id)
            for field, given in (
                ("max_age", max_age),
                ("lease_uri", lease_uri),
                ("lease_owner", lease_owner),
                ("max_cost", max_cost),
            ):
                if given is not None:
                    raise InvalidArgumentError(field, given, "it goes with shared_name")
        elif isinstance(shared_name, str) and not has_template(shared_name):
            validate_shared_name(shared_name)
        if on_spec_mismatch not in ON_SPEC_MISMATCH:
            raise InvalidArgumentError(
                "on_spec_mismatch", on_spec_mismatch, f"use one of {', '.join(ON_SPEC_MISMATCH)}"
            )
        check_duration("max_age", max_age)
        check_lease(lease_uri, lease_ttl)
        check_budget_input(max_cost, price_table)
        # Judged at DAG parse, kept as a dict so that Airflow renders the templates in it.
        self.spec = ClusterSpec.from_value(spec).to_dict()
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
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable
        self._started: ClusterName | None = None

    def execute(self, context: Context) -> Any:
        """Start the creation, then wait."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        spec = ClusterSpec.from_value(self.spec)
        spec.validate()
        for warning in spec.warnings():
            self.log.warning("%s", warning)
        if self.shared_name is not None:
            return self._ensure(context, spec)
        name = self._name(str(self.cluster_id))
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

    async def _create(self, name: ClusterName, spec: ClusterSpec, context: Context) -> str | None:
        labels = {**owner_labels(context), SPEC_LABEL: spec.spec_hash()}
        owner = labels[OWNER_LABEL]
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
            # Of shared clusters only what failed here is deleted here.
            shared = error.details.get("cluster") if error.details.get("made_here") else None
            name = ((event or {}).get("passthrough") or {}).get("cluster_name") or shared
            if not self.delete_on_failure or name is None:
                raise
            self.log.error("%s", error)
            self.log.info("Deleting what was started of %s", name)
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
        return result

    def clean_up_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Raise why the creation failed, now that nothing is left of it."""
        original = error_from_dict(((event or {}).get("passthrough") or {}).get("error") or {})
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
