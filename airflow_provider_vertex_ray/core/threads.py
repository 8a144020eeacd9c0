"""Where synchronous and asynchronous code meet: blocking calls from an event loop, and coroutines from outside one."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from typing import Any, TypeVar

T = TypeVar("T")

CANCEL_AGAIN = 30.0
"""Seconds after which an interrupted coroutine that has not ended is cancelled again, longer than a clean-up takes."""

SIGNAL_SECONDS = 0.5
"""Seconds after which a signal to the thread that waits is handled at the latest."""


async def in_airflow_thread(work: Callable[[], T]) -> T:
    """Run a blocking call that may use Airflow (a connection, a variable, XCom) in a thread, and return its result.

    The call runs to its end even if the caller is cancelled. A triggerer of Airflow 3.0 or 3.1 exits if a request to
    its supervisor is cancelled between question and answer (https://github.com/apache/airflow/issues/64620), and that
    ends the waits of all tasks.

    :param work: the blocking call.
    :raises Exception: whatever the call raises.
    """
    # Airflow 3's connection to its supervisor recognises calls from sync_to_async's threads only.
    from asgiref.sync import sync_to_async

    call = asyncio.ensure_future(sync_to_async(work)())
    call.add_done_callback(_retrieve)
    return await asyncio.shield(call)


def _retrieve(call: asyncio.Future[Any]) -> None:
    # After a cancellation, nobody else asks for the error, and asyncio would log it as never retrieved.
    if not call.cancelled():
        call.exception()


def run_sync(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine from synchronous code, in a thread of its own, and wait for it.

    Airflow calls ``on_kill`` in a signal handler, which interrupts the main thread wherever it is. Were the coroutine
    run there, the interrupted thread could hold a lock that ``on_kill`` needs too (the log's, most often, while a
    job's output is copied), and the kill would hang until Airflow ends the process, with the job still running. A
    thread that only waits holds none.

    If the wait is interrupted by an exception (a signal handler's, a timeout's), the coroutine is cancelled and ended
    first.

    :param make: creates the coroutine, in the thread that runs it.
    :return: the coroutine's result.
    :raises Exception: whatever the coroutine raises.
    """
    done: futures.Future[T] = futures.Future()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []
    interrupted = threading.Event()

    async def coroutine() -> T:
        loop = asyncio.get_running_loop()
        task = loop.create_task(make())
        running.append((loop, task))
        if interrupted.is_set():
            task.cancel()
        return await task

    def work() -> None:
        try:
            result = asyncio.run(coroutine())
        except BaseException as error:  # noqa: BLE001 - handed over to the calling thread
            done.set_exception(error)
        else:
            done.set_result(result)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="vertex-ray-sync", daemon=True)
    try:
        thread.start()
        while not done.done():
            # A signal that comes right before this blocks would only be handled once it ends.
            futures.wait([done], timeout=SIGNAL_SECONDS)
        return done.result()
    except BaseException:
        interrupted.set()
        while thread.is_alive() and not done.done():
            for loop, task in running:
                # The loop may have closed meanwhile.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(task.cancel)
            # Again, because a library may swallow one: before Python 3.12, asyncio.wait_for does.
            futures.wait([done], timeout=CANCEL_AGAIN)
        raise
