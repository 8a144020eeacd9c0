"""Leases in Cloud Storage, one small object per cluster, and how to acquire and renew them.

An object is only overwritten if it still has the generation that was read. Source:
https://cloud.google.com/storage/docs/request-preconditions and
https://cloud.google.com/storage/docs/json_api/v1/objects.

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
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.http.service_errors import read_error
from airflow_provider_vertex_ray.core.http.transport import Answer, Transport
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.errors import (
    InvalidArgumentError,
    LeaseStoreError,
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
object and answers 429 to others (https://cloud.google.com/storage/quotas#objects), so simultaneous runs have to queue.
"""

MOST_BYTES = 4 << 20
"""Maximum size of a lease in bytes."""

SHARE_OF_TTL = 1 / 3
"""Share of its duration after which a lease is renewed."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class _ConflictError(VertexRayError):
    """The object no longer has the generation that was read (412)."""


class _MissingError(VertexRayError):
    """The object does not exist (404)."""


class _TooOftenError(ServiceUnavailableError):
    """The object is written too often (429); this write had no effect."""


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


class LeaseStore:
    """The leases of all clusters below one URI.

    :param transport: the connection
    :param uri: ``gs://bucket/folder``
    :raises InvalidArgumentError: the URI is malformed
    """

    def __init__(self, transport: Transport, uri: str) -> None:
        self.uri = uri
        self._transport = transport
        self._bucket, self._folder = parse_lease_uri(uri)

    async def read(self, name: ClusterName) -> tuple[Lease, int]:
        """Return the lease of a cluster and the generation of its object; an empty lease and 0 if there is none.

        :raises LeaseStoreError: the lease cannot be read
        :raises LeaseUnreadableError: the object is not a lease
        """
        try:
            answer = await self._request("GET", f"{self._object(name)}?alt=media")
        except _MissingError:
            return Lease(), 0
        try:
            generation = int(answer.headers["x-goog-generation"])
            return Lease.from_json(json.loads(answer.text)), generation
        except (ValueError, KeyError, RecursionError) as error:
            raise LeaseUnreadableError(f"The lease of {name} is not JSON, or has no generation: {error!r}") from error

    async def change(self, name: ClusterName, step: Callable[[Lease], Lease]) -> Lease:
        """Change a lease atomically, and return the new lease.

        :param name: the cluster
        :param step: returns the new lease for the old one. It may be called several times, and its exceptions are
            propagated. Applied to its own result, it must return the same lease again, apart from times, because the
            answer to a write may be lost.
        :raises LeaseStoreError: the lease could not be read or written
        :raises LeaseUnreadableError: the object is not a lease
        """
        unanswered = 0
        for turn in range(CHANGES):
            old, generation = await self.read(name)
            new = step(old)
            if new == old:
                return old
            try:
                await self._write(name, new, generation)
                return new
            except (_ConflictError, _TooOftenError):
                # Full jitter: writers that collided must not collide again.
                await asyncio.sleep(random.random() * min(0.05 * 2**turn, LONGEST_PAUSE))  # noqa: S311
            except _MissingError as error:
                raise LeaseStoreError(f"The bucket of {self.uri} does not exist: {error.message}") from error
            except ServiceUnavailableError as error:
                # It may have been written, which the next read shows.
                log.info("A write to the lease of cluster %s was not answered; checking its effect: %s", name, error)
                unanswered += 1
                if unanswered >= ATTEMPTS:
                    raise LeaseStoreError(f"The lease of {name} could not be written: {error.message}") from error
                await self._transport.back_off(unanswered)
        raise LeaseStoreError(
            f"The lease of {name} could not be written, because it was changed by others {CHANGES} times in a row."
        )

    async def forget(self, name: ClusterName) -> None:
        """Delete the lease of a cluster that was deleted.

        :raises LeaseStoreError: the lease could not be deleted
        """
        try:
            await self._request("DELETE", self._object(name))
        except _MissingError:
            return

    async def _write(self, name: ClusterName, lease: Lease, generation: int) -> None:
        # As by Google's own client: metadata and content in one request.
        boundary = secrets.token_hex(16)
        # In a public bucket, objects are cached for an hour by default.
        metadata = {"name": self._path(name), "contentType": "application/json", "cacheControl": "no-store"}
        parts = (metadata, lease.to_json())
        head = f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        text = "".join(f"{head}{json.dumps(part, sort_keys=True)}\r\n" for part in parts)
        url = f"{self._transport.addresses.storage()}/upload/storage/v1/b/{self._bucket}/o"
        await self._transport.request(
            "POST",
            f"{url}?uploadType=multipart&ifGenerationMatch={generation}",
            error_from=_storage_error,
            data=f"{text}--{boundary}--".encode,
            content_type=f"multipart/related; boundary={boundary}",
            repeatable=False,
            timeout=TIMEOUT,
        )

    async def _request(self, method: str, url: str) -> Answer:
        try:
            return await self._transport.request(
                method, url, error_from=_storage_error, attempts=ATTEMPTS, timeout=TIMEOUT, max_bytes=MOST_BYTES
            )
        except ServiceUnavailableError as error:
            raise LeaseStoreError(f"Could not reach the leases in {self.uri}: {error.message}") from error

    def _object(self, name: ClusterName) -> str:
        path = quote(self._path(name), safe="")
        return f"{self._transport.addresses.storage()}/storage/v1/b/{self._bucket}/o/{path}"

    def _path(self, name: ClusterName) -> str:
        return f"{self._folder}{name.project}/{name.location}/{name.cluster_id}.json"


def _storage_error(status: int, text: str) -> VertexRayError:
    """Return the typed error for an HTTP answer of Cloud Storage."""
    reason = read_error(text).message or text.strip()[:300]
    message = f"Cloud Storage answered {status}: {reason}"
    details = {"http_status": status}
    # The service names the object, and the emulator answers just this. Anything else, such as the page of a proxy or
    # "The specified bucket does not exist.", must not be mistaken for a lease without holders.
    if status == 404 and (reason.startswith("No such object") or reason == "Not Found"):
        return _MissingError(reason, details)
    if status == 412:
        return _ConflictError(reason, details)
    if status == 429:
        return _TooOftenError(message, details)
    if status == 408 or status >= 500:
        return ServiceUnavailableError(message, details)
    return LeaseStoreError(message, details)


async def hold(store: LeaseStore, name: ClusterName, owner: str, ttl: float) -> None:
    """Acquire or renew a lease for ``ttl`` seconds from now.

    :param store: the lease store
    :param name: the cluster, as the service names it, with the project's number, which is the same for all holders
    :param owner: name of the holder
    :param ttl: seconds
    :raises ClusterClosingError: the cluster is about to be deleted or scaled down
    :raises LeaseStoreError: the lease could not be read or written
    """
    await store.change(name, lambda lease: lease.acquire(owner, time.time(), ttl))


async def held_cluster(transport: Transport, store: LeaseStore, cluster: Cluster, owner: str, ttl: float) -> Cluster:
    """Acquire the lease of a cluster and return the cluster, re-read afterwards.

    :param transport: the connection
    :param store: the lease store
    :param cluster: the cluster
    :param owner: name of the holder
    :param ttl: seconds for which the lease is acquired
    :raises ClusterClosingError: the cluster is about to be deleted or scaled down
    :raises ClusterNotFoundError: the cluster was deleted before the lease was acquired
    :raises LeaseStoreError: the lease could not be read or written
    """
    name = cluster.resource_name
    await hold(store, name, owner, ttl)
    return await ClustersApi(transport).get(name)


@contextlib.asynccontextmanager
async def heartbeat(store: LeaseStore, name: ClusterName, owner: str, ttl: float) -> AsyncIterator[None]:
    """Renew a lease periodically while the block runs.

    A failure is logged and retried, because the job on the cluster also keeps the cluster in use.

    :param store: the lease store
    :param name: the cluster
    :param owner: name of the holder
    :param ttl: seconds for which the lease is acquired each time
    """

    async def beat() -> None:
        while True:
            try:
                await hold(store, name, owner, ttl)
            except VertexRayError as error:
                log.warning(
                    "Could not renew the lease of cluster %s; retrying in %.0f s: %s", name, ttl * SHARE_OF_TTL, error
                )
            await asyncio.sleep(ttl * SHARE_OF_TTL)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait({beating})
