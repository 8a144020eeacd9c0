"""Logs as files: a few at once, and bounded in time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from urllib.parse import quote

from fastapi import HTTPException
from fastapi.responses import Response

from airflow_provider_vertex_ray.errors import VertexRayError, storable_text
from airflow_provider_vertex_ray.plugins.page.log import LogTail

DOWNLOAD_SECONDS = 30.0
"""Seconds for reading a log."""

MOST_AT_ONCE = 2
"""Number of concurrent downloads in one API server process, each of which is kept in memory."""


class Downloads:
    """The downloads of one API server process."""

    def __init__(self) -> None:
        self._turns = threading.BoundedSemaphore(MOST_AT_ONCE)

    def answer(self, read: Callable[[], LogTail], submission_id: str) -> Response:
        """Return a log as a file.

        :param read: reads it.
        :param submission_id: id of the job.
        :raises HTTPException: it could not be read (502, 504), or too many are being read (429).
        """
        if not self._turns.acquire(blocking=False):
            raise HTTPException(429, "Too many logs are being downloaded; try again in a moment.")
        try:
            found = read()
        except VertexRayError as error:
            raise HTTPException(502, f"The log cannot be read: {error}") from None
        except TimeoutError:
            raise HTTPException(504, f"The log could not be read within {DOWNLOAD_SECONDS:g} s.") from None
        finally:
            self._turns.release()
        note = f"[{found.note}]\n" if found.note else ""
        name = quote(f"{storable_text(submission_id)}.log", safe="")
        return Response(
            storable_text(note + "".join(f"{line}\n" for line in found.lines)),
            media_type="text/plain; charset=utf-8",
            headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
        )
