"""Cloud Logging: the lines that a cluster's nodes have logged, also of a cluster that is gone.

Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list. A project may send 60 such requests a
minute (https://cloud.google.com/logging/quotas), so pages are as large as the service makes them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_vertex_ray.core.http.service_errors import service_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.core.monitoring.time_window import parse_rfc3339
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    LogsNotAuthorisedError,
    NotAuthorisedError,
    ServiceError,
    VertexRayError,
)

PAGE_SIZE = 1000
"""Entries of a page; the service gives no more."""

MAX_BYTES = 16 << 20
"""Bytes of messages that one call keeps in memory."""

ATTEMPTS = 9
"""Tries of a request: the quota is one of a minute, and so many tries last a minute and a half."""

EMPTY_PAGES = 20
"""Pages without an entry, one after the other, after which the search counts as over: it may go on for an hour."""

NODE_LABEL = "compute.googleapis.com/resource_name"
"""Label in which Google's logging agents name the machine; whether a cluster's entries have it is not known."""


@dataclass(frozen=True)
class LogEntry:
    """One line of a log file.

    :param time: Unix time.
    :param severity: One of ``log_query.SEVERITIES``.
    :param message: The line.
    :param path: The file that it is from, on its node.
    :param node: The node, where a label names it.
    """

    time: float
    severity: str
    message: str
    path: str = ""
    node: str | None = None

    @classmethod
    def from_api(cls, data: Mapping[str, Any]) -> LogEntry:
        """Read the API's JSON; what has no message is shown as the JSON that it is."""
        payload = data.get("jsonPayload") or {}
        message = data.get("textPayload") or payload.get("message") or payload.get("log")
        if not isinstance(message, str):
            rest = {key: value for key, value in payload.items() if key != "tailed_path"}
            message = json.dumps(rest, ensure_ascii=False) if rest else ""
        stamp = str(data.get("timestamp") or data.get("receiveTimestamp") or "")
        return cls(
            time=parse_rfc3339(stamp) or 0.0,
            severity=str(data.get("severity") or "DEFAULT"),
            message=message.rstrip("\n"),
            path=str(payload.get("tailed_path") or ""),
            node=str((data.get("labels") or {}).get(NODE_LABEL) or "") or None,
        )

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON."""
        return {
            "time": self.time,
            "severity": self.severity,
            "message": self.message,
            "path": self.path,
            "node": self.node,
        }


@dataclass(frozen=True)
class LogEntries:
    """What was found, in the order that was asked for.

    :param more: Whether there may be more than these.
    """

    entries: tuple[LogEntry, ...]
    more: bool


class LogsApi:
    """Reads log entries.

    :param project: The project of the clusters: entries are kept there.
    """

    def __init__(self, transport: Transport, project: str) -> None:
        self._transport = transport
        self._project = project

    async def entries(
        self,
        query: LogQuery,
        most: int,
        *,
        max_bytes: int = MAX_BYTES,
        attempts: int = ATTEMPTS,
        timeout: float | None = None,
    ) -> LogEntries:
        """The first entries that fit, in the query's order.

        :param most: Entries at most, above 0.
        :param max_bytes: Bytes of messages at most; the first entry is given whatever its size.
        :param attempts: Tries of each request.
        :param timeout: Seconds for one try of one request.
        :raises InvalidRequestError: Cloud Logging refuses the filter.
        :raises LogsNotAuthorisedError: The account may not read entries.
        :raises RateLimitedError: Too many requests, also after retries.
        :raises ServiceUnavailableError: No answer, also after retries.
        """
        found: list[LogEntry] = []
        size = 0
        pages = self.pages(query, page_size=min(most, PAGE_SIZE), attempts=attempts, timeout=timeout)
        async with contextlib.aclosing(pages):
            async for page in pages:
                for entry in page.entries:
                    size += len(entry.message.encode(errors="replace"))
                    if len(found) >= most or (found and size > max_bytes):
                        return LogEntries(tuple(found), True)
                    found.append(entry)
                if len(found) >= most and page.more:
                    return LogEntries(tuple(found), True)
        return LogEntries(tuple(found), False)

    async def pages(
        self,
        query: LogQuery,
        *,
        page_size: int = PAGE_SIZE,
        attempts: int = ATTEMPTS,
        timeout: float | None = None,
    ) -> AsyncGenerator[LogEntries, None]:
        """All entries that fit, page by page; errors as ``entries`` has them.

        A page may be empty and yet not be the last: the service had no time to find any.
        """
        token = ""
        empty = 0
        while True:
            body = {
                "resourceNames": [f"projects/{self._project}"],
                "filter": query.filter(),
                "orderBy": query.order,
                "pageSize": page_size,
                **({"pageToken": token} if token else {}),
            }
            answer = await self._transport.request(
                "POST",
                f"{self._transport.addresses.logging()}/v2/entries:list",
                body=body,
                error_from=_error_of(query),
                attempts=attempts,
                timeout=timeout,
            )
            data = answer.json()
            if not isinstance(data, dict):
                raise ServiceError(f"Cloud Logging answered with {str(data)[:100]!r}.")
            found = tuple(LogEntry.from_api(each) for each in data.get("entries") or ())
            following = str(data.get("nextPageToken") or "")
            empty = 0 if found else empty + 1
            yield LogEntries(found, bool(following))
            if not following or following == token or empty >= EMPTY_PAGES:
                return
            token = following


def _error_of(query: LogQuery) -> Callable[[int, str], VertexRayError]:
    def error_from(status: int, text: str) -> VertexRayError:
        said, name = _said(text)
        if status == 404:
            return ServiceError(f"Cloud Logging answered {status}: {said}", {"http_status": status})
        found = service_error(f"Cloud Logging: {said}", status=name, http_status=status)
        if isinstance(found, NotAuthorisedError):
            return LogsNotAuthorisedError(found.message, found.details)
        if isinstance(found, InvalidRequestError):
            return InvalidRequestError(f"{found.message} The filter was: {query.filter()}", found.details)
        return found

    return error_from


def _said(text: str) -> tuple[str, str | None]:
    """Message and canonical name in an error's body."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"]), error.get("status")
    except (ValueError, KeyError, TypeError, AttributeError):
        return text.strip()[:300] or "nothing", None
