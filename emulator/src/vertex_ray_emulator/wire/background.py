"""Work that goes on after a request was accepted, and is given up when the emulator stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.wire.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from vertex_ray_emulator.wire.operations import Operations, Running

log = logging.getLogger(__name__)


class Background:
    """Tasks that end operations.

    :param operations: Where each piece of work ends its operation.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Carry out a piece of work."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def finish(self, operation: Running, seconds: float, work: Callable[[], Any | None]) -> Running:
        """End an operation after so many seconds with what a piece of work gives, None for an empty answer."""

        async def later() -> None:
            await asyncio.sleep(seconds)
            try:
                response = work()
            except ApiError as error:
                self._operations.fail(operation, error)
            except Exception:
                log.exception("the operation %s failed", operation.name)
                self._operations.fail(operation, ApiError("INTERNAL", "Internal error encountered."))
            else:
                self._operations.succeed(operation, response)

        self.spawn(later(), operation.name)
        return operation

    async def close(self) -> None:
        """Give up everything that is under way."""
        for task in list(self._tasks):
            await cancel(task)


async def cancel(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait until it has ended."""
    if task is not None and not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
