"""Waiting for a condition on a metric."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.core.monitoring.condition import ConditionResult, MetricCondition
from airflow_provider_vertex_ray.errors import OperationTimeoutError, RateLimitedError, ServiceUnavailableError
from airflow_provider_vertex_ray.triggers.base import WaitTrigger, pause, time_for_a_look

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.monitoring import VertexRayMonitoringAsyncHook


class VertexRayMetricTrigger(WaitTrigger):
    """Waits until a condition on a metric holds; the result is what ``VertexRayMetricSensor`` returns.

    An answer that does not come, and one of 429 or 5xx, is waited out: meanwhile nothing is known.

    :param cluster_name: Full resource name of the cluster.
    :param promql: The query.
    :param comparison: See ``MetricCondition``.
    :param threshold: The same.
    :param for_seconds: The same.
    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain.
    :param poll_interval: Seconds between two looks.
    :param deadline: Unix time at which the wait ends with an error; None for never.

    Errors: OperationTimeoutError, InvalidRequestError, MetricsNotAuthorisedError.
    """

    def __init__(
        self,
        *,
        cluster_name: str,
        promql: str,
        comparison: str,
        threshold: float,
        for_seconds: float = 0.0,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        poll_interval: float = 60.0,
        deadline: float | None = None,
    ) -> None:
        super().__init__(
            cluster_name=cluster_name,
            promql=promql,
            comparison=comparison,
            threshold=threshold,
            for_seconds=for_seconds,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            poll_interval=poll_interval,
            deadline=deadline,
        )
        self._name = parse_cluster_name(cluster_name)
        self._promql = promql
        self._condition = MetricCondition(comparison, threshold, for_seconds)
        self._poll_interval = poll_interval
        self._deadline = deadline
        self._said = ""

    async def wait(self) -> dict[str, Any]:
        """Look again and again."""
        hook = self.hook
        async with hook.session():
            while True:
                try:
                    found = await asyncio.wait_for(self.look(hook), time_for_a_look(self._deadline))
                except asyncio.TimeoutError:
                    found = self._unknown("no answer in time")
                if isinstance(found, dict):
                    return found
                if seconds_left(self._deadline) <= 0:
                    last = "nothing is known of it" if found.value is None else f"its last value is {found.value:g}"
                    raise OperationTimeoutError(
                        f"{self._promql} was not {self._condition} in time: {found.reason}; {last}.",
                        {"promql": self._promql, "value": found.value, "reason": found.reason},
                    )
                await pause(self._poll_interval, self._deadline)

    @property
    def hook(self) -> VertexRayMonitoringAsyncHook:
        """Metrics, through the task's connection."""
        from airflow_provider_vertex_ray.hooks.monitoring import VertexRayMonitoringAsyncHook

        return VertexRayMonitoringAsyncHook(
            self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"], self._name.project
        )

    async def look(self, hook: VertexRayMonitoringAsyncHook) -> dict[str, Any] | ConditionResult:
        """The result where the condition holds at this moment, else why it does not."""
        # As a request has it; or the last sample would seem to be of another time.
        now = round(time.time(), 3)
        start, end = self._condition.window(now)
        try:
            series = await hook.query_range(self._promql, start, end, self._condition.step)
        except (RateLimitedError, ServiceUnavailableError) as error:
            return self._unknown(error.message)
        verdict = self._condition.decide([each.points for each in series], end)
        if verdict.held is None:
            self._say(verdict.reason)
            return verdict
        return {
            "cluster_id": self._name.cluster_id,
            "promql": self._promql,
            "condition": str(self._condition),
            "since": verdict.held.since,
            "value": verdict.held.value,
            "at": now,
        }

    def _unknown(self, why: str) -> ConditionResult:
        self._say(f"it is not known: {why}")
        return ConditionResult(None, None, why)

    def _say(self, reason: str) -> None:
        # "it has held for 60 s" changes with each look; the words before the number tell enough.
        kind = reason.rstrip("0123456789.-+e s")
        if kind != self._said:
            self.log.info("%s is not %s yet: %s", self._promql, self._condition, reason)
        self._said = kind
