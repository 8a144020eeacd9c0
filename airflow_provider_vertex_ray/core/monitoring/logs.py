"""Client of Cloud Logging: the log lines of a cluster's nodes, even after the cluster was deleted.

Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list. A project may send 60 of these requests
per minute (https://cloud.google.com/logging/quotas), so pages are as large as the service allows.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_vertex_ray.core.http.decoding import clean
from airflow_provider_vertex_ray.core.http.redact import excerpt
from airflow_provider_vertex_ray.core.http.service_errors import read_error, service_error
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.monitoring.answers import EntryAnswer, EntryPage
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.core.timestamps import parse_rfc3339
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    LogsNotAuthorisedError,
    NotAuthorisedError,
    ServiceError,
    VertexRayError,
)

PAGE_SIZE = 1000
"""Entries of a page, the service's maximum."""

MAX_BYTES = 16 << 20
"""Maximum size in bytes of the messages that one call keeps in memory."""

MAX_PAGE_BYTES = 16 << 20
"""Maximum size in bytes of a page; an entry has at most 256 KiB."""

ATTEMPTS = 9
"""Attempts of a request: the quota applies to one minute, and this many attempts last a minute and a half."""

EMPTY_PAGES = 20
"""Consecutive pages without an entry after which a search ends; it could otherwise last an hour."""

NODE_LABEL = "compute.googleapis.com/resource_name"
"""Label that Google's logging agents use for the name of the machine; it is not known whether clusters set it."""


@dataclass(frozen=True)
class LogEntry:
    """One line of a log file.

    :param time: Unix time
    :param severity: one of ``log_query.SEVERITIES``
    :param message: the line
    :param path: path of the file on its node
    :param node: the node, if a label names it
    """

    time: float
    severity: str
    message: str
    path: str = ""
    node: str | None = None

    @classmethod
    def of(cls, answer: EntryAnswer) -> LogEntry:
        """Return the entry that an answer describes; the message of an entry without one is its JSON."""
        payload = answer.json_payload or {}
        message = answer.text_payload or payload.get("message") or payload.get("log")
        if not isinstance(message, str):
            rest = {key: value for key, value in payload.items() if key != "tailed_path"}
            message = json.dumps(rest, ensure_ascii=False) if rest else ""
        path = payload.get("tailed_path")
        return cls(
            time=parse_rfc3339(answer.timestamp or answer.receive_timestamp) or 0.0,
            severity=answer.severity or "DEFAULT",
            message=clean(message).rstrip("\n"),
            path=clean(path) if isinstance(path, str) else "",
            node=(answer.labels or {}).get(NODE_LABEL) or None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON."""
        return {
            "time": self.time,
            "severity": self.severity,
            "message": self.message,
            "path": self.path,
            "node": self.node,
        }


@dataclass(frozen=True)
class LogEntries:
    """Log entries, in the order of the query.

    :param entries: the entries
    :param more: whether there may be more entries
    """

    entries: tuple[LogEntry, ...]
    more: bool


class LogsApi:
    """Client for log entries.

    :param transport: the connection
    :param project: project of the clusters, which also stores their log entries
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
        """Return the first entries that match, in the order of the query.

        :param query: the query
        :param most: maximum number of entries, above 0
        :param max_bytes: maximum size of all messages in bytes; the first entry is returned regardless of its size
        :param attempts: attempts of each request
        :param timeout: seconds for one attempt of one request
        :raises InvalidRequestError: Cloud Logging rejects the filter
        :raises LogsNotAuthorisedError: the account is not allowed to read log entries
        :raises RateLimitedError: there are too many requests, even after several retries
        :raises ServiceUnavailableError: there is no answer, even after several retries
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
        """Yield all entries that match, page by page; raises the errors of ``entries``.

        A page may be empty without being the last one, if the service did not find an entry in time.

        :param query: the query
        :param page_size: maximum number of entries of a page
        :param attempts: attempts of each request
        :param timeout: seconds for one attempt of one request
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
            page = await self._transport.read(
                EntryPage,
                "POST",
                f"{self._transport.addresses.logging()}/v2/entries:list",
                body=body,
                error_from=_error_of(query),
                attempts=attempts,
                timeout=timeout,
                max_bytes=MAX_PAGE_BYTES,
            )
            found = tuple(LogEntry.of(each) for each in page.entries or ())
            following = page.next_page_token or ""
            empty = 0 if found else empty + 1
            yield LogEntries(found, bool(following))
            if not following or following == token or empty >= EMPTY_PAGES:
                return
            token = following


def _error_of(query: LogQuery) -> Callable[[int, str], VertexRayError]:
    def error_from(status: int, text: str) -> VertexRayError:
        body = read_error(text)
        said = body.message or excerpt(text)
        if status == 404:
            return ServiceError(f"Cloud Logging answered {status}: {said}", {"http_status": status})
        found = service_error(f"Cloud Logging: {said}", status=body.status, http_status=status)
        if isinstance(found, NotAuthorisedError):
            return LogsNotAuthorisedError(found.message, found.details)
        if isinstance(found, InvalidRequestError):
            return InvalidRequestError(f"{found.message} The filter was: {query.filter()}", found.details)
        return found

    return error_from
