"""Cloud Monitoring's Prometheus API: PromQL over the metrics that a cluster's nodes export.

Source: https://cloud.google.com/stackdriver/docs/managed-prometheus/query-api-ui and
https://cloud.google.com/monitoring/api/ref_v3/rest/v1/projects.location.prometheus.api.v1/query_range.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from airflow_provider_vertex_ray.core.http.service_errors import service_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    InvalidRequestError,
    MetricsNotAuthorisedError,
    NotAuthorisedError,
    ServiceError,
    VertexRayError,
)

MOST_POINTS = 11_000
"""Points of a series that Prometheus gives at most; the service refuses more."""

MAX_BYTES = 16 << 20
"""Bytes of an answer at most; a query without an aggregation gives a series for each process of each node."""


@dataclass(frozen=True)
class Series:
    """One series of values.

    :param labels: What tells it from the others.
    :param points: Unix time and value, the oldest first; a value may be NaN or infinite.
    """

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]


class MetricsApi:
    """Asks PromQL.

    :param project: The project of the clusters: their metrics are kept there.
    """

    def __init__(self, transport: Transport, project: str) -> None:
        self._transport = transport
        self._project = project

    async def query(self, promql: str, at: float | None = None) -> list[Series]:
        """A query's value at one time, as series of one point; of a range selector, all points of the range.

        :param at: Unix time; None for now.
        :raises InvalidRequestError: The service refuses the query.
        :raises MetricsNotAuthorisedError: The account may not read metrics.
        :raises RateLimitedError: Too many requests, also after retries.
        :raises ServiceUnavailableError: No answer, also after retries.
        """
        return await self._ask("query", promql, {} if at is None else {"time": f"{at:.3f}"})

    async def query_range(self, promql: str, start: float, end: float, step: float) -> list[Series]:
        """A query's values at ``start``, ``start + step``, … up to ``end``.

        A time at which it has no value has no point. Errors as ``query`` has them.

        :param start: Unix time.
        :param end: Unix time.
        :param step: Seconds.
        """
        return await self._ask(
            "query_range", promql, {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        )

    async def _ask(self, path: str, promql: str, more: dict[str, str]) -> list[Series]:
        # A form in the body, for a query may be longer than an address.
        form = urlencode({"query": promql, **more}).encode()
        answer = await self._transport.request(
            "POST",
            f"{self._transport.addresses.monitoring()}/v1/projects/{self._project}/location/global/prometheus/api/v1/{path}",
            data=lambda: form,
            content_type="application/x-www-form-urlencoded",
            error_from=_error_of(promql),
            max_bytes=MAX_BYTES,
        )
        if len(answer.text) >= MAX_BYTES:
            raise InvalidRequestError(
                f"The answer is larger than {MAX_BYTES >> 20} MiB; aggregate, or ask for fewer points. "
                f"The query was: {promql}"
            )
        body = answer.json()
        try:
            if body["status"] != "success":
                raise InvalidRequestError(f"Cloud Monitoring: {body.get('error')} The query was: {promql}")
            return list(_series(body["data"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServiceError(f"Cloud Monitoring answered with {answer.text[:200]!r}.") from error


def _series(data: dict[str, Any]) -> Iterable[Series]:
    result = data.get("result") or []
    if data["resultType"] == "scalar":
        yield Series({}, (_point(result),))
        return
    for each in result:
        labels = {str(key): str(value) for key, value in (each.get("metric") or {}).items()}
        points = each["values"] if "values" in each else [each["value"]]
        yield Series(labels, tuple(_point(point) for point in points))


def _point(pair: Any) -> tuple[float, float]:
    moment, value = pair
    return float(moment), float(value)


def _error_of(promql: str) -> Callable[[int, str], VertexRayError]:
    def error_from(status: int, text: str) -> VertexRayError:
        said, name = _said(text)
        # 422 is Prometheus' answer to a query that it can read but not carry out.
        found = service_error(f"Cloud Monitoring: {said}", status=name, http_status=400 if status == 422 else status)
        found.details["http_status"] = status
        if isinstance(found, NotAuthorisedError):
            return MetricsNotAuthorisedError(found.message, found.details)
        if isinstance(found, InvalidRequestError):
            return InvalidRequestError(f"{found.message} The query was: {promql}", found.details)
        if isinstance(found, ClusterNotFoundError):
            return ServiceError(found.message, found.details)
        return found

    return error_from


def _said(text: str) -> tuple[str, str | None]:
    """Message and canonical name of an error, in Google's form or in Prometheus' own."""
    try:
        body = json.loads(text)
        error = body["error"]
        return (str(error["message"]), error.get("status")) if isinstance(error, dict) else (str(error), None)
    except (ValueError, KeyError, TypeError):
        return text.strip()[:300] or "nothing", None
