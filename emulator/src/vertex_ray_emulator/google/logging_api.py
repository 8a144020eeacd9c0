"""Cloud Logging (v2): lists the lines that Ray's nodes have logged."""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import heapq
import json
import re
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.google.cloud_api import CloudRequest, CloudRpc
from vertex_ray_emulator.google.query_filter import Read, parse
from vertex_ray_emulator.wire.errors import ApiError, invalid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vertex_ray_emulator.google.log_store import LogEntry, LogStore
    from vertex_ray_emulator.project.project_script import Project

DEFAULT_PAGE = 50
MAX_PAGE = 1000
LONGEST_FILTER = 20_000
CLUSTER_LABEL = "ml.googleapis.com/ray_cluster_id"
TASK_NAME = "ray-cluster-logs"
_RESOURCE_TYPE = "ml_job"
_FIELDS = {
    "resourceNames", "filter", "orderBy", "pageSize", "pageToken", "projectIds",
    "resource_names", "order_by", "page_size", "page_token",
}  # fmt: skip


class LoggingApi:
    """The method ``entries:list``.

    :param project: the project of the entries.
    :param store: the entries.
    :param refresh: reads new lines from the clusters' log files.
    """

    def __init__(self, project: Project, store: LogStore, refresh: Callable[[], Awaitable[None]]) -> None:
        self._project = project
        self._store = store
        self._refresh = refresh

    def rpcs(self) -> list[CloudRpc]:
        """Return the methods that this API serves."""
        return [CloudRpc("ListLogEntries", "POST", r"v2/entries:list", self._list)]

    async def _list(self, request: CloudRequest) -> dict[str, Any]:
        body = request.body
        for name in body:
            if name not in _FIELDS:
                raise invalid(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')
        self._check_resources(_field(body, "resourceNames") or body.get("projectIds"))
        text, order = _field(body, "filter") or "", _field(body, "orderBy") or "timestamp asc"
        if not isinstance(text, str):
            raise invalid("Invalid value at 'filter' (TYPE_STRING)")
        if len(text) > LONGEST_FILTER:
            raise invalid(f"The filter is longer than {LONGEST_FILTER} characters.")
        match = re.fullmatch(r"timestamp(?: (asc|desc))?", str(order))
        if match is None:
            raise invalid(f"order_by must be 'timestamp asc' or 'timestamp desc', not {order!r}.")
        descending = match[1] == "desc"
        size = _size(_field(body, "pageSize"))
        test = parse(text, self._read, times=frozenset({"timestamp", "receiveTimestamp"}))
        # A page token is valid only for the same filter and order.
        stamp = hashlib.sha256(f"{text}\n{descending}".encode()).hexdigest()[:16]
        after = _read_token(_field(body, "pageToken") or "", stamp)
        await self._refresh()
        fitting = (
            entry
            for entry in self._store.entries()
            if (after is None or (entry.micros < after if descending else entry.micros > after)) and test(entry)
        )
        pick = heapq.nlargest if descending else heapq.nsmallest
        # On a thread, because hundreds of thousands of lines take half a second.
        found = await asyncio.to_thread(pick, size + 1, fitting, key=lambda entry: entry.micros)
        answer: dict[str, Any] = {}
        if found:
            answer["entries"] = [self._render(entry) for entry in found[:size]]
        if len(found) > size:
            answer["nextPageToken"] = _write_token(found[size - 1].micros, stamp)
        return answer

    def _check_resources(self, names: Any) -> None:
        if not isinstance(names, list) or not names:
            raise invalid("resource_names must have at least one resource, such as projects/my-project.")
        mine = (self._project.id, self._project.number)
        for name in names:
            match = re.fullmatch(r"(?:projects/)?([^/]+)", str(name))
            if match is None:
                raise invalid(f"Invalid resource name {name!r}: the emulator has projects only.")
            if match[1] not in mine:
                raise ApiError(
                    "PERMISSION_DENIED",
                    f"Permission 'logging.logEntries.list' denied on resource '{name}' (or it may not exist).",
                )

    def _read(self, path: tuple[str, ...]) -> Read | None:
        """Return a function that reads a field of an entry, or None if entries do not have the field."""
        simple: dict[tuple[str, ...], Read] = {
            ("logName",): lambda entry: self._log_name(),
            ("severity",): lambda entry: str(entry.severity),
            ("timestamp",): lambda entry: entry.micros / 1e6,
            ("receiveTimestamp",): lambda entry: entry.micros / 1e6,
            ("insertId",): _insert_id,
            ("textPayload",): lambda entry: None,
            ("resource", "type"): lambda entry: _RESOURCE_TYPE,
            ("resource", "labels", "task_name"): lambda entry: TASK_NAME,
            ("resource", "labels", "project_id"): lambda entry: self._project.id,
            ("resource", "labels", "location"): lambda entry: str(entry.cluster.location),
            ("labels", CLUSTER_LABEL): lambda entry: str(entry.cluster.id),
            ("jsonPayload", "message"): lambda entry: str(entry.message),
            ("jsonPayload", "tailed_path"): lambda entry: str(entry.path),
        }
        if path in simple:
            return simple[path]
        # Labels and payloads may have any keys: an unknown key is not an error, but no entry has it.
        if path[:1] in (("labels",), ("jsonPayload",)) or path[:2] == ("resource", "labels"):
            return lambda entry: None
        return None

    def _log_name(self) -> str:
        return f"projects/{self._project.id}/logs/{TASK_NAME}"

    def _render(self, entry: LogEntry) -> dict[str, Any]:
        stamp = render_time(entry.micros)
        return {
            "logName": self._log_name(),
            "resource": {
                "type": _RESOURCE_TYPE,
                "labels": {
                    "task_name": TASK_NAME,
                    "project_id": self._project.id,
                    "location": entry.cluster.location,
                },
            },
            "labels": {CLUSTER_LABEL: entry.cluster.id},
            "timestamp": stamp,
            "receiveTimestamp": stamp,
            "severity": entry.severity,
            "insertId": _insert_id(entry),
            "jsonPayload": {"message": entry.message, "tailed_path": entry.path},
        }


def render_time(micros: int) -> str:
    """Format a Unix time in microseconds as RFC 3339."""
    moment = datetime.datetime.fromtimestamp(micros // 1_000_000, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{micros % 1_000_000:06d}Z"


def _insert_id(entry: LogEntry) -> str:
    return f"{entry.micros:x}"


def _field(body: Any, camel: str) -> Any:
    """Return a field by its JSON name or its proto name."""
    return body.get(camel, body.get(re.sub("([A-Z])", lambda m: "_" + m[1].lower(), camel)))


def _size(value: Any) -> int:
    if value is None or value == 0:
        return DEFAULT_PAGE
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not re.fullmatch(r"\d{1,9}", str(value)):
        raise invalid(f"page_size must be a positive number, not {value!r}.")
    return min(int(value) or DEFAULT_PAGE, MAX_PAGE)


def _write_token(micros: int, stamp: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([micros, stamp]).encode()).decode()


def _read_token(token: Any, stamp: str) -> int | None:
    if not token:
        return None
    try:
        micros, of = json.loads(base64.urlsafe_b64decode(str(token)))
        if of == stamp:
            return int(micros)
    except (ValueError, TypeError):
        pass
    raise invalid("page_token doesn't match arguments from the request.")
