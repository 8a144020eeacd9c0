"""Base of the triggers: the same wait runs deferred in the triggerer, or in the worker. Its outcome travels as JSON."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Coroutine
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.core.options import SECTION, read_options_with
from airflow_provider_vertex_ray.core.storable import MAX_EVENT_BYTES, storable, storable_details
from airflow_provider_vertex_ray.errors import NotStorableError, VertexRayError, error_from_dict, storable_text
from airflow_provider_vertex_ray.triggers.log_channel import lines_are_read

log = logging.getLogger(__name__)

# Every operator, sensor and trigger imports this module, so that a DAG file's specs see the options.
read_options_with(lambda name: str(conf.get(SECTION, name, fallback="")))

HAS_ON_KILL = hasattr(BaseTrigger, "on_kill")
"""Whether Airflow notifies a trigger that its task was killed (3.3 and later)."""

CANCEL_SECONDS = 5.0
"""Seconds in which a cancelled wait has to close what it opened."""

END_SECONDS = 40.0
"""Seconds in which a cancelled wait has to end, with everything that is cleaned up."""

KILL_SECONDS = END_SECONDS - 10.0
"""Seconds of these for deleting or undeploying what a killed task has started; the rest is for what comes before."""

LONGEST_MESSAGE = 100_000
"""Characters of an error's message in an event; it may quote the last lines of a job."""


