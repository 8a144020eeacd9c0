"""Typed errors for what Google's services answer: HTTP answers, operations, and failed clusters. Pure.

Source of the error's JSON: https://cloud.google.com/apis/design/errors#error_model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vertex_ray.core.http.recorded_texts import type_of_text
from airflow_provider_vertex_ray.core.http.redact import excerpt
from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    ClusterNotFoundError,
    EmulatorError,
    InvalidRequestError,
    NetworkExhaustedError,
    NetworkSetupError,
    NotAuthorisedError,
    PreconditionError,
    QuotaExceededError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
    StockoutError,
    UnreadableAnswerError,
)

__all__ = [
    "ErrorBody",
    "answer_error",
    "control_plane_error",
    "emulator_project_error",
    "outcome_error",
    "read_error",
    "service_error",
]


_STATUS: dict[str, type[ServiceError]] = {
    "INVALID_ARGUMENT": InvalidRequestError, "UNAUTHENTICATED": NotAuthorisedError,
    "PERMISSION_DENIED": NotAuthorisedError, "NOT_FOUND": ClusterNotFoundError, "ALREADY_EXISTS": ClusterExistsError,
    "FAILED_PRECONDITION": PreconditionError, "RESOURCE_EXHAUSTED": RateLimitedError,
    "UNAVAILABLE": ServiceUnavailableError, "DEADLINE_EXCEEDED": ServiceUnavailableError, "INTERNAL": ServiceError,
}  # fmt: skip
_RPC_NAMES = {
    3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND", 6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 13: "INTERNAL", 14: "UNAVAILABLE", 16: "UNAUTHENTICATED",
}  # fmt: skip
_HTTP_NAMES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    409: "ALREADY_EXISTS", 429: "RESOURCE_EXHAUSTED",
}  # fmt: skip


_FINAL = (
    QuotaExceededError, StockoutError, NetworkExhaustedError, NetworkSetupError, InvalidRequestError,
    NotAuthorisedError,
)  # fmt: skip
"""Types that say what to do about a failed cluster."""

_EMULATOR_SAYS = "The Vertex Ray emulator has only the project "
_EMULATOR_PROJECT = re.compile(rf"(?:projects/(?P<wanted>[^/'\"\s]+).*)?{_EMULATOR_SAYS}'(?P<only>[^']+)'", re.DOTALL)


@dataclass(frozen=True)
class ErrorBody:
    """The content of an error answer in the form of Google's APIs.

    :param message: the service's text; empty if the answer has another form
    :param status: canonical name of the error, such as ``NOT_FOUND``
    :param reason: ``reason`` of the first ErrorInfo, such as ``SERVICE_DISABLED``
    :param metadata: ``metadata`` of the same ErrorInfo
    """

    message: str = ""
    status: str | None = None
    reason: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_error(text: str) -> ErrorBody:
    """Return the content of ``{"error": {"code", "message", "status", "details"}}``; empty for any other text."""
    try:
        error = json.loads(text)["error"]
        infos = [each for each in error.get("details") or [] if isinstance(each, dict) and "reason" in each]
        message, status = str(error.get("message") or ""), error.get("status")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ErrorBody()
    info = infos[0] if infos else {}
    reason, metadata = info.get("reason"), info.get("metadata")
    return ErrorBody(
        message=message,
        status=status if isinstance(status, str) else None,
        reason=reason if isinstance(reason, str) else None,
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def service_error(
    message: str,
    *,
    status: str | None = None,
    http_status: int | None = None,
    rpc_code: int | None = None,
    default: type[ServiceError] = ServiceError,
) -> ServiceError:
    """Return the typed error for an error of the Vertex AI API.

    :param message: the service's text
    :param status: canonical name of the error, such as ``NOT_FOUND``, if the answer has one
    :param http_status: HTTP status; 5xx means that the service is unavailable unless ``status`` says otherwise
    :param rpc_code: number in an operation's or a resource's ``error.code``
    :param default: type of the error if neither the text nor a code tells more
    """
    details = {
        key: value
        for key, value in (("status", status), ("http_status", http_status), ("rpc_code", rpc_code))
        if value is not None
    }
    if (of_emulator := emulator_project_error(message, details)) is not None:
        return of_emulator
    recorded = type_of_text(message)
    if recorded is not None:
        return recorded(message, details)
    if http_status is not None and http_status >= 500 and status in ("INTERNAL", "UNKNOWN"):
        # Unlike that of an operation, an INTERNAL of a call may be gone with the next call.
        return ServiceUnavailableError(message, details)
    name = status or _RPC_NAMES.get(rpc_code or 0) or _HTTP_NAMES.get(http_status or 0)
    if name is None and http_status is not None and http_status >= 500:
        return ServiceUnavailableError(message, details)
    return _STATUS.get(name or "", default)(message, details)


def emulator_project_error(message: str, details: dict[str, Any]) -> EmulatorError | None:
    """Return the error for the emulator's answer about a project that it does not have; None for any other text.

    :param message: the service's text
    :param details: details of the error
    """
    # The pattern alone would go over a long text of the service again for each project in it.
    found = _EMULATOR_PROJECT.search(message) if _EMULATOR_SAYS in message else None
    if found is None:
        return None
    wanted = f"{found['wanted']!r}" if found["wanted"] else "another one"
    return EmulatorError(
        f"The emulator has only the project {found['only']!r}, and {wanted} was requested. Use "
        f"project_id={found['only']!r}, in the task or in the connection, or start the emulator with "
        f"'vertex-ray-emulator start --project {found['wanted'] or 'PROJECT'}'.",
        details,
    )


def answer_error(service: str, status: int, text: str) -> ServiceError:
    """Return the typed error for an HTTP answer of a Google API.

    :param service: name of the API, for an answer without a message
    :param status: HTTP status
    :param text: body of the answer
    """
    body = read_error(text)
    message = body.message or f"{service} answered {status}: {excerpt(text)}"
    if status == 404 and not body.message:
        # Only an answer in the form of Google's APIs says that a resource does not exist; a proxy may lack the page.
        return UnreadableAnswerError(message, {"http_status": status})
    return service_error(message, status=body.status, http_status=status)


def control_plane_error(status: int, text: str) -> ServiceError:
    """Return the typed error for an HTTP answer of the Vertex AI API."""
    return answer_error("The Vertex AI API", status, text)


def outcome_error(message: str, rpc_code: int | None) -> ServiceError:
    """Return the typed error for a failed operation or cluster, from the ``error`` of the resource.

    In a resource, a code such as RESOURCE_EXHAUSTED or UNAVAILABLE is final, so the types that mean "try again" are
    never returned.

    :param message: the service's text
    :param rpc_code: number in ``error.code``
    """
    found = service_error(message, rpc_code=rpc_code)
    if isinstance(found, _FINAL):
        return found
    return ServiceError(found.message, found.details)
