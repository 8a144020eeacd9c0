"""Client of Cloud Monitoring's Prometheus API: PromQL queries of the metrics that a cluster's nodes export.

Source: https://cloud.google.com/stackdriver/docs/managed-prometheus/query-api-ui and
https://cloud.google.com/monitoring/api/ref_v3/rest/v1/projects.location.prometheus.api.v1/query_range.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from airflow_provider_vertex_ray.core.http.body import TooLargeError
from airflow_provider_vertex_ray.core.http.redact import excerpt
from airflow_provider_vertex_ray.core.http.service_errors import read_error, service_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.monitoring.answers import MatrixAnswer, SeriesAnswer
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    InvalidRequestError,
    MetricsNotAuthorisedError,
    NotAuthorisedError,
    ServiceError,
    UnreadableAnswerError,
    VertexRayError,
)

MOST_POINTS = 11_000
"""Maximum number of points of a series in Prometheus; the service rejects requests for more."""

MAX_BYTES = 16 << 20
"""Maximum size of an answer in bytes; a query without an aggregation returns a series for each process of each node."""


@dataclass(frozen=True)
class Series:
    """One series of values.

    :param labels: the labels that identify it
    :param points: (Unix time, value), oldest first; a value may be NaN or infinite
    """

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]


class MetricsApi:
    """Client for PromQL queries.

    :param transport: the connection
    :param project: project of the clusters, which also stores their metrics
    """

    def __init__(self, transport: Transport, project: str) -> None:
        self._transport = transport
        self._project = project

    async def query(self, promql: str, at: float | None = None) -> list[Series]:
        """Return the value of a query at one time, as series of one point; a range selector returns all its points.

        :param promql: the query
        :param at: Unix time; None for now
        :raises InvalidRequestError: the service rejects the query
        :raises MetricsNotAuthorisedError: the account is not allowed to read metrics
        :raises RateLimitedError: there are too many requests, even after several retries
        :raises ServiceUnavailableError: there is no answer, even after several retries
        """
        return await self._ask("query", promql, {} if at is None else {"time": f"{at:.3f}"})

    async def query_range(self, promql: str, start: float, end: float, step: float) -> list[Series]:
        """Return the values of a query at ``start``, ``start + step``, … up to ``end``; raises the errors of ``query``.

        Times without a value have no point.

        :param promql: the query
        :param start: Unix time
        :param end: Unix time
        :param step: seconds between two points
        """
        return await self._ask(
            "query_range", promql, {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        )

    async def _ask(self, path: str, promql: str, more: dict[str, str]) -> list[Series]:
        # A form in the body, because a query may be longer than a URL may be.
        form = urlencode({"query": promql, **more}).encode()
        base = f"{self._transport.addresses.monitoring()}/v1/projects/{self._project}/location/global/prometheus"
        try:
            answer = await self._transport.read(
                MatrixAnswer,
                "POST",
                f"{base}/api/v1/{path}",
                data=lambda: form,
                content_type="application/x-www-form-urlencoded",
                error_from=_error_of(promql),
                max_bytes=MAX_BYTES,
            )
        except TooLargeError:
            raise InvalidRequestError(
                f"The answer is larger than {MAX_BYTES >> 20} MiB; aggregate the series, or request fewer points. "
                f"The query was: {promql}"
            ) from None
        if answer.status != "success":
            raise InvalidRequestError(f"Cloud Monitoring: {answer.error} The query was: {promql}")
        try:
            return list(_series(answer))
        except (TypeError, ValueError) as error:
            raise UnreadableAnswerError(f"Cloud Monitoring answered with an unexpected form: {error}.") from None


def _series(answer: MatrixAnswer) -> Iterable[Series]:
    if answer.data is None:
        raise ValueError("it has no data")
    result = answer.data.result or []
    if answer.data.result_type == "scalar":
        yield Series({}, (_point(result),))
        return
    for each in result:
        if not isinstance(each, SeriesAnswer):
            raise ValueError("an element is not a series")
        points = each.values if each.values is not None else [each.value] if each.value else []
        yield Series(each.metric or {}, tuple(_point(point) for point in points))


def _point(pair: Any) -> tuple[float, float]:
    moment, value = pair
    return float(moment), float(value)


def _error_of(promql: str) -> Callable[[int, str], VertexRayError]:
    def error_from(status: int, text: str) -> VertexRayError:
        body = read_error(text)
        said = body.message or _prometheus_error(text) or excerpt(text)
        # 422 is Prometheus' answer to a query that it can parse but not execute.
        found = service_error(
            f"Cloud Monitoring: {said}", status=body.status, http_status=400 if status == 422 else status
        )
        found.details["http_status"] = status
        if isinstance(found, NotAuthorisedError):
            return MetricsNotAuthorisedError(found.message, found.details)
        if isinstance(found, InvalidRequestError):
            return InvalidRequestError(f"{found.message} The query was: {promql}", found.details)
        if isinstance(found, ClusterNotFoundError):
            return ServiceError(found.message, found.details)
        return found

    return error_from


def _prometheus_error(text: str) -> str:
    """Return the message of an error in Prometheus' own form, ``{"error": "…"}``; empty for any other text."""
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return error if isinstance(error, str) else ""
