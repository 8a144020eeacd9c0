"""Errors: what they say, how they travel, and which of them the service's answers become."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray import errors
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error, service_error
from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    ClusterNotFoundError,
    InvalidArgumentError,
    InvalidRequestError,
    JobFailedError,
    NameNotReusableError,
    NetworkExhaustedError,
    NotAuthorisedError,
    PreconditionError,
    QuotaExceededError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
    StockoutError,
    VertexRayError,
    error_from_dict,
)

KINDS = sorted(
    (
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, VertexRayError) and kind.__module__ == errors.__name__
    ),
    key=lambda kind: kind.__name__,
)
QUOTA = "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_cpus"
STOCKOUT = "Resources are insufficient in region: us-central1. Please try a different region."
RANGES = "Couldn't find free blocks in allocated IP ranges. Please allocate new ranges for this service provider."
REUSE = "The PersistentResource ID 'a' was deleted recently and can not be used again yet."


def test_all_kinds_are_found() -> None:
    assert len(KINDS) > 20
    assert JobFailedError in KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_survives_json_and_pickle(kind: type[VertexRayError]) -> None:
    error = kind("Something was wrong.", {"exit_code": 3, "logs_tail": ["ä", "b"]})
    for again in (error_from_dict(json.loads(json.dumps(error.to_dict()))), pickle.loads(pickle.dumps(error))):
        assert type(again) is kind
        assert (again.message, again.details, str(again)) == (error.message, error.details, str(error))


@pytest.mark.parametrize("kind", KINDS)
def test_remedy_is_appended_once(kind: type[VertexRayError]) -> None:
    # Through a trigger's event and back, the remedy must not be said twice.
    again = error_from_dict(kind("It broke.").to_dict())
    assert str(again) == f"It broke. {kind.remedy}".strip()


def test_an_error_of_a_newer_version_becomes_the_base_class() -> None:
    error = error_from_dict({"type": "TomorrowsError", "message": "new", "details": {"a": 1}})
    assert type(error) is VertexRayError
    assert (error.message, error.details) == ("new", {"a": 1})


@pytest.mark.parametrize("data", [{}, {"type": None}, {"details": None}, {"type": "SystemExit", "message": "no"}])
def test_malformed_error_becomes_the_base_class(data: dict[str, object]) -> None:
    assert type(error_from_dict(data)) is VertexRayError


@pytest.mark.parametrize(
    ("message", "codes", "kind"),
    [
        (QUOTA, {"status": "RESOURCE_EXHAUSTED", "http_status": 429}, QuotaExceededError),
        ("Quota exceeded for quota metric 'Requests'", {"http_status": 429}, QuotaExceededError),
        (STOCKOUT, {"rpc_code": 8}, StockoutError),
        (RANGES, {"rpc_code": 9}, NetworkExhaustedError),
        (REUSE, {"status": "FAILED_PRECONDITION", "http_status": 400}, NameNotReusableError),
        ("x", {"status": "INVALID_ARGUMENT", "http_status": 400}, InvalidRequestError),
        ("x", {"status": "FAILED_PRECONDITION", "http_status": 400}, PreconditionError),
        ("x", {"status": "UNAUTHENTICATED", "http_status": 401}, NotAuthorisedError),
        ("x", {"status": "PERMISSION_DENIED", "http_status": 403}, NotAuthorisedError),
        ("x", {"status": "NOT_FOUND", "http_status": 404}, ClusterNotFoundError),
        ("x", {"status": "ALREADY_EXISTS", "http_status": 409}, ClusterExistsError),
        ("x", {"http_status": 401}, NotAuthorisedError),
        ("x", {"http_status": 403}, NotAuthorisedError),
        ("x", {"http_status": 404}, ClusterNotFoundError),
        ("x", {"http_status": 409}, ClusterExistsError),
        ("x", {"http_status": 429}, RateLimitedError),
        ("x", {"http_status": 503}, ServiceUnavailableError),
        ("x", {"http_status": 524}, ServiceUnavailableError),
        ("x", {"status": "INTERNAL", "http_status": 500}, ServiceUnavailableError),
        ("x", {"rpc_code": 14}, ServiceUnavailableError),
        ("x", {"rpc_code": 13}, ServiceError),
        ("x", {}, ServiceError),
    ],
)
def test_service_errors_are_typed(message: str, codes: dict[str, object], kind: type[ServiceError]) -> None:
    error = service_error(message, **codes)  # type: ignore[arg-type]
    assert type(error) is kind
    assert error.message == message
    assert error.details == codes


@pytest.mark.parametrize(
    ("message", "code", "kind"),
    [
        (QUOTA, 8, QuotaExceededError),
        (STOCKOUT, 8, StockoutError),
        (RANGES, 9, NetworkExhaustedError),
        ("bad image", 3, InvalidRequestError),
        ("service account", 7, NotAuthorisedError),
    ],
)
def test_outcome_keeps_types_with_a_remedy(message: str, code: int, kind: type[ServiceError]) -> None:
    assert type(outcome_error(message, code)) is kind


@given(st.text(alphabet="xyz ", max_size=20), st.one_of(st.none(), st.integers(0, 20)))
def test_outcome_is_never_a_temporary_error(message: str, code: int | None) -> None:
    # A wait that took it for "ask again" would go on until its deadline.
    assert not isinstance(outcome_error(message, code), (RateLimitedError, ServiceUnavailableError))


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("value", [Unprintable(), [Unprintable()], [10**5000], {"a": 10**5000}])
def test_values_without_a_text_are_named_by_their_type(value: object) -> None:
    error = InvalidArgumentError("field", value, "Use another.")
    shown = f"<{type(value).__name__} without a text>"
    assert str(error) == f"Invalid value for field: {shown}. Use another."
    assert repr(error) == f"InvalidArgumentError('field', {shown}, 'Use another.')"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://user:s3cret@host/x.zip", "'https://***@host/x.zip'"),
        ("https://s3cret@host/x.zip", "'https://***@host/x.zip'"),
        ("https://host/x.zip?X-Goog-Signature=s3cret&a=b", "'https://host/x.zip?***'"),
        ("https://user:s3cret@host/x?sig=s3cret#a", "'https://***@host/x?***'"),
        (["--index-url=https://u:s3cret@host/a", "b"], "['--index-url=https://***@host/a', 'b']"),
        ({"uri": "gs://bucket/x?generation=s3cret"}, "{'uri': 'gs://bucket/x?***'}"),
        ("https://host/a@b", "'https://host/a@b'"),
        ("gs://bucket/what is this?", "'gs://bucket/what is this?'"),
        ("a?b@c", "'a?b@c'"),
    ],
)
def test_secrets_in_uris_are_hidden(value: object, shown: str) -> None:
    error = InvalidArgumentError("field", value, "Use another.")
    assert str(error) == f"Invalid value for field: {shown}. Use another."
    assert "s3cret" not in repr(error)
