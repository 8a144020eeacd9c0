"""A coroutine run from synchronous code: its result, its errors, and signals that come meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.threads import run_sync
from airflow_provider_vertex_ray.errors import NotAuthorisedError


async def answer() -> int:
    return 42


async def fail() -> int:
    raise NotAuthorisedError("no")


def test_coroutine_runs_from_synchronous_code() -> None:
    assert run_sync(answer) == 42
    with pytest.raises(NotAuthorisedError) as caught:
        run_sync(fail)
    # A user's traceback begins with the error, not with how it was called.
    assert caught.value.__context__ is None


async def test_coroutine_runs_inside_a_running_loop() -> None:
    assert run_sync(answer) == 42
    with pytest.raises(NotAuthorisedError):
        run_sync(fail)


def signal_main_thread(handler: Callable[[], None], wait: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run a coroutine from the main thread with a handler for SIGUSR1, as Airflow runs a task's with SIGTERM."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handler())
    try:
        run_sync(wait)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_gets_a_lock_that_the_coroutine_holds() -> None:
    lock = threading.Lock()
    taken: list[bool] = []
    asked = threading.Event()

    async def wait() -> None:
        with lock:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            await asyncio.to_thread(asked.wait, 240)

    def handler() -> None:
        asked.set()
        taken.append(lock.acquire(timeout=240))

    signal_main_thread(handler, wait)
    assert taken == [True]


def test_a_signal_that_does_not_wake_the_waiting_thread_is_handled_soon() -> None:
    """As one that comes right before the thread waits, or that the system gives to another thread."""
    handled = threading.Event()

    async def wait() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        assert await asyncio.to_thread(handled.wait, 240)

    signal_main_thread(handled.set, wait)


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_an_interrupted_wait_ends_its_coroutine_first(error: type[BaseException]) -> None:
    cleaned_up: list[str] = []

    async def wait() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up.append("yes")

    def handler() -> None:
        raise error("interrupted")

    with pytest.raises(error, match="interrupted"):
        signal_main_thread(handler, wait)
    assert cleaned_up == ["yes"]


def test_a_coroutine_sees_the_callers_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def wait() -> str:
        return variable.get()

    def caller() -> str:
        variable.set("the caller's")
        return run_sync(wait)

    assert contextvars.copy_context().run(caller) == "the caller's"
