"""One waiting, two ways: deferred in the triggerer, or in the worker itself. The outcome travels as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_vertex_ray.deadlines import seconds_left
from airflow_provider_vertex_ray.errors import VertexRayError, error_from_dict


class WaitTrigger(BaseTrigger):
    """Waits for something at the service and reports success or a typed error.

    :param arguments: JSON-able constructor arguments, which are also what is serialised. They hold no secret: the
        credentials come from the Airflow connection, anew in each process.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments = arguments

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
        carried = {"carry": self.arguments["carry"]} if self.arguments.get("carry") else {}
        try:
            return {"status": "success", "result": await self.wait(), **carried}
        except VertexRayError as error:
            return {"status": "error", "error": error.to_dict(), **carried}
        except Exception as error:
            self.log.exception("Unexpected error while waiting")
            return {
                "status": "error",
                "error": VertexRayError(f"Unexpected error: {error!r}").to_dict(),
                **carried,
            }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield the one event."""
        yield TriggerEvent(await self.outcome())  # type: ignore[no-untyped-call]


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
