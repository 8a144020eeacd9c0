"""The least that a task can do which waits in the triggerer and ends there: what Airflow itself takes for that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent


class BareTrigger(BaseTrigger):
    """Ends its task at a moment.

    :param end: the moment, in seconds since 1970.
    """

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end = end

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return path and arguments."""
        return "benchmarks.bare_trigger.BareTrigger", {"end": self.end}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then end the task."""
        await asyncio.sleep(max(0.0, self.end - time.time()))
        yield TaskSuccessEvent()
