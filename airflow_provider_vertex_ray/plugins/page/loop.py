"""An event loop in a separate thread, so that Google and the dashboards never block the API server's loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

MOST_THREADS = 32
"""Threads for blocking work, such as reading a connection from a secrets backend that hangs."""


class PageLoop:
    """Run coroutines for the threads that serve requests; the loop starts with the first one."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._running())

    def result(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run a coroutine in the loop, and wait for it.

        :raises TimeoutError: the coroutine took longer, and was cancelled.
        """
        future = self.submit(work)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise TimeoutError(f"not done within {timeout:g} s") from None

    def stop(self) -> None:
        """Cancel what still runs, such as an action that waits for a dashboard, and stop the loop and its thread."""
        if self._loop is not None:
            self.result(_cancel_others(), 10.0)
        with self._lock:
            if self._loop is not None and self._thread is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(10.0)
                self._loop = self._thread = None

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                pool = concurrent.futures.ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="ray-clusters")
                loop.set_default_executor(pool)
                self._thread = threading.Thread(target=_run, args=(loop,), name="ray-clusters-page", daemon=True)
                self._thread.start()
            return self._loop


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
