"""A cluster's logs as a task: shown, and written as a file."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_flag, check_whole
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.job.inputs import check_submission_id
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery, check_log_text, check_severity
from airflow_provider_vertex_ray.core.monitoring.time_window import rfc3339, span
from airflow_provider_vertex_ray.links.link_sets import JOB_LINKS
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.monitoring_base import MonitoringOperator
from airflow_provider_vertex_ray.operators.output_files import check_file_uri, write_file

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.monitoring.logs import LogEntry

DAY = 86_400.0
LEEWAY = 60.0
"""Seconds after now that still count where no end is given: entries come in meanwhile, but reading them must end."""

LOG_SUFFIXES = (".log", ".txt", ".jsonl")
MOST_SHOWN = 10_000
RETURNED_BYTES = 48 * 1024
"""Bytes of entries in a task's result, as JSON; the task's log and the file have all."""

LONGEST_RETURNED = 1_000
"""Characters of a message in a task's result."""


class VertexRayClusterLogsOperator(MonitoringOperator):
    """Shows what a cluster's nodes have logged, from Cloud Logging: also when the cluster is gone.

    Returns ``cluster_id``, ``filter``, ``count`` of the entries that were shown, ``entries`` (as many of them as fit
    into 48 KiB, messages cut at 1,000 characters), ``more`` (whether there are more than were shown), ``output_path``
    and ``written``, the number of entries in that file. Lines arrive late: those of the last minute may be missing.

    :param cluster_id: Id or full resource name. (templated)
    :param submission_id: Only the output of this job's driver. (templated)
    :param file: Only files whose path has this in it, such as ``raylet`` or ``worker-``. (templated)
    :param severity: Only entries of at least this severity, such as ``ERROR``. (templated)
    :param text: Only entries with this text in their message; capitals do not count. (templated)
    :param start: From when on: an ISO time, a datetime, or unix seconds. (templated)
    :param end: Until when; default: now. (templated)
    :param window: Seconds before ``end``, in place of ``start``; default: a day.
    :param max_entries: Entries that are shown at most, up to 10,000.
    :param newest_first: Whether to begin with the newest one; then the newest are those that are shown.
    :param output_path: URI of a file that gets all entries that fit: ``.log`` or ``.txt`` for lines with time, severity
        and file, ``.jsonl`` for JSON. Any storage that ``ObjectStoragePath`` knows will do. (templated)

    Raises InvalidArgumentError, LogsNotAuthorisedError, InvalidRequestError, RateLimitedError, ServiceUnavailableError.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "submission_id",
        "file",
        "severity",
        "text",
        "start",
        "end",
        "output_path",
        *VertexRayBaseOperator.connection_fields,
    )
    operator_extra_links = JOB_LINKS

    def __init__(
        self,
        *,
        submission_id: str | None = None,
        file: str | None = None,
        severity: str | None = None,
        text: str | None = None,
        max_entries: int = 200,
        newest_first: bool = False,
        output_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if submission_id is not None:
            check_submission_id(submission_id)
        for field, value in (("file", file), ("text", text)):
            if not hasattr(value, "iter_references"):
                check_log_text(field, value)
        if not hasattr(severity, "iter_references"):
            check_severity(severity)
        check_whole("max_entries", max_entries, 1, MOST_SHOWN, f"give a number from 1 to {MOST_SHOWN}")
        check_flag("newest_first", newest_first)
        check_file_uri("output_path", output_path, LOG_SUFFIXES)
        self.submission_id = submission_id
        self.file = file
        self.severity = severity
        self.text = text
        self.max_entries = max_entries
        self.newest_first = newest_first
        self.output_path = output_path

    def execute(self, context: Context) -> dict[str, Any]:
        """Read page by page, show, and write."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._name(str(self.cluster_id))
        check_file_uri("output_path", self.output_path, LOG_SUFFIXES)
        if self.submission_id:
            check_submission_id(self.submission_id)
        start, end = span(self.start, self.end, self.window, DAY)
        if not self.end:
            end += LEEWAY
        query = LogQuery(
            name.full,
            submission_id=self.submission_id or None,
            file=self.file or None,
            severity=self.severity or None,
            start=start,
            end=end,
            text=self.text or None,
            newest_first=self.newest_first,
        )
        return run_sync(lambda: self._read(context, name, query))

    async def _read(self, context: Context, name: ClusterName, query: LogQuery) -> dict[str, Any]:
        shown: list[LogEntry] = []
        written, more = 0, False
        hook = self.monitoring_hook
        text = replace(query, cluster_id=name.cluster_id).filter()
        async with hook.session():
            await self._keep_link_facts(context, name, submission_id=query.submission_id, log_filter=text)
            if not self.output_path:
                found = await hook.logs(query, most=self.max_entries)
                shown, more = list(found.entries), found.more
                for entry in shown:
                    self.log.info("%s", _line(entry))
            else:
                # Complete before the upload begins: what fails half-way leaves no half of a file.
                with tempfile.TemporaryFile(prefix="vertex-ray-logs-") as file:
                    async for page in hook.log_pages(query):
                        for entry in page.entries[: self.max_entries - len(shown)]:
                            self.log.info("%s", _line(entry))
                            shown.append(entry)
                        written += _write(file, page.entries, self.output_path.endswith(".jsonl"))
                    file.seek(0)
                    await asyncio.to_thread(write_file, self.output_path, file, self.gcp_conn_id)
                more = written > len(shown)
                self.log.info("%d entries are in %s", written, self.output_path)
        if not shown:
            self.log.info("There is no entry for this filter:\n%s", text)
        return {
            "cluster_id": name.cluster_id,
            "filter": text,
            "count": len(shown),
            "entries": _bounded(shown),
            "more": more,
            "output_path": self.output_path or None,
            "written": written,
        }


def _line(entry: LogEntry) -> str:
    return f"{rfc3339(entry.time)} {entry.severity:<8} {entry.path.rsplit('/', 1)[-1]}: {entry.message}"


def _write(file: IO[bytes], entries: Sequence[LogEntry], as_json: bool) -> int:
    for entry in entries:
        text = json.dumps(entry.to_json(), ensure_ascii=False) if as_json else _line(entry)
        file.write(text.encode("utf-8", "replace") + b"\n")
    return len(entries)


def _bounded(entries: Sequence[LogEntry]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        data = {**entry.to_json(), "message": entry.message[:LONGEST_RETURNED]}
        size += len(json.dumps(data)) + 2
        if size > RETURNED_BYTES:
            break
        found.append(data)
    return found
