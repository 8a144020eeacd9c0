"""Typed errors for the answers of a dashboard, or of the proxy in front of it."""

from __future__ import annotations

import re

from airflow_provider_vertex_ray.core.http.redact import excerpt
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    JobNotFoundError,
    NotAuthorisedError,
    RequestTooLargeError,
    ServiceUnavailableError,
    SubmissionIdTakenError,
    UnreadableAnswerError,
    VertexRayError,
)

DOES_NOT_EXIST = "does not exist"
"""Part of Ray's text for a job or a package that does not exist."""

DUPLICATE = re.compile(r"submission_id \S+ already exists")
"""Ray answers 500 to a submission id that is in use; only the text of the traceback distinguishes it from a failure."""


def dashboard_error(status: int, text: str) -> VertexRayError:
    """Return the typed error for an HTTP answer of a dashboard, or of the proxy in front of it."""
    message = f"The cluster's dashboard answered {status}: {_last_line(text)}"
    details = {"http_status": status}
    if status in (401, 403):
        return NotAuthorisedError(message, details)
    if status == 404 and DOES_NOT_EXIST not in text:
        # Not Ray's answer, but the page of a proxy that does not know the dashboard at the moment.
        return UnreadableAnswerError(message, details)
    if status == 404:
        return JobNotFoundError(message, details)
    if status == 413:
        return RequestTooLargeError(
            f"The cluster's dashboard, or the proxy in front of it, rejected the request as too large (413): "
            f"{_last_line(text)}",
            details,
        )
    if status in (400, 405, 422):
        message = f"The cluster's dashboard rejected the request ({status}): {_last_line(text)}"
        return InvalidRequestError(message, details)
    if DUPLICATE.search(text):
        return SubmissionIdTakenError(message, details)
    return ServiceUnavailableError(message, details)


def _last_line(text: str) -> str:
    """Return the reason in a body, which may be a traceback or nested tracebacks: its last line with words."""
    lines = [line.strip() for line in text.replace("\\n", "\n").splitlines() if re.search(r"\w", line)]
    return excerpt(lines[-1] if lines and text.lstrip()[:1] not in ("{", "[") else text, 500)
