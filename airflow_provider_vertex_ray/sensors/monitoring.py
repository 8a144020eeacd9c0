"""Waiting for a condition on one of a cluster's metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.core.monitoring.condition import MetricCondition
from airflow_provider_vertex_ray.core.monitoring.metric_query import check_metric, check_promql, metric_query
from airflow_provider_vertex_ray.errors import InvalidArgumentError, OperationTimeoutError, VertexRayError
from airflow_provider_vertex_ray.links.link_sets import CLUSTER_LINKS
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.triggers.monitoring import VertexRayMetricTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

LINKS_SECONDS = 5.0
"""Seconds for the dashboard's address; without it a link is missing, and nothing else."""


class VertexRayMetricSensor(VertexRayBaseSensor):
    """Waits until a metric of a cluster has been above or below a number for some time.

    Returns ``cluster_id``, ``promql``, ``condition``, ``since`` (unix time of the first sample of the unbroken time in
    which it has held, as far back as twice ``for_seconds``), ``value`` (the last one) and ``at``. What is not known
    does not hold: a missing sample breaks the time, as one that does not fit does. 429, 5xx and silence are waited out.

    :param cluster_id: Id or full resource name. (templated)
    :param metric: ``cpu``, ``memory``, ``gpu`` (percent), ``tasks``, ``actors`` or ``nodes``. (templated)
    :param promql: A query of your own, in place of ``metric``; if it gives several series, all have to fit. (templated)
    :param comparison: ``<``, ``<=``, ``>``, ``>=``, ``==`` or ``!=``.
    :param threshold: The number that it is compared with.
    :param for_seconds: Seconds for which it has to be so, up to a week; 0: the last value is enough.

    Raises AirflowSensorTimeout, InvalidRequestError, MetricsNotAuthorisedError.
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
            raise InvalidArgumentError("metric", metric, "give either metric or promql")
        if metric is not None and not hasattr(metric, "iter_references"):
            check_metric(metric, "metric")
        if promql is not None and not has_template(promql) and not hasattr(promql, "iter_references"):
            check_promql(promql, "promql")
        MetricCondition(comparison, threshold, for_seconds)
        self.cluster_id = cluster_id
        self.metric = metric
        self.promql = promql
        self.comparison = comparison
        self.threshold = threshold
        self.for_seconds = for_seconds

    def poke(self, context: Context) -> PokeReturnValue:
        """One look, with the trigger's very code."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        trigger = self.trigger(None)
        found = run_sync(lambda: trigger.look(trigger.hook))
        held = isinstance(found, dict)
        return PokeReturnValue(held, found if held else None)

    def trigger(self, deadline: float | None) -> VertexRayMetricTrigger:
        """The same, from the triggerer."""
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
        """The PromQL, once everything is rendered.

        :raises InvalidArgumentError: There is no such metric, or the query is empty.
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
        """The dashboard's address, if the cluster is there to be asked."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._name(self.cluster_id)
        try:
            return run_sync(
                lambda: asyncio.wait_for(self.cluster_hook.get_cluster(name.full), LINKS_SECONDS)
            ).dashboard_uri
        except (VertexRayError, asyncio.TimeoutError) as error:
            self.log.info("No link to the dashboard: %s", error)
            return None
