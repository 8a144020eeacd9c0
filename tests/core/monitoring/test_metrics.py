"""Cloud Monitoring's Prometheus API: values, ranges, errors."""

from __future__ import annotations

import math
import time

import pytest
from aiohttp import web
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.monitoring import metrics
from airflow_provider_vertex_ray.core.monitoring.metrics import MetricsApi, Series
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    MetricsNotAuthorisedError,
    RateLimitedError,
    UnreadableAnswerError,
)
from tests.support.clusters import start
from tests.support.server import serving, transport_to

CPU = 'avg(ray_node_cpu_utilization{cluster="shared"})'
QUERY, RANGE = "QueryPrometheus", "QueryRangePrometheus"


@pytest.fixture
def api(transport: Transport, fake_emulator: EmulatorProcess) -> MetricsApi:
    """With a cluster whose two nodes have been at 20 % and 40 % for ten minutes."""
    fake_emulator.admin("DELETE", "telemetry")
    start(fake_emulator)
    nodes = [
        {"labels": {"ip": f"10.0.0.{k}"}, "value": value, "for_seconds": 600} for k, value in enumerate((20.0, 40.0))
    ]
    fake_emulator.admin("PUT", "clusters/shared/metrics", {"ray_node_cpu_utilization": nodes})
    return MetricsApi(transport, fake_emulator.project)


async def test_a_value_now_and_then(api: MetricsApi) -> None:
    (series,) = await api.query(CPU)
    assert series.labels == {}
    ((moment, value),) = series.points
    assert (value, abs(moment - time.time()) < 30) == (30.0, True)
    before = time.time() - 300
    (series,) = await api.query(CPU, at=before)
    assert series.points[0] == (pytest.approx(before, abs=0.001), 30.0)
    assert await api.query(CPU, at=time.time() - 4000) == []


async def test_the_series_of_nodes(api: MetricsApi) -> None:
    found = await api.query('ray_node_cpu_utilization{cluster="shared"}')
    assert {series.labels["ip"]: series.points[0][1] for series in found} == {"10.0.0.0": 20.0, "10.0.0.1": 40.0}


async def test_scalars_and_ranges_of_samples(api: MetricsApi) -> None:
    assert (await api.query("1 + 1"))[0].points[0][1] == 2.0
    (first, _) = await api.query('ray_node_cpu_utilization{cluster="shared"}[5m]')
    assert len(first.points) > 2


async def test_a_range(api: MetricsApi) -> None:
    now = time.time()
    (series,) = await api.query_range(CPU, now - 300, now, 30)
    assert [value for _, value in series.points] == [30.0] * 11
    assert [moment for moment, _ in series.points] == pytest.approx([now - 300 + 30 * k for k in range(11)], abs=0.01)
    assert await api.query_range('avg(ray_node_cpu_utilization{cluster="other"})', now - 300, now, 30) == []


async def test_a_query_longer_than_an_address(api: MetricsApi) -> None:
    (series,) = await api.query(f'avg(ray_node_cpu_utilization{{cluster="shared",ip!="{"x" * 20_000}"}})')
    assert series.points[0][1] == 30.0


@pytest.mark.parametrize("promql", ["avg(", "nosuch(up)", ""])
async def test_rejected_query_is_quoted_in_the_error(api: MetricsApi, promql: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await api.query(promql)
    assert f"The query was: {promql}" in caught.value.message
    assert caught.value.details["http_status"] == 400


async def test_too_many_points(api: MetricsApi) -> None:
    with pytest.raises(InvalidRequestError, match="exceeded maximum resolution"):
        await api.query_range(CPU, 0, 12_000, 1)


async def test_what_may_not_be_read(api: MetricsApi, fake_emulator: EmulatorProcess) -> None:
    fake_emulator.admin("PUT", "project", {"denied_permissions": ["monitoring.timeSeries.list"]})
    try:
        with pytest.raises(MetricsNotAuthorisedError, match=r"roles/monitoring\.viewer"):
            await api.query(CPU)
    finally:
        fake_emulator.admin("DELETE", "project")


async def test_rate_limits_and_tokens(api: MetricsApi, fake_emulator: EmulatorProcess) -> None:
    await api.query(CPU)
    fake_emulator.admin("POST", "tokens/revoke")
    fake_emulator.admin("DELETE", "calls")
    with fake_emulator.fault(scope="control_plane", method=QUERY, status=429, times=2):
        assert (await api.query(CPU))[0].points[0][1] == 30.0
    with (
        fake_emulator.fault(scope="control_plane", method=RANGE, status=429, times=20),
        pytest.raises(RateLimitedError),
    ):
        await api.query_range(CPU, 0, 60, 1)


async def test_an_answer_that_is_too_large(api: MetricsApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_BYTES", 1000)
    with pytest.raises(InvalidRequestError, match="The answer is larger"):
        await api.query_range(CPU, time.time() - 300, time.time(), 1)


async def test_numbers_that_are_none() -> None:
    result = [{"metric": {"a": "b"}, "values": [[1, "NaN"], [2.5, "+Inf"], [3, "-Inf"], [4, "1e3"]]}]
    body = {"status": "success", "data": {"resultType": "matrix", "result": result}}
    async with serving(web.json_response(body)) as server, transport_to(server) as transport:
        (series,) = await MetricsApi(transport, "p").query("x")
    assert series.labels == {"a": "b"}
    assert math.isnan(series.points[0][1])
    assert series.points[1:] == ((2.5, math.inf), (3.0, -math.inf), (4.0, 1000.0))
    assert isinstance(series, Series)


@pytest.mark.parametrize(
    "body", [[], {}, {"status": "success"}, {"status": "success", "data": {"resultType": "matrix", "result": [1]}}]
)
async def test_an_answer_that_is_none(body: object) -> None:
    async with serving(web.json_response(body)) as server, transport_to(server) as transport:
        with pytest.raises(UnreadableAnswerError):
            await MetricsApi(transport, "p").query("x")


async def test_query_that_prometheus_cannot_execute_is_rejected() -> None:
    body = {"status": "error", "errorType": "execution", "error": "many-to-many matching not allowed"}
    async with serving(web.json_response(body, status=422)) as server, transport_to(server) as transport:
        with pytest.raises(InvalidRequestError, match=r"many-to-many.* The query was: x"):
            await MetricsApi(transport, "p").query("x")
