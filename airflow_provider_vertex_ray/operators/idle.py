"""Deleting clusters that nobody uses: the service has no idle timeout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_duration
from airflow_provider_vertex_ray.core.cluster.name import validate_location
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.cluster import VertexRayClusterListLink
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator, deferrable_by_default
from airflow_provider_vertex_ray.operators.cluster_create import OWNER_LABEL
from airflow_provider_vertex_ray.operators.leases import check_lease, lease_owner_of
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.idle import VertexRayReaperTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class VertexRayDeleteIdleClustersOperator(VertexRayBaseOperator):
    """Deletes the Ray clusters of a region that nobody uses; made for a DAG that runs every hour.

    In use is a cluster with a job or a Ray Client driver that has not ended, with a live lease, or of which one of
    these can not be read. Deleted are those that were not in use for ``idle_for``, those in ERROR, and, as soon as they
    are not in use, those that are older than ``max_age`` or that a newer generation has taken the place of. With a
    ``lease_uri`` a cluster's lease is closed before it is looked at for the last time, so that no job that takes the
    lease can come in between.

    The result has ``clusters`` (for each: ``cluster_id``, ``name``, ``state``, ``action`` (``kept``, ``deleted`` or
    ``would delete``), ``why``, ``idle_seconds``, ``age_seconds``, ``cost_so_far``), ``seen`` (how many) and ``deleted``
    (their ids). The log has a line for each.

    :param idle_for: Seconds without use.
    :param max_age: Seconds after its creation from which a cluster goes as soon as nobody uses it. None: no limit.
    :param label_filter: Only clusters with these labels; an empty value stands for any. Default: those that this
        package has created. ``{}``: all Ray clusters of the region. (templated)
    :param dry_run: Only say what would be deleted.
    :param drain_timeout: Seconds for which the end of the use of clusters that are too old or superseded is waited for;
        what is in use then is left for the next run.
    :param lease_uri: Folder in Cloud Storage with the leases; None: jobs and drivers on the cluster alone count.
        (templated)
    :param price_table: Prices for ``cost_so_far``; see ``VertexRayClusterCostOperator``. (templated)
    :param delete_timeout: Seconds that the deletions may take.
    :param poll_interval: Seconds between two looks.
    :param deferrable: Wait in the triggerer; default: ``[operators] default_deferrable``.

    Raises InvalidArgumentError, NotAuthorisedError, OperationTimeoutError.
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
        label_filter: dict[str, str] | None = None,
        dry_run: bool = False,
        drain_timeout: float = 0.0,
        lease_uri: str | None = None,
        price_table: Any = None,
        delete_timeout: float = 3600.0,
        poll_interval: float = 15.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_duration("idle_for", idle_for, none_allowed=False)
        check_duration("max_age", max_age)
        check_duration("delete_timeout", delete_timeout, none_allowed=False)
        check_duration("poll_interval", poll_interval, none_allowed=False)
        if isinstance(drain_timeout, bool) or not isinstance(drain_timeout, (int, float)) or drain_timeout < 0:
            raise InvalidArgumentError("drain_timeout", drain_timeout, "give a number of seconds, 0 or more")
        check_lease(lease_uri)
        self.idle_for = idle_for
        self.max_age = max_age
        self.label_filter = label_filter
        # Not "dry_run": Airflow's operators have a method of that name.
        self.only_report = dry_run
        self.drain_timeout = drain_timeout
        self.lease_uri = lease_uri
        self.price_table = price_table
        self.delete_timeout = delete_timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable

    def execute(self, context: Context) -> Any:
        """Everything is done in the trigger: deleting is mostly waiting."""
        from airflow_provider_vertex_ray.operators.cost import load_price_table

        check_lease(self.lease_uri)
        table = load_price_table(self, self.price_table)
        project = self.project_id or self._connection_project()
        persist_link_facts(context, project_id=project)
        trigger = VertexRayReaperTrigger(
            project_id=project,
            location=validate_location(self.location),
            idle_for=self.idle_for,
            max_age=self.max_age,
            labels={OWNER_LABEL: ""} if self.label_filter is None else self.label_filter,
            dry_run=self.only_report,
            drain_timeout=self.drain_timeout,
            lease_uri=self.lease_uri,
            by=lease_owner_of(context, None),
            prices=table.to_json() if table else None,
            poll_interval=self.poll_interval,
            deadline=deadline_after(self.drain_timeout + self.delete_timeout),
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was seen and done."""
        return result_of(event)
