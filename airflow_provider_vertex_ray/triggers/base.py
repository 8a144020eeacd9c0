"""One waiting, two ways: deferred in the triggerer, or in the worker itself. The outcome travels as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.errors import VertexRayError, error_from_dict

HAS_ON_KILL = hasattr(BaseTrigger, "on_kill")
"""Whether Airflow tells a trigger that its task was killed (3.3 and later)."""

LAST_SECONDS = 5.0
"""Seconds for a cancelled wait to close what it opened."""

LAST_LOOK = 1.0
"""Seconds at least for a look that is on its way when the deadline comes."""

STILL_WAITING = "deferred"


class WaitTrigger(BaseTrigger):
    """Waits for something at the service and reports success or a typed error.

    A user who clears the task, or marks it failed or successful, ends the wait for good: ``killed`` is called then. A
    triggerer that stops or stalls does not: the wait goes on in another one.

    :param arguments: JSON-able constructor arguments, which are also what is serialised. They hold no secret: the
        credentials come from the Airflow connection, anew in each process.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments = arguments
        self._told = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and constructor arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments

    async def wait(self) -> dict[str, Any]:
        """Wait; return what happened, as JSON.

        :raises VertexRayError: It ended badly.
        """
        raise NotImplementedError

    async def outcome(self) -> dict[str, Any]:
        """The event's payload: ``status`` is ``success`` with ``result``, or ``error`` with ``error``.

        An unexpected exception becomes an error too, so that the task can clean up what it started.
        """
        passed = {"passthrough": self.arguments["passthrough"]} if self.arguments.get("passthrough") else {}
        try:
            return {"status": "success", "result": await self.wait(), **passed}
        except VertexRayError as error:
            return {"status": "error", "error": error.to_dict(), **passed}
        except Exception as error:
            self.log.exception("Unexpected error while waiting")
            return {
                "status": "error",
                "error": VertexRayError(f"Unexpected error: {error!r}").to_dict(),
                **passed,
            }

    async def killed(self) -> None:
        """Clean up, because the task was killed while it waited. Nothing, unless a trigger has something to do."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield the one event."""
        # A task of its own: Airflow tells a user's kill by the message of this generator's CancelledError, and
        # sync_to_async, on the way to connections and XCom, raises one without it.
        if HAS_ON_KILL and (ti := getattr(self, "task_instance", None)) is not None:
            from airflow_provider_vertex_ray.triggers.airflow_task import ask_ahead

            ask_ahead(ti)
        work = asyncio.create_task(self.outcome())
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait({work}, timeout=LAST_SECONDS)
            if not HAS_ON_KILL:
                await self.on_kill()
            raise
        # Nothing may be awaited after the event: Airflow 3.3 would call on_kill for a task that it has resumed.
        self._told = True
        yield TriggerEvent(work.result())  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Airflow 3.3 calls this for a user's kill, but also in a triggerer that stalled and lost its triggers.

        So the task is asked for: while it is deferred, somebody else waits. After a Clear its next try may be deferred
        already; then that try has cleaned up before it began.
        """
        ti = getattr(self, "task_instance", None)
        if self._told or ti is None:
            return
        from airflow_provider_vertex_ray.triggers.airflow_task import task_state

        try:
            state = await task_state(ti)
        except Exception:
            self.log.warning("Airflow can not say whether the task was killed; nothing is cleaned up", exc_info=True)
            return
        if state != STILL_WAITING:
            await self.killed()


def result_of(event: dict[str, Any] | None) -> dict[str, Any]:
    """The result in a trigger's payload.

    :raises VertexRayError: The error in it, with its type.
    """
    if event is None:
        raise VertexRayError("The trigger ended without an event.")
    if event.get("status") != "success":
        raise error_from_dict(event.get("error") or {})
    return dict(event.get("result") or {})


async def pause(interval: float, deadline: float | None) -> None:
    """Sleep for an interval, but not past a deadline."""
    await asyncio.sleep(max(0.0, min(interval, seconds_left(deadline))))


def time_for_a_look(deadline: float | None) -> float | None:
    """Seconds that one look may take: the retries of a call could last longer than a deadline lets them."""
    return None if deadline is None else max(LAST_LOOK, seconds_left(deadline))
