"""The content of error answers in the form of Google's APIs, and of anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.http.google_call import cloud_error
from airflow_provider_vertex_ray.core.http.service_errors import (
    ErrorBody,
    answer_error,
    control_plane_error,
    read_error,
)
from airflow_provider_vertex_ray.errors import ClusterNotFoundError, EmulatorError, ServiceUnavailableError

KEYS = ["error", "message", "details", "status", "reason", "metadata"]
INFO = {"reason": "SERVICE_DISABLED", "metadata": {"service": "compute.googleapis.com"}}
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(st.sampled_from(KEYS), inner),
    ),
)


def test_error_answer_is_read_with_its_first_info() -> None:
    body = {
        "error": {
            "code": 403,
            "message": "no",
            "status": "PERMISSION_DENIED",
            "details": [{"a": 1}, INFO, {"reason": "x"}],
        }
    }
    assert read_error(json.dumps(body)) == ErrorBody("no", "PERMISSION_DENIED", "SERVICE_DISABLED", INFO["metadata"])


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("//aiplatform.googleapis.com/projects/other/locations/us-central1", "'other' was requested"),
        ("somewhere", "another one was requested"),
    ],
)
def test_emulators_answer_about_another_project_is_no_lack_of_permissions(path: str, wanted: str) -> None:
    text = f"Permission 'x' denied on resource '{path}' (or it may not exist). The Vertex Ray emulator has only the "
    body = {"error": {"code": 403, "message": f"{text}project 'demo-project'.", "status": "PERMISSION_DENIED"}}
    for found in (control_plane_error(403, json.dumps(body)), cloud_error(403, json.dumps(body))):
        assert isinstance(found, EmulatorError)
        assert wanted in str(found)
        assert "project_id='demo-project'" in str(found)
        assert "roles/" not in str(found)


@pytest.mark.parametrize("text", ["", "<html>", "[]", "3", '{"error": "text"}', '{"error": 3}', "{}"])
def test_any_other_answer_is_empty(text: str) -> None:
    assert read_error(text) == ErrorBody()


@given(st.one_of(st.text(), JSON.map(json.dumps), JSON.map(lambda value: json.dumps({"error": value}))))
def test_no_answer_breaks_the_reader(text: str) -> None:
    found = read_error(text)
    assert isinstance(found.message, str)
    assert found.status is None or isinstance(found.status, str)
    assert answer_error("The API", 500, text).message


@pytest.mark.parametrize("details", ["odd", 3, [3], [{"reason": 3, "metadata": 3}]])
def test_odd_details_are_ignored(details: Any) -> None:
    assert read_error(json.dumps({"error": {"message": "m", "details": details}})) in (ErrorBody("m"), ErrorBody())


def test_answer_without_a_message_is_quoted() -> None:
    error = answer_error("The API", 503, "<html>bad gateway</html>")
    assert type(error) is ServiceUnavailableError
    assert error.message == "The API answered 503: <html>bad gateway</html>"
    named = answer_error("The API", 404, '{"error": {"message": "gone", "status": "NOT_FOUND"}}')
    assert type(named) is ClusterNotFoundError
    assert named.message == "gone"
