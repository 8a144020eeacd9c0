"""Operator that deletes idle clusters, because Vertex AI has no idle timeout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import LONGEST_SECONDS, check_duration, is_number, unless_empty
from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.sharing.idle_policy import Unreadable
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.cluster import VertexRayClusterListLink
from airflow_provider_vertex_ray.operators.arguments import check_flags, check_mappings, resolve_deferrable
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, map_index_of
from airflow_provider_vertex_ray.operators.leases import check_lease, lease_owner_of
from airflow_provider_vertex_ray.operators.owner_labels import OWNER_LABEL
from airflow_provider_vertex_ray.operators.price_tables import check_price_table, load_price_table
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.idle import VertexRayReaperTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class VertexRayDeleteIdleClustersOperator(VertexRayBaseOperator):
    """Delete the idle Ray clusters of a region; meant for a DAG that runs every hour.

    A cluster is in use if it has a job or a Ray Client driver that has not ended or a live lease, or if one of these
    could not be read. The operator deletes clusters that were idle for ``idle_for``, clusters in ERROR and, once they
    were idle for 10 minutes (``idle_for``, if that is shorter), clusters that are older than ``max_age`` or superseded
    by a newer generation. Shared clusters whose lease is free are deleted without these 10 minutes, in which a run may
    be between two of its jobs. With ``lease_uri``, the operator closes the lease of a cluster before the final check,
    so that no run can acquire the lease between the check and the deletion.

    Returns ``clusters`` (for each: ``cluster_id``, ``name``, ``state``, ``action`` (``kept``, ``deleted`` or ``would
    delete``), ``why``, ``idle_seconds``, ``age_seconds`` and ``cost_so_far``), ``seen`` (the number of clusters),
    ``deleted`` (their IDs) and ``unreadable`` (for each cluster whose use could not be read, since when, and when last,
    as Unix times). The task log has one line for each cluster, and a warning for each that could not be read.

    :param idle_for: seconds for which a cluster must be idle before it is deleted.
    :param max_age: age in seconds, from RUNNING on, from which a cluster is deleted after 10 idle minutes. None: no
        limit.
    :param unreadable_for: seconds after which a cluster is deleted whose use could not be read all the time, for
        example because its head node is dead. What runs on it, if anything, is lost. None: it is never deleted. Since
        when a cluster could not be read comes from the XCom of the previous run, so the task must push its result.
    :param label_filter: only consider clusters with these labels; an empty value matches any value. Default: clusters
        that this package created. ``{}``: all Ray clusters of the region. (templated)
    :param dry_run: whether to only report what would be deleted.
    :param drain_timeout: seconds to wait until clusters that are too old or superseded were idle for long enough. Those
        that are not by then are left to the next run.
    :param lease_uri: Cloud Storage folder with the leases. None: only jobs and drivers on the cluster count as use.
        (templated)
    :param require_leases: whether the task fails at once if the leases cannot be read, or cannot be written (unless
        ``dry_run``). Otherwise it warns that they cannot be read, and no cluster is deleted, because each counts as in
        use.
    :param price_table: prices for ``cost_so_far``; see ``VertexRayClusterCostOperator``. (templated)
    :param delete_timeout: seconds within which all deletions must finish.
    :param poll_interval: seconds between two status requests.
    :param deferrable: whether to wait in the triggerer; default: ``[operators] default_deferrable``.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises NotAuthorisedError: the credentials lack a permission. For a deletion, as for all errors of single
        clusters: raised once the other clusters are checked and deleted.
    :raises LeaseStoreError: the leases cannot be read, and ``require_leases`` is set; or a lease cannot be closed.
    :raises OperationTimeoutError: a deletion did not finish within ``delete_timeout``.
    """

    template_fields: Sequence[str] = (
        "label_filter",
        "lease_uri",
        "price_table",
        *VertexRayBaseOperator.connection_fields,
    )
    operator_extra_links = (VertexRayClusterListLink(),)

    def __init__(
        self,
        *,
        idle_for: float = 3600.0,
        max_age: float | None = None,
        unreadable_for: float | None = None,
        label_filter: dict[str, str] | None = None,
        dry_run: bool = False,
        drain_timeout: float = 0.0,
        lease_uri: str | None = None,
        require_leases: bool = False,
        price_table: Any = None,
        delete_timeout: float = 3600.0,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_duration("idle_for", idle_for, none_allowed=False)
        check_duration("max_age", max_age)
        check_duration("unreadable_for", unreadable_for)
        check_duration("delete_timeout", delete_timeout, none_allowed=False)
        check_duration("poll_interval", poll_interval, none_allowed=False)
        if not is_number(drain_timeout) or not 0 <= drain_timeout <= LONGEST_SECONDS:
            rule = f"Use a number of seconds of 0 or more, up to {LONGEST_SECONDS:,}."
            raise InvalidArgumentError("drain_timeout", drain_timeout, rule)
        check_flags(dry_run=dry_run, require_leases=require_leases)
        check_mappings(label_filter=label_filter)
        check_lease(lease_uri)
        check_price_table(price_table)
        self.idle_for = idle_for
        self.max_age = max_age
        self.unreadable_for = unreadable_for
        self.label_filter = label_filter
        # Not "dry_run", which is a method of Airflow's operators.
        self.only_report = dry_run
        self.drain_timeout = drain_timeout
        self.lease_uri = lease_uri
        self.require_leases = require_leases
        self.price_table = price_table
        self.delete_timeout = delete_timeout
        self.poll_interval = poll_interval
        self.deferrable = resolve_deferrable(deferrable)

    def execute(self, context: Context) -> Any:
        """Run the trigger, which finds and deletes the clusters, because deletions are mostly waits."""
        lease_uri = unless_empty(self.lease_uri)
        check_lease(lease_uri)
        check_mappings(label_filter=self.label_filter)
        table = load_price_table(self, self.price_table)
        project = validate_project(self.project_id or self._connection_project())
        persist_link_facts(context, project_id=project)
        trigger = VertexRayReaperTrigger(
            project_id=project,
            location=validate_location(self.location),
            idle_for=self.idle_for,
            max_age=self.max_age,
            unreadable_for=self.unreadable_for,
            unreadable=self._unreadable_before(context) if self.unreadable_for is not None else None,
            labels={OWNER_LABEL: ""} if self.label_filter is None else self.label_filter,
            dry_run=self.only_report,
            drain_timeout=self.drain_timeout,
            lease_uri=lease_uri,
            require_leases=self.require_leases,
            by=lease_owner_of(context, None),
            prices=table.to_json() if table else None,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.drain_timeout + self.delete_timeout),
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def _unreadable_before(self, context: Context) -> dict[str, list[float]]:
        """Return which clusters could not be read in the previous run, and since when."""
        try:
            ti = context["ti"]
            # Without a map index, Airflow 3 returns a list with the results of all runs.
            found = ti.xcom_pull(task_ids=self.task_id, map_indexes=map_index_of(ti), include_prior_dates=True)
        except Exception:
            self.log.warning(
                "Could not read the result of the previous run; clusters that cannot be read count as such from now on",
                exc_info=True,
            )
            return {}
        before = found.get("unreadable") if isinstance(found, dict) else None
        return {
            str(name): state.to_json()
            for name, value in (before.items() if isinstance(before, dict) else ())
            if (state := Unreadable.of(value))
        }

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the clusters and what was done with each."""
        return result_of(event)
