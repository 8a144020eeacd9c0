"""Background work that continues after a request was accepted, and is cancelled when the emulator stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from vertex_ray_emulator.wire.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from vertex_ray_emulator.wire.operations import LongRunningOperation, Operations

T = TypeVar("T")

log = logging.getLogger(__name__)


class Background:
    """Background tasks that complete long-running operations.

    :param operations: operations that the work completes.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run work as a task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def finish(
        self, operation: LongRunningOperation, seconds: float, work: Callable[[], Any | None]
    ) -> LongRunningOperation:
        """Complete an operation after a delay.

        :param operation: operation to complete.
        :param seconds: delay in seconds.
        :param work: returns the response, None for an empty one; an :class:`ApiError` fails the operation.
        :return: the operation.
        """

        async def later() -> None:
            await asyncio.sleep(seconds)
            try:
                response = work()
            except ApiError as error:
                self._operations.fail(operation, error)
            except Exception:
                log.exception("Operation %s failed with an unexpected error", operation.name)
                self._operations.fail(operation, ApiError("INTERNAL", "Internal error encountered."))
            else:
                self._operations.succeed(operation, response)

        self.spawn(later(), operation.name)
        return operation

    async def close(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        for task in list(self._tasks):
            await cancel(task)


_shielded: set[asyncio.Task[Any]] = set()
"""Work that goes on without its caller: an event loop itself does not keep its tasks alive."""


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Carry out work to its end even if the caller is cancelled, as a request is whose client disconnects."""
    task = asyncio.get_running_loop().create_task(work)
    _shielded.add(task)
    task.add_done_callback(_shielded.discard)
    return await asyncio.shield(task)


async def cancel(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait until it has ended."""
    if task is not None and not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
