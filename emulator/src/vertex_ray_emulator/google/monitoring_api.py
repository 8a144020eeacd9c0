"""Cloud Monitoring: Prometheus' query API (v1), and the usage of quotas as time series (v3)."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.google.cloud_api import PROJECT, CloudRequest, CloudRpc, offset_page
from vertex_ray_emulator.google.logging_api import render_time
from vertex_ray_emulator.google.query_filter import parse, parse_time, read_path
from vertex_ray_emulator.project.quota_metrics import METRICS
from vertex_ray_emulator.wire.api_table import AIPLATFORM
from vertex_ray_emulator.wire.errors import ApiError, invalid

if TYPE_CHECKING:
    from vertex_ray_emulator.clusters.quotas import Quotas
    from vertex_ray_emulator.google.metrics_store import MetricsStore
    from vertex_ray_emulator.google.promql import Query, Value
    from vertex_ray_emulator.project.project_script import Project

_PROMETHEUS = rf"v1/{PROJECT}/location/(?P<location>[^/]+)/prometheus/api/v1"
USAGE = "serviceruntime.googleapis.com/quota/allocation/usage"
MOST_POINTS = 11_000
MAX_PAGE = 100_000


class PrometheusError(ApiError):
    """An error in the format of Prometheus' API."""

    def __init__(self, message: str) -> None:
        super().__init__("INVALID_ARGUMENT", message)

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the response."""
        return {"status": "error", "errorType": "bad_data", "error": self.message}


class MonitoringApi:
    """Queries of metrics and of quota usage.

    :param project: the project of the metrics.
    :param store: the metrics of the clusters.
    :param quotas: the quota usage of the clusters.
    """

    def __init__(self, project: Project, store: MetricsStore, quotas: Quotas) -> None:
        self._project = project
        self._store = store
        self._quotas = quotas

    def rpcs(self) -> list[CloudRpc]:
        """Return the methods that this API serves."""
        queries = [
            CloudRpc(name, verb, rf"{_PROMETHEUS}/{path}", work)
            for verb in ("GET", "POST")
            for name, path, work in (
                ("QueryPrometheus", "query", self._instant),
                ("QueryRangePrometheus", "query_range", self._range),
            )
        ]
        return [*queries, CloudRpc("ListTimeSeries", "GET", rf"v3/{PROJECT}/timeSeries", self._time_series)]

    # Prometheus ----------------------------------------------------------------------------------------

    async def _instant(self, request: CloudRequest) -> dict[str, Any]:
        query = self._compile(request)
        given = _parameter(request, "time")
        at = _time("time", given) if given else time.time()
        if query.ranged is not None:
            found = [{"metric": labels, "values": _points(samples)} for labels, samples in query.ranged(at)]
            return _success("matrix", found)
        value = _evaluate(query, at)
        if not isinstance(value, list):
            return _success("scalar", [at, number(value)])
        return _success("vector", [{"metric": labels, "value": [at, number(each)]} for labels, each in value])

    async def _range(self, request: CloudRequest) -> dict[str, Any]:
        query = self._compile(request)
        if query.ranged is not None:
            raise PrometheusError('invalid expression type "range vector" for range query, must be Scalar or Vector')
        begin, end = (_time(name, _parameter(request, name)) for name in ("start", "end"))
        step = _step(_parameter(request, "step"))
        if end < begin:
            raise PrometheusError('invalid parameter "end": end timestamp must not be before start time')
        if (end - begin) / step > MOST_POINTS:
            raise PrometheusError(
                "exceeded maximum resolution of 11,000 points per timeseries. "
                "Try decreasing the query resolution (?step=XX)"
            )
        series: dict[str, tuple[dict[str, str], list[tuple[float, float]]]] = {}
        for k in range(math.floor((end - begin) / step + 1e-9) + 1):
            at = begin + k * step
            value = _evaluate(query, at)
            for labels, each in value if isinstance(value, list) else [({}, value)]:
                series.setdefault(json.dumps(labels, sort_keys=True), (labels, []))[1].append((at, each))
        return _success("matrix", [{"metric": labels, "values": _points(found)} for labels, found in series.values()])

    def _compile(self, request: CloudRequest) -> Query:
        if request.path["location"] != "global":
            raise invalid(f"The location must be global, not {request.path['location']!r}.")
        text = _parameter(request, "query")
        if not text:
            raise PrometheusError(
                'invalid parameter "query": unknown position: parse error: no expression found in input'
            )
        try:
            # Imported here because nothing else needs the parser.
            from vertex_ray_emulator.google.promql import PromQlError, compile_query
        except ImportError as error:
            raise ApiError(
                "UNIMPLEMENTED", f"Could not import promql-parser, which evaluates PromQL: {error}."
            ) from error
        try:
            return compile_query(text, self._store)
        except PromQlError as error:
            raise PrometheusError(str(error)) from error

    # Time series ---------------------------------------------------------------------------------------

    async def _time_series(self, request: CloudRequest) -> dict[str, Any]:
        text = request.parameter("filter")
        if "metric.type" not in text:
            raise invalid("Field filter had an invalid value: the filter must specify a single metric type.")
        test = parse(text, lambda path: read_path(path) if path[0] in ("metric", "resource", "project") else None)
        end = parse_time(request.parameter("interval.endTime"))
        begin = parse_time(request.parameter("interval.startTime") or request.parameter("interval.endTime"))
        if end is None or begin is None or begin > end:
            raise invalid(
                "Field interval had an invalid value: an interval needs an endTime, not before its startTime."
            )
        view = request.parameter("view", "FULL")
        if view not in ("FULL", "HEADERS"):
            raise invalid(f"Invalid value at 'view', {view!r}")
        size = min(request.number("pageSize", MAX_PAGE) or MAX_PAGE, MAX_PAGE)
        everything = [each for each in self._usage(min(end, time.time())) if test(each)]
        found, token = offset_page(everything, size, request.parameter("pageToken"))
        if view == "HEADERS":
            found = [{key: value for key, value in each.items() if key != "points"} for each in found]
        answer: dict[str, Any] = {"timeSeries": found} if found else {}
        return {**answer, **({"nextPageToken": token} if token else {})}

    def _usage(self, at: float) -> list[dict[str, Any]]:
        """Return the current usage of all quotas; its history is not kept."""
        stamp = render_time(int(at * 1e6))
        return [
            {
                "metric": {"type": USAGE, "labels": {"quota_metric": f"{AIPLATFORM}/{metric}"}},
                "resource": {
                    "type": "consumer_quota",
                    "labels": {"project_id": self._project.id, "service": AIPLATFORM, "location": region},
                },
                "metricKind": "GAUGE",
                "valueType": "INT64",
                "points": [
                    {
                        "interval": {"startTime": stamp, "endTime": stamp},
                        "value": {"int64Value": str(self._quotas.used(metric, region))},
                    }
                ],
            }
            for region in sorted(self._quotas.regions())
            for metric in METRICS
        ]


def number(value: float) -> str:
    """Format a value as Prometheus does."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _success(kind: str, result: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}}


def _points(samples: list[tuple[float, float]]) -> list[list[Any]]:
    return [[at, number(value)] for at, value in samples]


def _evaluate(query: Query, at: float) -> Value:
    from vertex_ray_emulator.google.promql import PromQlError

    try:
        return query.step(at)
    except PromQlError as error:
        raise PrometheusError(str(error)) from error


def _parameter(request: CloudRequest, name: str) -> str:
    """Return a parameter from the URL or from the body, which may be a form or JSON."""
    return request.parameter(name) or str(request.body.get(name, ""))


def _time(name: str, text: str) -> float:
    try:
        found: float | None = float(text)
    except ValueError:
        found = parse_time(text)
    if found is None or not math.isfinite(found):
        raise PrometheusError(f'invalid parameter "{name}": cannot parse "{text}" to a valid timestamp')
    return found


def _step(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        try:
            from promql_parser import parse_duration

            seconds = parse_duration(text).total_seconds()
        except (ImportError, ValueError):
            seconds = 0.0
    if not 0 < seconds < math.inf:
        raise PrometheusError(f'invalid parameter "step": cannot parse "{text}" to a valid, positive duration')
    return seconds
