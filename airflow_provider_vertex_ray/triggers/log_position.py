"""The position up to which a job's output was copied to the task's log, stored in Airflow for the next triggerer."""

from __future__ import annotations

import logging
import time
from typing import Any

from airflow_provider_vertex_ray.core.deadlines import within

log = logging.getLogger(__name__)

KEEP_SECONDS = 30.0
"""Seconds between two writes of the position; output since the last one is repeated after a triggerer was killed."""

WRITE_SECONDS = 3.0
"""Seconds that a write may take, because a triggerer that is being stopped does not wait long."""


class LogPosition:
    """The log position of one job.

    :param ti: the task instance; None (a wait in the worker, or ``dag.test()``) stores nothing.
    :param submission_id: the job.
    """

    def __init__(self, ti: Any, submission_id: str) -> None:
        self._ti = ti
        self._submission_id = submission_id
        self._stored = 0
        self._stored_at = time.monotonic()

    async def kept(self) -> int:
        """Return the position that an earlier triggerer stored; 0 for none."""
        if self._ti is None:
            return 0
        from airflow_provider_vertex_ray.triggers.airflow_task import kept_log_position

        try:
            self._stored = await kept_log_position(self._ti, self._submission_id)
        except Exception:
            log.warning(
                "Could not read the log position from Airflow; the job's output is repeated from its start",
                exc_info=True,
            )
        return self._stored

    async def keep_now_and_then(self, position: int) -> None:
        """Store the position if the last write is ``KEEP_SECONDS`` ago."""
        if position != self._stored and time.monotonic() - self._stored_at >= KEEP_SECONDS:
            await self.keep(position)

    async def keep(self, position: int) -> None:
        """Store the position."""
        if self._ti is None or position == self._stored:
            return
        from airflow_provider_vertex_ray.triggers.airflow_task import keep_log_position

        self._stored_at = time.monotonic()
        try:
            await within(WRITE_SECONDS, keep_log_position(self._ti, self._submission_id, position))
            self._stored = position
        except Exception:
            log.debug("The log position was not stored", exc_info=True)
