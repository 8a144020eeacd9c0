"""Errors as Google's APIs answer them, on REST and on gRPC."""

from __future__ import annotations

from typing import Any

# google/rpc/code.proto: number and HTTP mapping of each canonical code.
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

# The code that Google's front ends give where only an HTTP status is known.
_BY_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    409: "ABORTED", 412: "FAILED_PRECONDITION", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED",
    500: "INTERNAL", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip

UNAUTHENTICATED_MESSAGE = (
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
    "valid authentication credential."
)


def code_for_status(status: int) -> str:
    """The canonical code's name for an HTTP status."""
    return _BY_STATUS.get(status, "INTERNAL" if status >= 500 else "UNKNOWN")


class ApiError(Exception):
    """A request that is answered with an error.

    :param code: The canonical code's name, such as ``NOT_FOUND``.
    :param message: The text for the caller.
    :param http_status: The status on REST; by default the one that belongs to the code.
    :param details: What is said for programs, such as a ``google.rpc.ErrorInfo``; only REST has it.
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
        """The code's number, as in ``google.rpc.Status.code``."""
        return CODES[self.code][0]

    def body(self) -> dict[str, Any]:
        """The JSON body that goes with it."""
        error: dict[str, Any] = {"code": self.http_status, "message": self.message, "status": self.code}
        if self.details:
            error["details"] = self.details
        return {"error": error}


class ConnectionCutError(Exception):
    """The connection is to be cut without an answer: a fault was asked for."""


def invalid(message: str) -> ApiError:
    """A 400 INVALID_ARGUMENT."""
    return ApiError("INVALID_ARGUMENT", message)


def unauthenticated() -> ApiError:
    """The 401 for a token that is missing, unknown, expired or revoked."""
    return ApiError("UNAUTHENTICATED", UNAUTHENTICATED_MESSAGE)
