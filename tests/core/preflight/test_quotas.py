"""Limits and use of the training quotas, from the emulator and from answers as Google's pages have them."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from emulator_support.process import EmulatorProcess
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.http.decoding import check_shape
from airflow_provider_vertex_ray.core.http.google_call import NoSuchResourceError, cloud_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight.answers import BucketAnswer, SeriesAnswer
from airflow_provider_vertex_ray.core.preflight.quotas import QuotasApi, limit_in, newest
from airflow_provider_vertex_ray.errors import (
    NotAuthorisedError,
    RateLimitedError,
    ServiceDisabledError,
    ServiceError,
    ServiceUnavailableError,
)
from tests.support.clusters import start
from tests.support.server import serving, transport_to

CPUS = "custom_model_training_cpus"
LOCATION = "us-central1"


def bucket(limit: object, region: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {} if limit is None else {"effectiveLimit": limit}
    return {**found, "dimensions": {"region": region}} if region else found


@pytest.mark.parametrize(
    ("buckets", "limit"),
    [
        ([bucket("42", LOCATION)], 42),
        ([bucket("7"), bucket("42", LOCATION)], 42),
        ([bucket("42", LOCATION), bucket("7")], 42),
        ([bucket("7"), bucket("42", "us-east1")], 7),
        ([bucket("42", "us-east1")], None),
        ([], None),
        ([bucket("-1")], -1),
        # A number that is 0 is left out of Google's JSON: the usual limit of a new project's GPUs.
        ([bucket(None, LOCATION), bucket("9")], 0),
        ([bucket("0", LOCATION)], 0),
    ],
)
def test_the_limit_of_a_region(buckets: list[dict[str, Any]], limit: int | None) -> None:
    assert limit_in([check_shape(each, BucketAnswer) for each in buckets], LOCATION) == limit


@given(st.permutations(["2026-11-25T10:00:00Z", "2026-11-25T10:01:00Z", "2026-11-25T10:02:00Z"]))
def test_the_latest_point_counts(times: list[str]) -> None:
    points = [{"interval": {"endTime": at}, "value": {"int64Value": at[14:16]}} for at in times]
    assert newest(check_shape({"points": points}, SeriesAnswer)) == 2


@pytest.mark.parametrize("series", [{}, {"points": []}, {"points": [{}]}, {"points": [{"value": {}}]}])
def test_series_without_values_does_not_hold(series: dict[str, Any]) -> None:
    assert newest(check_shape(series, SeriesAnswer)) == 0


async def test_the_emulators_answers(fake_emulator: EmulatorProcess, transport: Transport) -> None:
    api = QuotasApi(transport, fake_emulator.project, LOCATION)
    assert (await api.limit(CPUS), await api.used(CPUS)) == (2200, 0)
    quota = {CPUS: {LOCATION: {"limit": 100, "used": 3}, "us-east1": {"limit": -1, "used": 50}}}
    fake_emulator.admin("PUT", "project", {"quota": quota})
    start(fake_emulator)
    assert (await api.limit(CPUS), await api.used(CPUS)) == (100, 3 + 16 + 2 * 8)
    elsewhere = QuotasApi(transport, fake_emulator.project_number, "us-east1")
    assert (await elsewhere.limit(CPUS), await elsewhere.used(CPUS)) == (None, 50)
    with pytest.raises(NoSuchResourceError):
        await api.limit("custom_model_training_abacus_gpus")
    assert await api.used("custom_model_training_abacus_gpus") == 0


async def test_pages_of_series_and_of_several_limits() -> None:
    def series(value: int) -> dict[str, Any]:
        return {"points": [{"interval": {"endTime": "2026-11-25T10:00:00Z"}, "value": {"int64Value": str(value)}}]}

    first = web.json_response({"timeSeries": [series(3)], "nextPageToken": "more"})
    second = web.json_response({"timeSeries": [series(8), series(5)]})
    async with serving(first, second) as server, transport_to(server) as transport:
        assert await QuotasApi(transport, "p", LOCATION).used(CPUS) == 8
        paths = [path for _, path, _, _ in server.requests]
    assert ["pageToken=more" in path for path in paths] == [False, True]
    assert all("interval.startTime=" in path and "custom_model_training_cpus" in path for path in paths)
    limits = [
        {"unit": "1/{project}", "quotaBuckets": [bucket("1")]},
        {"unit": "1/{project}/{region}", "quotaBuckets": [bucket("-1")]},
        {"unit": "1/{project}/{region}", "quotaBuckets": [bucket("30")]},
    ]
    async with serving(web.json_response({"consumerQuotaLimits": limits})) as server, transport_to(server) as transport:
        assert await QuotasApi(transport, "p", LOCATION).limit(CPUS) == 30
        ((_, path, _, _),) = server.requests
    assert path.startswith(
        "/v1beta1/projects/p/services/aiplatform.googleapis.com/consumerQuotaMetrics/"
        "aiplatform.googleapis.com%2Fcustom_model_training_cpus?"
    )


async def test_an_answer_without_a_limit_by_region() -> None:
    answer = web.json_response({"consumerQuotaLimits": [{"unit": "1/{project}", "quotaBuckets": [bucket("1")]}]})
    async with serving(answer) as server, transport_to(server) as transport:
        with pytest.raises(ServiceError, match="no regional limit"):
            await QuotasApi(transport, "p", LOCATION).limit(CPUS)


INFO = '{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "%s", "metadata": {%s}}'
DISABLED = INFO % ("SERVICE_DISABLED", '"service": "compute.googleapis.com"')
DENIED = INFO % ("IAM_PERMISSION_DENIED", '"permission": "compute.networks.get"')


@pytest.mark.parametrize(
    ("status", "text", "kind", "details"),
    [
        (403, f'{{"error": {{"message": "m", "details": [{DISABLED}]}}}}', ServiceDisabledError, {
            "reason": "SERVICE_DISABLED", "service": "compute.googleapis.com"}),
        (403, f'{{"error": {{"message": "m", "details": [{{}}, {DENIED}]}}}}', NotAuthorisedError, {
            "reason": "IAM_PERMISSION_DENIED", "permission": "compute.networks.get"}),
        (403, '{"error": {"message": "m", "details": "odd"}}', NotAuthorisedError, {}),
        (401, "", NotAuthorisedError, {}),
        (404, '{"error": {"message": "m"}}', NoSuchResourceError, {}),
        (404, "Not Found", ServiceError, {}),
        # Of requests, and not of what clusters draw on: that would be the end of a wait.
        (429, '{"error": {"message": "Quota exceeded for quota metric"}}', RateLimitedError, {}),
        (503, "<html>", ServiceUnavailableError, {}),
        (500, '{"error": {"message": "m", "status": "INTERNAL"}}', ServiceUnavailableError, {}),
        (400, '{"error": 3}', ServiceError, {}),
        (400, "[]", ServiceError, {}),
    ],
)  # fmt: skip
def test_errors_have_a_type(status: int, text: str, kind: type[ServiceError], details: dict[str, str]) -> None:
    error = cloud_error(status, text)
    assert type(error) is kind or (kind is ServiceError and isinstance(error, ServiceError))
    assert not (kind is ServiceError and isinstance(error, NoSuchResourceError))
    assert {key: value for key, value in error.details.items() if key not in ("http_status", "status")} == details
    assert error.message
