"""Reading from Google's other services: one call, and the typed error of its answer.

Source of the error's form: https://cloud.google.com/apis/design/errors#error_model.
"""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_vertex_ray.core.http.service_errors import service_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.errors import (
    NotAuthorisedError,
    RateLimitedError,
    ServiceDisabledError,
    ServiceError,
    ServiceUnavailableError,
    VertexRayError,
)

ATTEMPTS = 3
"""Tries of a call: whoever asks wants an answer soon, or none."""

TIMEOUT = 20.0
"""Seconds for one try."""


class NoSuchResourceError(ServiceError):
    """What was asked for is not there (404)."""


async def read_json(
    transport: Transport,
    method: str,
    url: str,
    *,
    params: dict[str, str] | None = None,
    body: Any = None,
) -> dict[str, Any]:
    """The answer of a call that changes nothing.

    :raises NoSuchResourceError: There is no such thing.
    :raises ServiceDisabledError: The API is not enabled; ``details["service"]`` names it.
    :raises NotAuthorisedError: A permission is missing; ``details["permission"]`` names it where the answer does.
    :raises VertexRayError: It could not be asked.
    """
    answer = await transport.request(
        method, url, params=params, body=body, error_from=cloud_error, attempts=ATTEMPTS, timeout=TIMEOUT
    )
    found = answer.json()
    if not isinstance(found, dict):
        raise ServiceError(f"{url} answered with something that is no JSON object: {answer.text[:200]!r}")
    return found


def cloud_error(status: int, text: str) -> VertexRayError:
    """The typed error for an answer of one of Google's services."""
    message, name, info = _read(text)
    said = message or f"The service answered {status}: {' '.join(text.split())[:300]}"
    metadata = info.get("metadata") or {}
    named = {
        "reason": info.get("reason"),
        "service": metadata.get("service"),
        "permission": metadata.get("permission"),
    }
    known = {key: value for key, value in named.items() if isinstance(value, str) and value}
    details: dict[str, Any] = {"http_status": status, **known}
    if details.get("reason") == "SERVICE_DISABLED":
        return ServiceDisabledError(said, details)
    if status in (401, 403):
        return NotAuthorisedError(said, details)
    if status == 404:
        # Only an answer in the form of Google's APIs says that a resource is not there; a proxy may have another page.
        return NoSuchResourceError(said, details) if message else ServiceError(said, details)
    if status == 429:
        # Its text speaks of an exceeded quota too, but of requests.
        return RateLimitedError(said, details)
    if status >= 500:
        # INTERNAL of a service that is only read: it may do better the next time.
        return ServiceUnavailableError(said, details)
    return service_error(said, status=name, http_status=status)


def _read(text: str) -> tuple[str, str | None, dict[str, Any]]:
    """Message, canonical name and ErrorInfo of an answer; empty where it has none."""
    try:
        error = json.loads(text)["error"]
        infos = [each for each in error.get("details") or [] if isinstance(each, dict) and "reason" in each]
        return str(error.get("message") or ""), error.get("status"), infos[0] if infos else {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", None, {}
