"""What every request to the control plane passes, whichever way it came: token, faults, call log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.outcomes import as_error
from vertex_ray_emulator.wire.errors import ApiError, ConnectionCutError, unauthenticated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vertex_ray_emulator.faults import Fault, Faults
    from vertex_ray_emulator.project.project_script import Project
    from vertex_ray_emulator.request_log import RequestLog
    from vertex_ray_emulator.surfaces.tokens import Tokens

# A request that hangs is let go in the end, or a forgotten fault would keep connections for ever.
HANG_SECONDS = 3600.0
NO_ANSWER = 0


@dataclass(frozen=True)
class Answer:
    """What a request came to.

    :param message: The answer.
    :param truncate_after: Cut the connection after so many bytes of the answer's body; None for a whole one.
    """

    message: Any
    truncate_after: int | None = None


class RequestPipeline:
    """Lets requests through to the control plane.

    :param tokens: Which callers may.
    :param faults: What is to go wrong, by the scopes ``auth`` and ``control_plane``.
    :param calls: Where each request is noted, refused ones too.
    :param project: Which services are enabled, and what the caller may do; None for everything.
    """

    def __init__(self, tokens: Tokens, faults: Faults, calls: RequestLog, project: Project | None = None) -> None:
        self._project = project
        self._tokens = tokens
        self._faults = faults
        self._calls = calls

    async def run(
        self,
        surface: str,
        method: str,
        resource: str,
        authorization: str | None,
        work: Callable[[], Awaitable[Any]],
    ) -> Answer:
        """Carry a request out, unless something is in its way.

        :param surface: ``rest`` or ``grpc``.
        :param method: The RPC's name.
        :param resource: The name of the resource, with the project's number.
        :param authorization: The header's value.
        :param work: The request itself.
        :raises ApiError: to be answered as an error.
        :raises ConnectionCutError: not to be answered at all.
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
        finally:
            self._calls.record(surface, method, resource, authorised=authorised, status=status)

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
