"""Log of every request that reached the emulator, for tests and benchmarks."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

CAPACITY = 100_000


@dataclass(frozen=True)
class LoggedRequest:
    """A request that was answered.

    :param surface: interface that received the request: ``rest``, ``grpc``, ``dashboard``, ``metadata`` or
        ``ray_client``.
    :param method: name of the RPC, such as ``CreatePersistentResource``; for a dashboard the verb and the path, such as
        ``GET /api/jobs/raysubmit_1``.
    :param resource: name of the resource with the project's *number*; for a dashboard the cluster id.
    :param time: time of the answer, in Unix seconds.
    :param authorised: whether the request carried a valid token.
    :param status: HTTP status, or the HTTP equivalent of the gRPC code; 101 for a websocket, 0 if a fault cut the
        connection and no answer was sent.
    """

    surface: str
    method: str
    resource: str
    time: float
    authorised: bool
    status: int


class RequestLog:
    """The most recent requests, oldest first.

    :param capacity: number of requests to keep.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._requests: deque[LoggedRequest] = deque(maxlen=capacity)

    def record(self, surface: str, method: str, resource: str, *, authorised: bool, status: int) -> None:
        """Append a request with the current time."""
        self._requests.append(LoggedRequest(surface, method, resource, time.time(), authorised, status))

    def clear(self) -> None:
        """Remove all requests."""
        self._requests.clear()

    def listing(
        self, *, method: str = "*", since: float = 0.0, surface: str = "*", resource: str = "*"
    ) -> list[dict[str, Any]]:
        """Return the requests as JSON objects.

        :param method: pattern in the syntax of :mod:`fnmatch` for the method.
        :param since: return only requests after this time, in Unix seconds.
        :param surface: pattern for the interface.
        :param resource: pattern for the resource.
        """
        return [
            asdict(request)
            for request in self._requests
            if request.time > since
            and fnmatchcase(request.method, method)
            and fnmatchcase(request.surface, surface)
            and fnmatchcase(request.resource, resource)
        ]