class WaitTrigger(BaseTrigger):
    """Wait for something at the service and report success or a typed error.

    A user who clears the task, or marks it failed or successful, ends the wait for good: ``killed`` is called. A
    triggerer that stops or stalls does not: another one continues the wait.

    :param arguments: the constructor's JSON-serialisable arguments, which are stored in Airflow's database. They
        contain no secrets: each process takes the credentials from the Airflow connection. ``end``, which the operator
        adds before it defers, tells how the task ends without a worker (``task_end.TaskEnd``).
    """

    service: ClassVar[str] = "the Vertex AI API"
    """What is polled, for log lines."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments = arguments
        self._event_sent = False
        self._cleaned_up = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the constructor arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments

    async def wait(self) -> dict[str, Any]:
        """Wait, and return the result as JSON.

        :raises VertexRayError: the wait failed.
        """
        raise NotImplementedError

    async def outcome(self) -> dict[str, Any]:
        """Wait, and return the event's payload, which Airflow can always encode and store.

        An unexpected exception becomes an error too, so that the task can clean up what it started. So does a result
        that cannot be stored: in the event, it would end the triggerer with all of its waits.

        :return: ``status`` is ``success`` with ``result``, or ``error`` with ``error``.
        """
        passthrough = {"passthrough": self.arguments["passthrough"]} if self.arguments.get("passthrough") else {}
        try:
            result = await self.wait()
            result = storable(result, "result", max_bytes=MAX_EVENT_BYTES, notify=self.log.warning)
            return {"status": "success", "result": result, **passthrough}
        except NotStorableError as error:
            return {"status": "error", "error": self._event_of(self.on_not_storable(error)), **passthrough}
        except VertexRayError as error:
            return {"status": "error", "error": self._event_of(error), **passthrough}
        except Exception as error:  # noqa: BLE001 - it is logged, and reported by the task
            # As text, because the log takes no more than the event does.
            self.log.error(
                "Unexpected error while waiting:\n%s", storable_text("".join(traceback.format_exception(error)))
            )
            # Not its repr, which may contain the headers of a request.
            unexpected = VertexRayError(f"Unexpected error: {type(error).__name__}: {error}")
            return {"status": "error", "error": self._event_of(unexpected), **passthrough}

    def on_not_storable(self, error: NotStorableError) -> VertexRayError:
        """Return the error to report for a result that cannot be stored."""
        return error

    @staticmethod
    def _event_of(error: VertexRayError) -> dict[str, Any]:
        found = error.to_dict()
        if len(found["message"]) > LONGEST_MESSAGE:
            found["message"] = f"{found['message'][:LONGEST_MESSAGE]}… ({len(found['message']):,} characters)"
        return {**found, "details": storable_details(found["details"])}

    async def killed(self) -> None:
        """Clean up, because the task was killed while it was waiting. Does nothing by default."""

    def on_unreadable(self, error: VertexRayError, seconds: float) -> None:
        """Log that a poll got no usable answer.

        :param error: what went wrong.
        :param seconds: seconds until the next poll; 0 when the deadline has passed.
        """
        if seconds > 0:
            self.log.warning("Could not reach %s; retrying in %.1f s: %s", self.service, seconds, error.message)
        else:
            self.log.warning("Could not reach %s before the deadline: %s", self.service, error.message)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield the only event."""
        # In a task of its own: Airflow signals a user's kill by the message of this generator's CancelledError, and
        # sync_to_async, which the wait uses for connections and XCom, raises one without that message.
        if (ti := getattr(self, "task_instance", None)) is not None:
            from airflow_provider_vertex_ray.triggers.airflow_task import ask_ahead

            ask_ahead(ti)
        work = asyncio.create_task(self._event())
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as cancelled:
            # Airflow 3 cancels again every second, until its own coroutine around this generator has ended: on 3.3
            # that cuts off its call of on_kill, or comes before it. So the clean-up is done here on each version. Only
            # 3.3 says with a message that it is not about to stop.
            asks = not HAS_ON_KILL or bool(cancelled.args)
            await _through_cancellations(self._end(work, asks), END_SECONDS)
            raise
        # Nothing may be awaited after the event: Airflow 3.3 would call on_kill for a task that it has resumed.
        self._event_sent = True
        yield work.result()

    async def _event(self) -> TriggerEvent:
        """Return the event of the wait, once Airflow has read all that was logged before."""
        event = await self._event_of_outcome()
        await lines_are_read()
        return event

    async def _event_of_outcome(self) -> TriggerEvent:
        """Return the event that ends the task here or, by default, resumes it in a worker."""
        payload = await self.outcome()
        # ``dag.test()`` runs a trigger that has no id, and resumes the task with the payload of any event.
        if self.arguments.get("end") and self.trigger_id is not None and self.task_instance is not None:
            from airflow_provider_vertex_ray.triggers.task_end import end_event

            event = await end_event(self, payload, self.arguments["end"])
            if event is not None:
                return event
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def _end(self, work: asyncio.Task[TriggerEvent], asks: bool) -> None:
        """End the wait; clean up after a user's kill.

        :param asks: whether Airflow may have ended the wait because of one
        """
        work.cancel()
        await asyncio.wait({work}, timeout=CANCEL_SECONDS)
        if asks:
            await self._clean_up()

    async def on_kill(self) -> None:
        """Clean up if a user has killed the task, and this was not done when the wait ended. Airflow 3.3 calls it."""
        await _through_cancellations(self._clean_up(), END_SECONDS)

    async def _clean_up(self) -> None:
        """Clean up, once, if a user has killed the task.

        Airflow also ends a wait in a triggerer that stalled and lost its triggers. So the task's state is checked:
        while it is deferred, another triggerer continues the wait. After a clear, the next attempt may be deferred
        already; it has then cleaned up before it started.
        """
        ti = getattr(self, "task_instance", None)
        if self._cleaned_up or self._event_sent or ti is None:
            return
        self._cleaned_up = True
        from airflow_provider_vertex_ray.triggers.airflow_task import DEFERRED, task_state

        try:
            state = await task_state(ti)
        except Exception:
            self.log.warning(
                "Could not read the task's state from Airflow, so a kill cannot be distinguished from a restart; "
                "nothing is cleaned up",
                exc_info=True,
            )
            return
        if state == DEFERRED:
            return
        try:
            await self.killed()
        except Exception as error:
            known = isinstance(error, VertexRayError)
            self.log.warning("Could not clean up after the kill: %s", error, exc_info=not known)


async def _through_cancellations(work: Coroutine[Any, Any, None], seconds: float) -> None:
    """Wait for work of at most some seconds, however often the waiting task is cancelled."""
    task = asyncio.ensure_future(within(seconds, work))
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue
    try:
        task.result()
    except (TimeoutError, asyncio.TimeoutError):
        log.warning("The clean-up of a killed task did not end within %.0f s", seconds)


def result_of(event: dict[str, Any] | None) -> dict[str, Any]:
    """Return the result in a trigger's payload.

    :raises VertexRayError: the payload contains an error, which is raised with its type.
    """
    if event is None:
        raise VertexRayError("The trigger ended without an event.")
    if event.get("status") != "success":
        raise error_from_dict(event.get("error") or {})
    return dict(event.get("result") or {})
