"""The checks of every REST and gRPC request: token, faults, permissions; and its entry in the request log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.outcomes import as_error
from vertex_ray_emulator.wire.errors import ApiError, ConnectionCutError, unauthenticated, unexpected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vertex_ray_emulator.faults import Fault, Faults
    from vertex_ray_emulator.project.project_script import Project
    from vertex_ray_emulator.request_log import RequestLog
    from vertex_ray_emulator.surfaces.tokens import Tokens

HANG_SECONDS = 3600.0
"""How long a request hangs if its fault has no delay; without a limit a forgotten fault would leak connections."""
NO_ANSWER = 0
"""The status in the request log of a request that was not answered."""


@dataclass(frozen=True)
class Answer:
    """The outcome of a request.

    :param message: the response message.
    :param truncate_after: close the connection after this many bytes of the response body; None to send all of it.
    """

    message: Any
    truncate_after: int | None = None


class RequestPipeline:
    """Checks, delays or fails requests, and logs them.

    :param tokens: the valid access tokens.
    :param faults: faults of the scopes ``auth`` and ``control_plane`` are applied.
    :param request_log: records each request, rejected ones included.
    :param project: the enabled services and the caller's permissions; None to allow everything.
    """

    def __init__(self, tokens: Tokens, faults: Faults, request_log: RequestLog, project: Project | None = None) -> None:
        self._project = project
        self._tokens = tokens
        self._faults = faults
        self._request_log = request_log

    async def run(
        self,
        surface: str,
        method: str,
        resource: str,
        authorization: str | None,
        work: Callable[[], Awaitable[Any]],
    ) -> Answer:
        """Handle a request, unless its token, a fault or the project forbids it.

        :param surface: ``rest`` or ``grpc``.
        :param method: name of the RPC.
        :param resource: name of the resource, with the project's number.
        :param authorization: value of the ``Authorization`` header.
        :param work: handles the request and returns the response message.
        :raises ApiError: if the request must be answered with an error.
        :raises ConnectionCutError: if the connection must be closed without an answer.
        """
        authorised = self._tokens.accepts(authorization)
        status = NO_ANSWER
        try:
            if fault := self._faults.take("auth", method, resource):
                await asyncio.sleep(fault.delay)
                if fault.action == "status":
                    authorised = False
                    raise as_error(fault)
            if not authorised:
                raise unauthenticated()

            async def allowed() -> Any:
                if self._project is not None:
                    self._project.check(method, resource)
                return await work()

            answer = await self._run(self._faults.take("control_plane", method, resource), allowed)
            status = 200
            return answer
        except ApiError as error:
            status = error.http_status
            raise
        except (ConnectionCutError, ConnectionError):
            raise
        except Exception as error:
            answer_error = unexpected(error)
            status = answer_error.http_status
            raise answer_error from error
        finally:
            self._request_log.record(surface, method, resource, authorised=authorised, status=status)

    async def _run(self, fault: Fault | None, work: Callable[[], Awaitable[Any]]) -> Answer:
        if fault is None:
            return Answer(await work())
        if fault.action == "hang":
            await asyncio.sleep(fault.delay or HANG_SECONDS)
            raise ConnectionCutError
        await asyncio.sleep(fault.delay)
        if fault.action == "status":
            raise as_error(fault)
        if fault.action == "reset":
            raise ConnectionCutError
        message = await work()
        if fault.action == "drop_response":
            raise ConnectionCutError
        return Answer(message, fault.after if fault.action == "truncate" else None)
