"""Dashboards of running clusters as the proxy sees them, and the limits of the proxy."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aiohttp import web

from vertex_ray_emulator.wire.errors import ApiError, unauthenticated

if TYPE_CHECKING:
    from collections.abc import Collection

Readiness = Literal["warming", "ready", "dead"]

RESPONSE_SECONDS = 30.0
REQUEST_BYTES = 32 * 1024 * 1024
_NOT_READY = "The dashboard is not ready yet."


@dataclass(frozen=True)
class Target:
    """The dashboard of a running cluster.

    :param cluster_id: the cluster's id, for the request log and for faults.
    :param port: port of Ray's dashboard on 127.0.0.1.
    :param warm_at: Unix time in seconds until which the proxy answers ``cold_status``, as the service does for new
        clusters; infinite for a dashboard that never comes up.
    :param permission_seconds: seconds after that in which it answers 401 and 403, as the service does while it has not
        seen a cluster's permissions.
    :param cold_status: status until ``warm_at``.
    """

    cluster_id: str
    port: int
    warm_at: float = 0.0
    permission_seconds: float = 0.0
    cold_status: int = 503

    @property
    def readiness(self) -> Readiness:
        """Whether the dashboard answers."""
        if math.isinf(self.warm_at):
            return "dead"
        return "ready" if time.time() >= self.warm_at + self.permission_seconds else "warming"

    def not_ready(self) -> web.Response | None:
        """Return the answer to a request before the dashboard is ready; None once it is."""
        now = time.time()
        if now < self.warm_at:
            return timed_out() if self.cold_status == 524 else web.Response(status=503, text=_NOT_READY)
        if now >= self.warm_at + self.permission_seconds:
            return None
        # Clients that renew their token on a 401 must not take the 403 for final either.
        if now < self.warm_at + self.permission_seconds / 2:
            return error_response(unauthenticated())
        return error_response(ApiError("PERMISSION_DENIED", "The caller does not have permission"))


@dataclass(frozen=True)
class ProxyLimits:
    """Limits of Google's proxy in front of the dashboards, where they are known or assumed.

    The proxy that fits all reports is google/inverting-proxy.

    :param websockets: whether an upgrade to a websocket passes; otherwise the request arrives as a plain one.
    :param response_seconds: time for an answer, its body included; then 524, or a cut. None for no limit.
    :param request_bytes: size of a request's body; 413 above it. None for no limit.
    """

    websockets: bool = True
    response_seconds: float | None = None
    request_bytes: int | None = None

    @classmethod
    def of(cls, traits: Collection[str]) -> ProxyLimits:
        """Return the limits that belong to traits (see ``profile.TRAITS``)."""
        return cls(
            websockets="no-websockets" not in traits,
            response_seconds=RESPONSE_SECONDS if "response-limit" in traits else None,
            request_bytes=REQUEST_BYTES if "request-size" in traits else None,
        )


class TooLargeError(Exception):
    """The body of a request is larger than the proxy allows."""


def too_large() -> web.Response:
    """Return the answer to a request whose body is too large."""
    text = "413. That's an error. Your client issued a request that was too large."
    return web.Response(status=413, text=text, headers={"Connection": "close"})


def timed_out() -> web.Response:
    """Return the answer to a request that the dashboard did not answer in time."""
    return web.Response(status=524, reason="A Timeout Occurred", text="error code: 524")


def error_response(error: ApiError) -> web.Response:
    """Return an error of the API as a response."""
    return web.json_response(error.body(), status=error.http_status)
