"""The typed error for what the service said: an answer's, an operation's, a cluster's. Pure."""

from __future__ import annotations

from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    ClusterNotFoundError,
    InvalidRequestError,
    NameNotReusableError,
    NetworkExhaustedError,
    NotAuthorisedError,
    PreconditionError,
    QuotaExceededError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
    StockoutError,
)

__all__ = ["outcome_error", "service_error"]

# Texts of the service, as found in documentation and in reports of live runs (docs/service-facts.md); what is matched
# is their constant part, in lower case.
_TEXTS: tuple[tuple[str, type[ServiceError]], ...] = (
    ("quota metrics exceed quota limits", QuotaExceededError),
    ("quota exceeded", QuotaExceededError),
    ("resources are insufficient in region", StockoutError),
    ("couldn't find free blocks in allocated ip ranges", NetworkExhaustedError),
    ("recently deleted", NameNotReusableError),
    ("was deleted", NameNotReusableError),
)
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


def service_error(
    message: str,
    *,
    status: str | None = None,
    http_status: int | None = None,
    rpc_code: int | None = None,
    default: type[ServiceError] = ServiceError,
) -> ServiceError:
    """The typed error for what the control plane said.

    :param message: The service's text.
    :param status: The canonical name, such as ``NOT_FOUND``, where the answer had one.
    :param http_status: The HTTP status; 5xx is unavailability unless ``status`` says otherwise.
    :param rpc_code: The number in an operation's or a resource's ``error.code``.
    :param default: The type when neither the text nor a code tells more.
    """
    details = {
        key: value
        for key, value in (("status", status), ("http_status", http_status), ("rpc_code", rpc_code))
        if value is not None
    }
    lowered = message.lower()
    for text, kind in _TEXTS:
        if text in lowered:
            return kind(message, details)
    name = status or _RPC_NAMES.get(rpc_code or 0) or _HTTP_NAMES.get(http_status or 0)
    if name is None and http_status is not None and http_status >= 500:
        return ServiceUnavailableError(message, details)
    return _STATUS.get(name or "", default)(message, details)


def outcome_error(message: str, rpc_code: int | None) -> ServiceError:
    """The typed error for what an operation or a cluster came to: ``error`` of the resource, not of an answer.

    Here a code such as RESOURCE_EXHAUSTED or UNAVAILABLE is final. The types that mean "ask again" would mislead.

    :param message: The service's text.
    :param rpc_code: The number in ``error.code``.
    """
    found = service_error(message, rpc_code=rpc_code)
    if isinstance(found, (QuotaExceededError, StockoutError, NetworkExhaustedError, InvalidRequestError)):
        return found
    if isinstance(found, NotAuthorisedError):
        return found
    return ServiceError(found.message, found.details)
