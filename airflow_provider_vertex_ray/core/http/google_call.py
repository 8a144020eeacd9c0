"""Read-only calls of Google's other services, with the typed error of their answers."""

from __future__ import annotations

from typing import Any, TypeVar

from airflow_provider_vertex_ray.core.http.redact import excerpt
from airflow_provider_vertex_ray.core.http.service_errors import emulator_project_error, read_error, service_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.errors import (
    NotAuthorisedError,
    RateLimitedError,
    ServiceDisabledError,
    ServiceError,
    ServiceUnavailableError,
    VertexRayError,
)

T = TypeVar("T")

ATTEMPTS = 3
"""Attempts of a call: the caller needs an answer soon, or none."""

TIMEOUT = 20.0
"""Seconds for one attempt."""


class NoSuchResourceError(ServiceError):
    """The requested resource does not exist (404)."""


async def read_json(
    transport: Transport,
    kind: type[T],
    method: str,
    url: str,
    *,
    params: dict[str, str] | None = None,
    body: Any = None,
) -> T:
    """Return the answer to a call that changes nothing, as an instance of its model.

    :param transport: the connection
    :param kind: the model of the answer
    :param method: HTTP method
    :param url: full URL
    :param params: query parameters
    :param body: request body, sent as JSON
    :raises NoSuchResourceError: the resource does not exist
    :raises ServiceDisabledError: the API is not enabled; ``details["service"]`` names it
    :raises NotAuthorisedError: a permission is missing; ``details["permission"]`` names it if the answer does
    :raises VertexRayError: the call failed for another reason
    """
    return await transport.read(
        kind, method, url, params=params, body=body, error_from=cloud_error, attempts=ATTEMPTS, timeout=TIMEOUT
    )


def cloud_error(status: int, text: str) -> VertexRayError:
    """Return the typed error for an HTTP answer of one of Google's services.

    :param status: HTTP status
    :param text: body of the answer
    """
    body = read_error(text)
    message = body.message or f"The service answered {status}: {excerpt(text)}"
    named = {
        "reason": body.reason,
        "service": body.metadata.get("service"),
        "permission": body.metadata.get("permission"),
    }
    known = {key: value for key, value in named.items() if isinstance(value, str) and value}
    details: dict[str, Any] = {"http_status": status, **known}
    if details.get("reason") == "SERVICE_DISABLED":
        return ServiceDisabledError(message, details)
    if status in (401, 403):
        return emulator_project_error(message, details) or NotAuthorisedError(message, details)
    if status == 404:
        # Only an answer in the form of Google's APIs says that a resource does not exist; a proxy may lack the page.
        return NoSuchResourceError(message, details) if body.message else ServiceError(message, details)
    if status == 429:
        # Its text also mentions an exceeded quota, but one of requests.
        return RateLimitedError(message, details)
    if status >= 500:
        # A read that ended in INTERNAL may succeed the next time.
        return ServiceUnavailableError(message, details)
    return service_error(message, status=body.status, http_status=status)
