"""The training quotas of a project in a region: their limits (Service Usage) and their use (Cloud Monitoring).

Sources: https://cloud.google.com/service-usage/docs/reference/rest/v1beta1/services.consumerQuotaMetrics/get, which
needs ``serviceusage.quotas.get``; https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list and
https://cloud.google.com/monitoring/alerts/using-quota-metrics, which need ``monitoring.timeSeries.list``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from airflow_provider_vertex_ray.core.http.google_call import read_json
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight.quota_demand import Demand, QuotaStatus
from airflow_provider_vertex_ray.errors import ServiceError

SERVICE = "aiplatform.googleapis.com"
USAGE = "serviceruntime.googleapis.com/quota/allocation/usage"

WINDOW = 24 * 3600
"""Seconds back to which a reading of the use counts: how often it is written is not documented, once a day at least."""

_REGIONAL = "/{region}"
_UNLIMITED = -1


class QuotasApi:
    """Limits and use in one region. Metrics are named without the service: ``custom_model_training_cpus``."""

    def __init__(self, transport: Transport, project: str, location: str) -> None:
        self._transport = transport
        self._project = project
        self._location = location

    async def standings(self, demands: Iterable[Demand]) -> list[QuotaStatus]:
        """Each demand beside limit and use.

        :raises VertexRayError: One of them can not be read.
        """
        return [
            QuotaStatus(demand, await self.limit(demand.metric), await self.used(demand.metric)) for demand in demands
        ]

    async def limit(self, metric: str) -> int | None:
        """The limit that is in force; None for no limit.

        :raises NoSuchResourceError: There is no such metric.
        :raises VertexRayError: It can not be read.
        """
        name = quote(f"{SERVICE}/{metric}", safe="")
        base = f"{self._transport.addresses.service_usage()}/v1beta1/projects/{self._project}/services/{SERVICE}"
        found = await read_json(self._transport, "GET", f"{base}/consumerQuotaMetrics/{name}", params={"view": "FULL"})
        limits = [
            limit_in(each.get("quotaBuckets") or [], self._location)
            for each in found.get("consumerQuotaLimits") or []
            if _REGIONAL in str(each.get("unit", ""))
        ]
        known = [limit for limit in limits if limit is not None]
        if not known:
            raise ServiceError(f"{metric} has no limit by region in the answer of Service Usage.")
        bounded = [limit for limit in known if limit != _UNLIMITED]
        return min(bounded) if bounded else None

    async def used(self, metric: str) -> int:
        """What is used of it, as Cloud Monitoring knows it, which is some minutes behind; 0 where it knows of nothing.

        :raises VertexRayError: It can not be read.
        """
        now = time.time()
        condition = " AND ".join(
            f'{field}="{value}"'
            for field, value in (
                ("metric.type", USAGE),
                ("resource.type", "consumer_quota"),
                ("resource.labels.service", SERVICE),
                ("resource.labels.location", self._location),
                ("metric.labels.quota_metric", f"{SERVICE}/{metric}"),
            )
        )
        params = {
            "filter": condition,
            "interval.startTime": _rfc3339(now - WINDOW),
            "interval.endTime": _rfc3339(now),
            # The latest reading instead of all of a day's.
            "aggregation.alignmentPeriod": f"{WINDOW}s",
            "aggregation.perSeriesAligner": "ALIGN_NEXT_OLDER",
        }
        url = f"{self._transport.addresses.monitoring()}/v3/projects/{self._project}/timeSeries"
        found: list[Mapping[str, Any]] = []
        token = ""
        while True:
            more = {"pageToken": token} if token else {}
            answer = await read_json(self._transport, "GET", url, params={**params, **more})
            found += answer.get("timeSeries") or []
            token = answer.get("nextPageToken") or ""
            if not token:
                return max((newest(series) for series in found), default=0)


def limit_in(buckets: Sequence[Mapping[str, Any]], location: str) -> int | None:
    """A region's limit in a quota's buckets: its own, else that of all regions; -1 for no limit, None for no bucket.

    Google's JSON leaves a number out that is 0.
    """
    own = [bucket for bucket in buckets if (bucket.get("dimensions") or {}).get("region") == location]
    general = [bucket for bucket in buckets if not bucket.get("dimensions")]
    for bucket in (*own, *general):
        return int(bucket.get("effectiveLimit") or 0)
    return None


def newest(series: Mapping[str, Any]) -> int:
    """The latest value of a time series; 0 without one."""
    points = series.get("points") or []
    latest: Mapping[str, Any] = max(
        points, key=lambda point: str((point.get("interval") or {}).get("endTime", "")), default={}
    )
    value = latest.get("value") or {}
    return int(value.get("int64Value") or value.get("doubleValue") or 0)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
