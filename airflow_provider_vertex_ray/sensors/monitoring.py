"""Sensor that waits for a condition on a metric of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_vertex_ray.core.checks import known_at_run_time
from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.core.monitoring.condition import MetricCondition
from airflow_provider_vertex_ray.core.monitoring.metric_query import check_metric, check_promql, metric_query
from airflow_provider_vertex_ray.errors import InvalidArgumentError, OperationTimeoutError, VertexRayError
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.triggers.monitoring import VertexRayMetricTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

LINKS_SECONDS = 5.0
"""Seconds to wait for the address of the dashboard; without it, only its link is missing."""


class VertexRayMetricSensor(VertexRayBaseSensor):
    """Wait until a metric of a cluster has met a condition for some time.

    Returns ``cluster_id``, ``promql``, ``condition``, ``since`` (unix time of the first sample of the unbroken period
    in which the condition held, looking back at most twice ``for_seconds``), ``value`` (of the last sample) and ``at``
    (its time). A missing sample does not meet the condition, and ends the period. The sensor keeps waiting on 429, on
    5xx and when Cloud Monitoring does not answer.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param metric: ``cpu``, ``memory``, ``gpu`` (percent), ``tasks``, ``actors`` or ``nodes``. (templated)
    :param promql: custom PromQL query, instead of ``metric``. If it returns several series, all must meet the
        condition. (templated)
    :param comparison: ``<``, ``<=``, ``>``, ``>=``, ``==`` or ``!=``.
    :param threshold: number to compare the metric with.
    :param for_seconds: seconds for which the condition must hold, up to a week; 0: the last sample is enough.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises InvalidRequestError: Cloud Monitoring rejected the query.
    :raises MetricsNotAuthorisedError: the credentials lack the permission to read metrics.
    :raises AirflowSensorTimeout: the timeout expired.
    """

    template_fields: Sequence[str] = ("cluster_id", "metric", "promql", *VertexRayBaseSensor.connection_fields)
    operator_extra_links = CLUSTER_LINKS
    timeout_errors = (OperationTimeoutError,)

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        metric: str | None = None,
        promql: str | None = None,
        comparison: str,
        threshold: float,
        for_seconds: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        cluster_id = self._checked_cluster_id(cluster_id)
        if (metric is None) == (promql is None):
            raise InvalidArgumentError("metric", metric, "Use either metric or promql.")
        if metric is not None and not known_at_run_time(metric):
            check_metric(metric, "metric")
        if promql is not None and not known_at_run_time(promql):
            check_promql(promql, "promql")
        MetricCondition(comparison, threshold, for_seconds)
        self.cluster_id = cluster_id
        self.metric = metric
        self.promql = promql
        self.comparison = comparison
        self.threshold = threshold
        self.for_seconds = for_seconds

    def _check(self, context: Context) -> PokeReturnValue:
        """Check the condition, with the code of the trigger."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        trigger = self.trigger(None)
        found = run_sync(lambda: trigger.look(trigger.hook))
        held = isinstance(found, dict)
        return PokeReturnValue(held, found if held else None)

    def trigger(self, deadline: float | None) -> VertexRayMetricTrigger:
        """Return the trigger that waits for the same condition."""
        return VertexRayMetricTrigger(
            cluster_name=self._name(self.cluster_id).full,
            promql=self._query(),
            comparison=self.comparison,
            threshold=self.threshold,
            for_seconds=self.for_seconds,
            poll_interval=self.poke_interval,
            deadline=deadline,
            **self._connection_arguments(),
        )

    def _query(self) -> str:
        """Return the PromQL query, from the rendered arguments.

        :raises InvalidArgumentError: the metric does not exist, or the query is empty.
        """
        if self.metric is not None:
            return metric_query(self.metric, self._name(self.cluster_id).cluster_id)
        check_promql(self.promql, "promql")
        return str(self.promql)

    def _keep_link_facts(self, context: Context, **more: str | None) -> None:
        if self._kept is None:
            shown = " ".join(self._query().split())
            super()._keep_link_facts(context, promql=shown, dashboard_uri=self._dashboard(), **more)

    def _dashboard(self) -> str | None:
        """Return the address of the dashboard, if the cluster still exists."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        name = self._name(self.cluster_id)
        try:
            return run_sync(lambda: within(LINKS_SECONDS, self.cluster_hook.get_cluster(name))).dashboard_uri
        except (VertexRayError, asyncio.TimeoutError) as error:
            self.log.info("The task has no link to the dashboard: %s", error)
            return None
