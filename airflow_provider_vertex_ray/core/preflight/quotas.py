"""Client for a project's training quotas in a region: limits (Service Usage) and use (Cloud Monitoring).

Sources: https://cloud.google.com/service-usage/docs/reference/rest/v1beta1/services.consumerQuotaMetrics/get, which
needs ``serviceusage.quotas.get``; https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list and
https://cloud.google.com/monitoring/alerts/using-quota-metrics, which need ``monitoring.timeSeries.list``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from airflow_provider_vertex_ray.core.http.decoding import whole
from airflow_provider_vertex_ray.core.http.google_call import read_json
from airflow_provider_vertex_ray.core.http.paging import PageTokens
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight.answers import BucketAnswer, QuotaAnswer, SeriesAnswer, SeriesPage
from airflow_provider_vertex_ray.core.preflight.quota_demand import Demand, QuotaStatus
from airflow_provider_vertex_ray.core.timestamps import rfc3339
from airflow_provider_vertex_ray.errors import ServiceError

SERVICE = "aiplatform.googleapis.com"
"""Service that the quotas belong to."""

USAGE = "serviceruntime.googleapis.com/quota/allocation/usage"
"""Metric of the use of quotas."""

WINDOW = 24 * 3600
"""Maximum age of a reading of the use in seconds; it is written at least once a day, more is not documented."""

_REGIONAL = "/{region}"
_UNLIMITED = -1


class QuotasApi:
    """Client for limits and use of quotas in one region, by metric without the service: ``custom_model_training_cpus``.

    :param transport: the connection
    :param project: id or number of the project
    :param location: the region
    """

    def __init__(self, transport: Transport, project: str, location: str) -> None:
        self._transport = transport
        self._project = project
        self._location = location

    async def statuses(self, demands: Iterable[Demand]) -> list[QuotaStatus]:
        """Return each demand with the limit and the use of its quota.

        :raises VertexRayError: a limit or a use cannot be read
        """
        return [
            QuotaStatus(demand, await self.limit(demand.metric), await self.used(demand.metric)) for demand in demands
        ]

    async def limit(self, metric: str) -> int | None:
        """Return the effective limit of a quota; None for no limit.

        :raises NoSuchResourceError: the metric does not exist
        :raises VertexRayError: the limit cannot be read
        """
        name = quote(f"{SERVICE}/{metric}", safe="")
        base = f"{self._transport.addresses.service_usage()}/v1beta1/projects/{self._project}/services/{SERVICE}"
        found = await read_json(
            self._transport, QuotaAnswer, "GET", f"{base}/consumerQuotaMetrics/{name}", params={"view": "FULL"}
        )
        limits = [
            limit_in(each.quota_buckets or [], self._location)
            for each in found.consumer_quota_limits or []
            if _REGIONAL in (each.unit or "")
        ]
        known = [limit for limit in limits if limit is not None]
        if not known:
            raise ServiceError(f"The answer of Service Usage has no regional limit of {metric}.")
        bounded = [limit for limit in known if limit != _UNLIMITED]
        return min(bounded) if bounded else None

    async def used(self, metric: str) -> int:
        """Return the use of a quota according to Cloud Monitoring, which lags a few minutes; 0 if it has no reading.

        :raises VertexRayError: the use cannot be read
        """
        # Whole seconds: the interval must be exactly one alignment period long.
        now = int(time.time())
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
            "interval.startTime": rfc3339(now - WINDOW),
            "interval.endTime": rfc3339(now),
            # Only the latest reading, instead of all readings of a day.
            "aggregation.alignmentPeriod": f"{WINDOW}s",
            "aggregation.perSeriesAligner": "ALIGN_NEXT_OLDER",
        }
        url = f"{self._transport.addresses.monitoring()}/v3/projects/{self._project}/timeSeries"
        found: list[SeriesAnswer] = []
        tokens = PageTokens()
        token = ""
        while True:
            more = {"pageToken": token} if token else {}
            page = await read_json(self._transport, SeriesPage, "GET", url, params={**params, **more})
            found += page.time_series or []
            if not (token := tokens.follow(page.next_page_token)):
                return max((newest(series) for series in found), default=0)


def limit_in(buckets: Sequence[BucketAnswer], location: str) -> int | None:
    """Return a region's limit in a quota's buckets, or that of all regions; -1 for no limit, None for no bucket.

    A limit of 0 is missing in Google's JSON.
    """
    own = [bucket for bucket in buckets if (bucket.dimensions or {}).get("region") == location]
    general = [bucket for bucket in buckets if not bucket.dimensions]
    for bucket in (*own, *general):
        return whole(bucket.effective_limit)
    return None


def newest(series: SeriesAnswer) -> int:
    """Return the latest value of a time series; 0 if it has none."""
    points = sorted(series.points or [], key=lambda point: (point.interval.end_time if point.interval else None) or "")
    value = points[-1].value if points else None
    return 0 if value is None else whole(value.int64_value) or int(value.double_value or 0)
