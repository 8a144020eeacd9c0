"""Each text that the service was seen to answer has its type and the right advice, wherever it appears."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.http.recorded_texts import RECORDED_TEXTS, RecordedText
from airflow_provider_vertex_ray.core.http.service_errors import control_plane_error, outcome_error
from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    ClusterFailedError,
    InvalidRequestError,
    NameNotReusableError,
    NetworkExhaustedError,
    NetworkSetupError,
    PreconditionError,
    QuotaExceededError,
    RateLimitedError,
    ServiceError,
    StockoutError,
    VertexRayError,
)

ADVICE: dict[type[VertexRayError], str] = {
    QuotaExceededError: "increase of the named quota",
    StockoutError: "other regions",
    NetworkExhaustedError: "larger range",
    NetworkSetupError: "must exist in the region",
    RateLimitedError: "poll_interval",
    ClusterExistsError: "another cluster_id",
    NameNotReusableError: "2 hours",
    PreconditionError: "",
}

# Texts beside those of the table, their code, the type in an answer, and the type of a failed cluster.
QUOTA, STOCKOUT, RATE, FAILED = QuotaExceededError, StockoutError, RateLimitedError, ClusterFailedError
INVALID = InvalidRequestError
SIBLINGS: list[tuple[str, int, type[VertexRayError], type[VertexRayError]]] = [
    ("The following quotas are exceeded: CustomModelTrainingCPUsPerProjectPerRegion", 9, QUOTA, QUOTA),
    ("The following quota is exceeded: CustomModelTrainingL4GPUsPerProjectPerRegion", 8, QUOTA, QUOTA),
    ("Quota limit 'CustomModelTrainingCPUsPerProjectPerRegion' has been exceeded. Limit: 42.", 8, QUOTA, QUOTA),
    ("Quota exceeded for quota metric 'Predictions' and limit 'Predictions per minute'", 8, RATE, FAILED),
    ("Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model", 8, RATE, FAILED),
    ("The zone does not have enough resources available to fulfill the request.", 8, STOCKOUT, STOCKOUT),
    ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS: the zone ran out", 8, STOCKOUT, STOCKOUT),
    ("Machine type with name 'a3-highgpu-8g' does not exist in zone 'us-central1-c'.", 3, INVALID, INVALID),
    ("An internal error occurred on your cluster. Please try recreating one.", 13, ServiceError, FAILED),
    ("The PersistentResource was deleted in the meantime.", 1, ServiceError, FAILED),
]


def failure_of(code: int, message: str) -> VertexRayError:
    resource: dict[str, Any] = {
        "name": "projects/1/locations/us-east1/persistentResources/x",
        "state": "ERROR",
        "error": {"code": code, "message": message},
        "resourcePools": [{"id": "head-node"}],
        "resourceRuntimeSpec": {"raySpec": {}},
    }
    return Cluster.from_resource(resource).failure()


@pytest.mark.parametrize("text", RECORDED_TEXTS, ids=lambda text: text.pattern[:40])
@pytest.mark.parametrize(
    ("status", "name"),
    [(400, "FAILED_PRECONDITION"), (409, "ALREADY_EXISTS"), (429, "RESOURCE_EXHAUSTED"), (500, None)],
)
def test_recorded_text_outranks_the_code_of_an_answer(text: RecordedText, status: int, name: str | None) -> None:
    error = control_plane_error(status, json.dumps({"error": {"message": text.example, "status": name}}))
    assert type(error) is text.kind
    assert error.message == text.example
    assert ADVICE[text.kind] in str(error)
    assert text.source.partition(":")[0] in ("documented", "reported", "inferred")


@pytest.mark.parametrize("text", RECORDED_TEXTS, ids=lambda text: text.pattern[:40])
@pytest.mark.parametrize("code", [3, 5, 8, 9, 13])
def test_recorded_text_of_a_failed_cluster_has_its_type(text: RecordedText, code: int) -> None:
    wanted = text.kind
    if wanted in (RateLimitedError, ClusterExistsError, NameNotReusableError, PreconditionError):
        # These are about a request; in a resource, they say nothing that a user could act on.
        assert type(outcome_error(text.example, code)) is ServiceError
        return
    assert type(outcome_error(text.example, code)) is wanted
    assert type(failure_of(code, text.example)) is wanted


@pytest.mark.parametrize(("text", "code", "in_answer", "of_cluster"), SIBLINGS)
def test_similar_texts(text: str, code: int, in_answer: type[VertexRayError], of_cluster: type[VertexRayError]) -> None:
    status = {3: "INVALID_ARGUMENT", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 13: "INTERNAL"}.get(code)
    error = control_plane_error(429 if code == 8 else 400, json.dumps({"error": {"message": text, "status": status}}))
    if status is not None:
        assert type(error) is in_answer
    assert type(failure_of(code, text)) is of_cluster
