"""How much of a job's output is in the task's log, kept in Airflow for the triggerer that takes over."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

log = logging.getLogger(__name__)

KEEP_SECONDS = 30.0
"""Seconds between two notes: what came since the last one is shown again after a triggerer was killed."""

LAST_NOTE_SECONDS = 3.0
"""Seconds that the last note may take: a triggerer that is stopped does not wait long."""


class LogPosition:
    """Where the output of one job stands.

    :param ti: The task instance; None (a wait in the worker, or ``dag.test()``) keeps nothing.
    """

    def __init__(self, ti: Any, submission_id: str) -> None:
        self._ti = ti
        self._submission_id = submission_id
        self._noted = 0
        self._noted_at = time.monotonic()

    async def kept(self) -> int:
        """What an earlier triggerer noted; 0 for nothing."""
        if self._ti is None:
            return 0
        from airflow_provider_vertex_ray.triggers.airflow_task import kept_log_position

        try:
            self._noted = await kept_log_position(self._ti, self._submission_id)
        except Exception:
            log.warning("Airflow can not say how much of the log was shown; it begins anew", exc_info=True)
        return self._noted

    async def keep_now_and_then(self, position: int) -> None:
        """Note the position, if it is time."""
        if position != self._noted and time.monotonic() - self._noted_at >= KEEP_SECONDS:
            await self.keep(position)

    async def keep(self, position: int) -> None:
        """Note the position."""
        if self._ti is None or position == self._noted:
            return
        from airflow_provider_vertex_ray.triggers.airflow_task import keep_log_position

        self._noted_at = time.monotonic()
        try:
            await asyncio.wait_for(keep_log_position(self._ti, self._submission_id, position), LAST_NOTE_SECONDS)
            self._noted = position
        except Exception:
            log.debug("The position in the log was not noted", exc_info=True)
