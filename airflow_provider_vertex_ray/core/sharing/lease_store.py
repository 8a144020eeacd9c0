"""Leases in Cloud Storage: one small object for each cluster, written only over the generation that was read.

Source: https://cloud.google.com/storage/docs/request-preconditions and
https://cloud.google.com/storage/docs/json_api/v1/objects. Through the transport that all calls here share, and not
through a client library: the download of the async one does not tell the generation of what it read, and the other one
would need a thread for each of a triggerer's waits.
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
from airflow_provider_vertex_ray.core.cluster.name import ClusterName, parse_cluster_name
from airflow_provider_vertex_ray.core.cluster.state import Cluster
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
"""Tries of a request that gets no answer."""

CHANGES = 30
"""Tries of a change, as long as others are quicker or the object is written too often."""

LONGEST_PAUSE = 4.0
"""Seconds between two of these tries, at most. Cloud Storage takes one write a second of the same object, and answers
429 to the others (https://cloud.google.com/storage/quotas#objects), so that runs which begin together have to queue.
"""

MOST_BYTES = 4 << 20

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class _ConflictError(VertexRayError):
    """The object is not of the generation that was read (412)."""


class _MissingError(VertexRayError):
    """There is no such object (404)."""


class _TooOftenError(ServiceUnavailableError):
    """The object is written too often (429): this write did nothing."""


def parse_lease_uri(uri: str) -> tuple[str, str]:
    """Bucket and folder of a ``lease_uri``; the folder is empty or ends with a slash.

    :raises InvalidArgumentError: It is no ``gs://`` URI.
    """
    rule = "give a folder in Cloud Storage, such as gs://bucket/leases"
    if not isinstance(uri, str) or not uri.startswith("gs://"):
        raise InvalidArgumentError("lease_uri", uri, rule)
    bucket, _, folder = uri.removeprefix("gs://").partition("/")
    folder = folder.strip("/")
    if not _BUCKET.fullmatch(bucket) or ".." in folder or "//" in folder or not folder.isprintable():
        raise InvalidArgumentError("lease_uri", uri, rule)
    return bucket, f"{folder}/" if folder else ""


class LeaseStore:
    """The leases of all clusters below one URI.

    :param transport: The connection.
    :param uri: ``gs://bucket/folder``.
    :raises InvalidArgumentError: The URI is malformed.
    """

    def __init__(self, transport: Transport, uri: str) -> None:
        self.uri = uri
        self._transport = transport
        self._bucket, self._folder = parse_lease_uri(uri)

    async def read(self, name: ClusterName) -> tuple[Lease, int]:
        """A cluster's lease, and the generation to write over: an empty one, and 0, where there is none.

        :raises LeaseStoreError: It can not be read.
        :raises LeaseUnreadableError: It can be read, and is no lease.
        """
        try:
            answer = await self._ask("GET", f"{self._object(name)}?alt=media")
        except _MissingError:
            return Lease(), 0
        try:
            generation = int(answer.headers["x-goog-generation"])
            return Lease.from_json(json.loads(answer.text)), generation
        except (ValueError, KeyError, RecursionError) as error:
            raise LeaseUnreadableError(f"The lease of {name} is no JSON, or has no generation: {error!r}") from error

    async def change(self, name: ClusterName, step: Callable[[Lease], Lease]) -> Lease:
        """Change a lease, whoever else changes it at the same time; gives what it is now.

        :param step: Makes the new lease of the old one. It may be called several times, and what it raises passes
            through. Applied to its own result it must give the same again, apart from times: the answer to a write may
            be lost.
        :raises LeaseStoreError: It could not be read or written.
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
                # Full jitter: those who collided must not collide again.
                await asyncio.sleep(random.random() * min(0.05 * 2**turn, LONGEST_PAUSE))  # noqa: S311
            except _MissingError as error:
                raise LeaseStoreError(f"There is no bucket for {self.uri}: {error.message}") from error
            except ServiceUnavailableError as error:
                # It may have been written, which the next look shows.
                log.info("A write to the lease of %s got no answer: %s", name, error)
                unanswered += 1
                if unanswered >= ATTEMPTS:
                    raise LeaseStoreError(f"The lease of {name} could not be written: {error.message}") from error
                await self._transport.back_off(unanswered)
        raise LeaseStoreError(f"The lease of {name} could not be written: others were quicker {CHANGES} times.")

    async def forget(self, name: ClusterName) -> None:
        """Remove a cluster's lease: the cluster is gone.

        :raises LeaseStoreError: It could not be removed.
        """
        try:
            await self._ask("DELETE", self._object(name))
        except _MissingError:
            return

    async def _write(self, name: ClusterName, lease: Lease, generation: int) -> None:
        # As Google's own client sends it: metadata and content in one request.
        boundary = secrets.token_hex(16)
        # In a bucket that everybody may read, an hour of caching is the default.
        about = {"name": self._path(name), "contentType": "application/json", "cacheControl": "no-store"}
        parts = (about, lease.to_json())
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

    async def _ask(self, method: str, url: str) -> Answer:
        try:
            return await self._transport.request(
                method, url, error_from=_storage_error, attempts=ATTEMPTS, timeout=TIMEOUT, max_bytes=MOST_BYTES
            )
        except ServiceUnavailableError as error:
            raise LeaseStoreError(f"The leases in {self.uri} can not be reached: {error.message}") from error

    def _object(self, name: ClusterName) -> str:
        path = quote(self._path(name), safe="")
        return f"{self._transport.addresses.storage()}/storage/v1/b/{self._bucket}/o/{path}"

    def _path(self, name: ClusterName) -> str:
        return f"{self._folder}{name.project}/{name.location}/{name.cluster_id}.json"


def _storage_error(status: int, text: str) -> VertexRayError:
    """The typed error for an answer of Cloud Storage."""
    said = text.strip()[:300]
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = str(json.loads(text)["error"]["message"])
    details = {"http_status": status}
    # The service names the object, the emulator says no more than this. Anything else, such as the page of a proxy or
    # "The specified bucket does not exist.", must not pass for a lease that nobody holds.
    if status == 404 and (said.startswith("No such object") or said == "Not Found"):
        return _MissingError(said, details)
    if status == 412:
        return _ConflictError(said, details)
    if status == 429:
        return _TooOftenError(f"Cloud Storage answered {status}: {said}", details)
    if status == 408 or status >= 500:
        return ServiceUnavailableError(f"Cloud Storage answered {status}: {said}", details)
    return LeaseStoreError(f"Cloud Storage answered {status}: {said}", details)


log = logging.getLogger(__name__)

SHARE_OF_TTL = 1 / 3
"""A lease is renewed after this share of its time."""


async def hold(store: LeaseStore, name: ClusterName, owner: str, ttl: float) -> None:
    """Hold the lease from now on for ``ttl`` seconds.

    :param name: As the service says it, with the project's number: the same for all holders.
    :raises ClusterClosingError: The cluster is about to be deleted.
    :raises LeaseStoreError: The store can not be reached.
    """
    await store.change(name, lambda lease: lease.acquire(owner, time.time(), ttl))


async def held_cluster(transport: Transport, store: LeaseStore, cluster: Cluster, owner: str, ttl: float) -> Cluster:
    """Hold a cluster's lease; gives the cluster as it is since: it may have been deleted before it was held.

    :raises ClusterClosingError: It is about to be deleted.
    :raises ClusterNotFoundError: It is gone.
    """
    name = parse_cluster_name(cluster.name)
    await hold(store, name, owner, ttl)
    return await ClustersApi(transport).get(name)


@contextlib.asynccontextmanager
async def heartbeat(store: LeaseStore, name: ClusterName, owner: str, ttl: float) -> AsyncIterator[None]:
    """Renew the lease as long as the block runs.

    What fails is said and tried again: the job on the cluster is itself a sign of use.
    """

    async def beat() -> None:
        while True:
            try:
                await hold(store, name, owner, ttl)
            except VertexRayError as error:
                log.warning("The lease of %s could not be renewed: %s", name.full, error)
            await asyncio.sleep(ttl * SHARE_OF_TTL)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait({beating})
