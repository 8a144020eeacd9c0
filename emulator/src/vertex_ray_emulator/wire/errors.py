"""Errors in the format of Google's APIs, for REST and gRPC."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)

CODES: dict[str, tuple[int, int]] = {
    "OK": (0, 200),
    "CANCELLED": (1, 499),
    "UNKNOWN": (2, 500),
    "INVALID_ARGUMENT": (3, 400),
    "DEADLINE_EXCEEDED": (4, 504),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "RESOURCE_EXHAUSTED": (8, 429),
    "FAILED_PRECONDITION": (9, 400),
    "ABORTED": (10, 409),
    "OUT_OF_RANGE": (11, 400),
    "UNIMPLEMENTED": (12, 501),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
    "DATA_LOSS": (15, 500),
    "UNAUTHENTICATED": (16, 401),
}
"""Number and HTTP status of each canonical code, from google/rpc/code.proto."""

_BY_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    409: "ABORTED", 412: "FAILED_PRECONDITION", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED",
    500: "INTERNAL", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
"""Code that Google's front ends answer with where only an HTTP status is known."""

UNAUTHENTICATED_MESSAGE = (
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
    "valid authentication credential."
)


def code_for_status(status: int) -> str:
    """Return the name of the canonical code for an HTTP status."""
    return _BY_STATUS.get(status, "INTERNAL" if status >= 500 else "UNKNOWN")


class ApiError(Exception):
    """An error that a request is answered with.

    :param code: name of the canonical code, such as ``NOT_FOUND``.
    :param message: text for the caller.
    :param http_status: HTTP status for REST; by default the one of the code.
    :param details: machine-readable details, such as a ``google.rpc.ErrorInfo``; sent over REST only.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        http_status: int | None = None,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or []
        self.http_status = http_status if http_status is not None else CODES[code][1]

    @property
    def number(self) -> int:
        """Number of the code, as in ``google.rpc.Status.code``."""
        return CODES[self.code][0]

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the error."""
        error: dict[str, Any] = {"code": self.http_status, "message": self.message, "status": self.code}
        if self.details:
            error["details"] = self.details
        return {"error": error}


class ConnectionCutError(Exception):
    """A fault requires that the connection be cut without an answer."""


def invalid(message: str) -> ApiError:
    """Return an error 400 INVALID_ARGUMENT."""
    return ApiError("INVALID_ARGUMENT", message)


def unauthenticated() -> ApiError:
    """Return the error 401 for a token that is missing, unknown, expired or revoked."""
    return ApiError("UNAUTHENTICATED", UNAUTHENTICATED_MESSAGE)


def unexpected(error: Exception) -> ApiError:
    """Log an exception that nothing else handles, and return the error for the caller, without the exception's text.

    A request that is nested too deeply for a parser is the caller's error, 400.
    """
    if isinstance(error, RecursionError):
        return invalid("Invalid request: it is nested too deeply.")
    log.error("A request failed with an unexpected error", exc_info=error)
    return ApiError("INTERNAL", "Internal error encountered.")
