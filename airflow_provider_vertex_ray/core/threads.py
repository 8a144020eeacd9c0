"""Blocking calls into Airflow from the triggerer's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


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
