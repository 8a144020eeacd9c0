"""The log of every request that reached the emulator, for tests and benchmarks to read."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

CAPACITY = 100_000


@dataclass(frozen=True)
class Call:
    """One request.

    :param surface: Where it came in: ``rest``, ``grpc``, ``dashboard``, ``metadata`` or ``ray_client``.
    :param method: Of the control plane the RPC's name, such as ``CreatePersistentResource``; of a dashboard
        the verb and the path, such as ``GET /api/jobs/raysubmit_1``.
    :param resource: The resource's name with the project's *number* (control plane), or the cluster id.
    :param time: When it was answered, in unix seconds.
    :param authorised: Whether it carried a token that was valid then.
    :param status: The HTTP status, or the HTTP equivalent of the gRPC code; 101 for a websocket, 0 when the
        connection was cut on purpose and no answer was sent.
    """

    surface: str
    method: str
    resource: str
    time: float
    authorised: bool
    status: int


class RequestLog:
    """The last calls, oldest first.

    :param capacity: How many calls are kept.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._calls: deque[Call] = deque(maxlen=capacity)

    def record(self, surface: str, method: str, resource: str, *, authorised: bool, status: int) -> None:
        """Append a call with the present time."""
        self._calls.append(Call(surface, method, resource, time.time(), authorised, status))

    def clear(self) -> None:
        """Forget all calls."""
        self._calls.clear()

    def listing(
        self, *, method: str = "*", since: float = 0.0, surface: str = "*", resource: str = "*"
    ) -> list[dict[str, Any]]:
        """The calls as JSON objects.

        :param method: An fnmatch pattern over the method; so are ``surface`` and ``resource``.
        :param since: Only calls after this time, in unix seconds.
        """
        return [
            asdict(call)
            for call in self._calls
            if call.time > since
            and fnmatchcase(call.method, method)
            and fnmatchcase(call.surface, surface)
            and fnmatchcase(call.resource, resource)
        ]
