"""Trigger that waits for a condition on a metric."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
from airflow_provider_vertex_ray.core.monitoring.condition import ConditionResult, MetricCondition
from airflow_provider_vertex_ray.core.polling import Backoff, poll_until
from airflow_provider_vertex_ray.errors import OperationTimeoutError, VertexRayError
from airflow_provider_vertex_ray.triggers.base import WaitTrigger

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.calls.monitoring import MonitoringCalls


class VertexRayMetricTrigger(WaitTrigger):
    """Wait until a condition on a metric holds; the result is what ``VertexRayMetricSensor`` returns.

    A missing answer, 429 and 5xx do not end the wait: the metric is unknown meanwhile.

    :param cluster_name: full resource name of the cluster.
    :param promql: the PromQL query.
    :param comparison: how the value compares with the threshold, such as ``<``; see ``MetricCondition``.
    :param threshold: the value to compare with.
    :param for_seconds: seconds for which the condition must have held.
    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param poll_interval: seconds between two polls.
    :param deadline: Unix time at which the wait fails; None for no limit.
    :param end: how the task ends without a worker; see ``WaitTrigger``.
    :raises OperationTimeoutError: the condition did not hold before the deadline.
    :raises InvalidRequestError: Cloud Monitoring rejects the query.
    :raises MetricsNotAuthorisedError: the account may not read metrics.
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
        end: dict[str, Any] | None = None,
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
            end=end,
        )
        self._name = parse_cluster_name(cluster_name)
        self._promql = promql
        self._condition = MetricCondition(comparison, threshold, for_seconds)
        self._poll_interval = poll_interval
        self._deadline = deadline
        self._last_reason = ""
        self._last = ConditionResult(None, None, "")

    async def wait(self) -> dict[str, Any]:
        """Poll until the condition holds."""
        hook = self.hook

        async def look() -> dict[str, Any] | None:
            found = await self.look(hook)
            if isinstance(found, dict):
                return found
            self._last = found
            return None

        async with hook.session():
            return await poll_until(
                look,
                backoff=Backoff.constant(self._poll_interval),
                deadline=self._deadline,
                timed_out=self._timed_out,
                on_unreadable=self.on_unreadable,
            )

    def on_unreadable(self, error: VertexRayError, seconds: float) -> None:
        """Note that the metric is unknown."""
        self._log_reason(f"its value is unknown: {error.message}")
        self._last = ConditionResult(None, None, error.message)

    def _timed_out(self) -> OperationTimeoutError:
        value, reason = self._last.value, self._last.reason
        last = "its value is unknown" if value is None else f"its last value is {value:g}"
        return OperationTimeoutError(
            f"Timed out waiting for {self._promql} {self._condition}: {reason}; {last}.",
            {"promql": self._promql, "value": value, "reason": reason},
        )

    @property
    def hook(self) -> MonitoringCalls:
        """The monitoring hook with the task's connection."""
        from airflow_provider_vertex_ray.hooks.calls.monitoring import MonitoringCalls

        return MonitoringCalls(self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"], self._name.project)

    async def look(self, hook: MonitoringCalls) -> dict[str, Any] | ConditionResult:
        """Poll once: return the result if the condition holds now, else why it does not."""
        # Rounded as in the request; otherwise the last sample would seem to be of another time.
        now = round(time.time(), 3)
        start, end = self._condition.window(now)
        series = await hook.query_range(self._promql, start, end, self._condition.step)
        verdict = self._condition.decide([each.points for each in series], end)
        if verdict.held is None:
            self._log_reason(verdict.reason)
            return verdict
        return {
            "cluster_id": self._name.cluster_id,
            "promql": self._promql,
            "condition": str(self._condition),
            "since": verdict.held.since,
            "value": verdict.held.value,
            "at": now,
        }

    def _log_reason(self, reason: str) -> None:
        # "it has held for 60 s" changes with each poll, so only the words before the number are compared.
        kind = reason.rstrip("0123456789.-+e s")
        if kind != self._last_reason:
            self.log.info("Waiting for %s %s: %s", self._promql, self._condition, reason)
        self._last_reason = kind
