"""Small JSON objects below a ``lease_uri`` in Cloud Storage: read, list, overwrite under a precondition, delete.

An object is only overwritten if it still has the generation that was read. The content of each object is also in its
metadata, which a listing returns: many of them are read with one request. Reads and listings are strongly consistent.
Sources: https://cloud.google.com/storage/docs/request-preconditions, https://cloud.google.com/storage/docs/consistency
and https://cloud.google.com/storage/docs/json_api/v1/objects.

This module uses the shared transport instead of a client library: the async library does not return the generation of
the object that it downloads, and the sync one would need a thread for each deferred task.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from airflow_provider_vertex_ray.core.http.addresses import EMULATOR_VARIABLE, STORAGE_VARIABLE
from airflow_provider_vertex_ray.core.http.service_errors import read_error
from airflow_provider_vertex_ray.core.http.transport import Answer, Transport
from airflow_provider_vertex_ray.errors import (
    EmulatorStorageError,
    InvalidArgumentError,
    LeaseStoreError,
    LeaseStoreUnavailableError,
    LeaseUnreadableError,
    ServiceUnavailableError,
    VertexRayError,
)

log = logging.getLogger(__name__)

TIMEOUT = 20.0
"""Seconds for one request."""

ATTEMPTS = 4
"""Attempts of a request that is not answered."""

CHANGES = 30
"""Attempts of a change while others are faster or the object is written too often."""

LONGEST_PAUSE = 4.0
"""Maximum number of seconds between two of these attempts. Cloud Storage accepts one write per second to the same
object and answers 429 to others (https://cloud.google.com/storage/quotas#objects).
"""

MOST_BYTES = 16 << 20
"""Maximum size of an answer in bytes; a page of a listing has up to 1,000 objects."""

MOST_PAGES = 1000
"""Maximum number of pages of a listing."""

_METADATA_KEY = "lease"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class _ConflictError(VertexRayError):
    """The object no longer has the generation that was read (412)."""


class _MissingError(VertexRayError):
    """The object does not exist (404)."""


class _TooOftenError(ServiceUnavailableError):
    """The object is written too often (429); this write had no effect."""


@dataclass(frozen=True)
class StoredObject:
    """An object.

    :param path: path below the ``lease_uri``
    :param content: its JSON object
    :param generation: its generation; 0 if it does not exist
    """

    path: str
    content: Any
    generation: int


def parse_lease_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and the folder of a ``lease_uri``; the folder is empty or ends with a slash.

    :raises InvalidArgumentError: it is not a ``gs://`` URI
    """
    rule = "Use the URI of a folder in Cloud Storage, such as gs://bucket/leases."
    if not isinstance(uri, str) or not uri.startswith("gs://"):
        raise InvalidArgumentError("lease_uri", uri, rule)
    bucket, _, folder = uri.removeprefix("gs://").partition("/")
    folder = folder.strip("/")
    if not _BUCKET.fullmatch(bucket) or ".." in folder or "//" in folder or not folder.isprintable():
        raise InvalidArgumentError("lease_uri", uri, rule)
    return bucket, f"{folder}/" if folder else ""


class LeaseObjects:
    """The objects below one URI.

    :param transport: the connection
    :param uri: ``gs://bucket/folder``
    :raises InvalidArgumentError: the URI is malformed
    """

    def __init__(self, transport: Transport, uri: str) -> None:
        self.uri = uri
        self._transport = transport
        self._bucket, self._folder = parse_lease_uri(uri)

    async def read(self, path: str) -> StoredObject | None:
        """Return an object; None if it does not exist.

        :raises LeaseStoreError: it cannot be read
        :raises LeaseUnreadableError: it is not one of ours
        """
        try:
            answer = await self._request("GET", f"{self._url(path)}?fields=name,generation,metadata")
        except _MissingError:
            return None
        return self._stored(path, _json(answer))

    async def list_below(self, prefix: str) -> list[StoredObject]:
        """Return all objects whose paths begin with a prefix.

        :raises LeaseStoreError: they cannot be read
        :raises LeaseUnreadableError: one of them is not one of ours
        """
        found: list[StoredObject] = []
        query = {"prefix": self._folder + prefix, "fields": "kind,items(name,generation,metadata),nextPageToken"}
        token = ""
        for _ in range(MOST_PAGES):
            page = urlencode({**query, **({"pageToken": token} if token else {})})
            try:
                answer = _json(await self._request("GET", f"{self._base()}/storage/v1/b/{self._bucket}/o?{page}"))
            except _MissingError as error:
                raise self._no_bucket(error.message) from error
            items = answer.get("items", []) if isinstance(answer, dict) else None
            # An empty answer is not an empty list: it would let a cluster in use be deleted.
            if not isinstance(items, list) or answer.get("kind") != "storage#objects":
                raise LeaseStoreUnavailableError(f"The list of leases in {self.uri} could not be read.")
            found += [self._stored(self._path_of(item), item) for item in items]
            following = answer.get("nextPageToken") or ""
            if not following:
                return found
            if following == token:
                break
            token = str(following)
        raise LeaseStoreUnavailableError(f"The list of leases in {self.uri} does not end.")

    async def update(self, path: str, step: Callable[[Any], Any]) -> Any:
        """Change an object atomically, and return its new content.

        :param path: path of the object
        :param step: returns the new content for the old one, which is None if there is none; None to change nothing.
            It may be called several times, and its exceptions are propagated. Applied to its own result, it must
            return None or the same again, apart from times, because the answer to a write may be lost.
        :raises LeaseStoreError: the object could not be read or written
        :raises LeaseUnreadableError: the object is not one of ours
        """
        unanswered = 0
        for turn in range(CHANGES):
            old = await self.read(path)
            new = step(old.content if old else None)
            if new is None:
                return old.content if old else None
            try:
                await self.write(path, new, old.generation if old else 0)
                return new
            except (_ConflictError, _TooOftenError):
                # Full jitter: writers that collided must not collide again.
                await asyncio.sleep(random.random() * min(0.05 * 2**turn, LONGEST_PAUSE))  # noqa: S311
            except ServiceUnavailableError as error:
                # It may have been written, which the next read shows.
                log.info("A write to %s in %s was not answered; checking its effect: %s", path, self.uri, error)
                unanswered += 1
                if unanswered >= ATTEMPTS:
                    message = f"The lease in {self.uri} could not be written: {error.message}"
                    raise LeaseStoreUnavailableError(message) from error
                await self._transport.back_off(unanswered)
        raise LeaseStoreUnavailableError(
            f"The lease in {self.uri} could not be written, because it was changed by others {CHANGES} times in a row."
        )

    async def write(self, path: str, content: Any, generation: int) -> None:
        """Write an object if it still has a generation; 0 stands for an object that does not exist. One attempt."""
        # As by Google's own client: metadata and content in one request.
        boundary = secrets.token_hex(16)
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        # In a public bucket, objects are cached for an hour by default.
        metadata = {
            "name": self._folder + path,
            "contentType": "application/json",
            "cacheControl": "no-store",
            "metadata": {_METADATA_KEY: text},
        }
        head = f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        body = "".join(f"{head}{part}\r\n" for part in (json.dumps(metadata, sort_keys=True), text))
        try:
            await self._transport.request(
                "POST",
                f"{self._base()}/upload/storage/v1/b/{self._bucket}/o?uploadType=multipart"
                f"&ifGenerationMatch={generation}",
                error_from=self._error,
                data=f"{body}--{boundary}--".encode,
                content_type=f"multipart/related; boundary={boundary}",
                repeatable=False,
                timeout=TIMEOUT,
            )
        except _MissingError as error:
            raise self._no_bucket(error.message) from error

    async def delete(self, path: str, generation: int) -> None:
        """Delete an object if it still has a generation; one that was changed or deleted meanwhile is not an error.

        :raises LeaseStoreError: it could not be deleted
        """
        with contextlib.suppress(_MissingError, _ConflictError):
            await self._request("DELETE", f"{self._url(path)}?ifGenerationMatch={generation}")

    def _stored(self, path: str, item: Any) -> StoredObject:
        try:
            content = json.loads(item["metadata"][_METADATA_KEY])
            if not isinstance(content, dict):
                raise ValueError("no JSON object")
            return StoredObject(path, content, int(item["generation"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LeaseUnreadableError(
                f"The object {path} in {self.uri} is not a lease ({type(error).__name__}: {error})."
            ) from error

    def _path_of(self, item: Any) -> str:
        name = item.get("name") if isinstance(item, dict) else None
        return str(name).removeprefix(self._folder)

    async def _request(self, method: str, url: str) -> Answer:
        try:
            return await self._transport.request(
                method, url, error_from=self._error, attempts=ATTEMPTS, timeout=TIMEOUT, max_bytes=MOST_BYTES
            )
        except ServiceUnavailableError as error:
            message = f"Could not reach the leases in {self.uri}: {error.message}"
            raise LeaseStoreUnavailableError(message) from error

    def _base(self) -> str:
        addresses = self._transport.addresses
        if addresses.emulator_host and not addresses.storage_emulator:
            raise EmulatorStorageError(
                f"lease_uri is {self.uri!r}, but {EMULATOR_VARIABLE} is {addresses.emulator_host} and "
                f"{STORAGE_VARIABLE} is not set: the emulator runs without Cloud Storage.",
                {"lease_uri": self.uri},
            )
        return addresses.storage()

    def _url(self, path: str) -> str:
        return f"{self._base()}/storage/v1/b/{self._bucket}/o/{quote(self._folder + path, safe='')}"

    def _no_bucket(self, reason: str) -> LeaseStoreError:
        return LeaseStoreError(
            f"The bucket of lease_uri={self.uri!r} does not exist: Cloud Storage answered 404: {reason} "
            "Create the bucket, or correct lease_uri.",
            {"lease_uri": self.uri, "http_status": 404},
        )

    def _error(self, status: int, text: str) -> VertexRayError:
        """Return the typed error for an HTTP answer of Cloud Storage."""
        reason = read_error(text).message or text.strip()[:300]
        message = f"Cloud Storage answered {status}: {reason}"
        details = {"http_status": status}
        # The service names the object, and the emulator answers just this. Anything else, such as the page of a proxy
        # or "The specified bucket does not exist.", must not be mistaken for a lease without holders.
        if status == 404 and (reason.startswith("No such object") or reason == "Not Found"):
            return _MissingError(reason, details)
        if status == 404 and "bucket" in reason:
            return self._no_bucket(reason)
        if status == 412:
            return _ConflictError(reason, details)
        if status == 429:
            return _TooOftenError(message, details)
        if status == 408 or status >= 500:
            return ServiceUnavailableError(message, details)
        return LeaseStoreError(f"The leases in lease_uri={self.uri!r} cannot be used: {message}", details)


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.text)
    except (ValueError, RecursionError) as error:
        raise LeaseStoreUnavailableError(
            f"Cloud Storage answered {answer.status} with something that is not JSON."
        ) from error
