"""Leases of clusters in Cloud Storage: one object for each hold, and one that closes the cluster to new holders.

``<project>/<location>/<cluster>/holders/<key>.json``
    a hold. Only its own holder writes it, so any number of holders can hold a cluster although Cloud Storage accepts
    one write per second to the same object. A hold that lasts long enough is not written again.
``<project>/<location>/<cluster>/closing.json``
    the mark of whoever is about to delete the cluster or to scale it down. It is written under a precondition, so there
    is one at a time.

**A holder writes its hold, then reads the mark. A closer writes the mark, then lists the holds.** Each step is atomic,
and sees every step that ended before it began. If the holder does not see the mark, it read before the mark was
written; so its hold was written before the mark, and the closer's list shows it. So at least one of them sees the
other: never do both go on. If both see each other, the closer opens the lease again and the holder tries again.

This also needs that nobody removes a hold that another task relies on: a holder that sees the mark leaves its hold,
and only its release, its expiry, or the end of the cluster ends it. A hold with a writer belongs to that writer alone,
which may take it back; whoever else comes to rely on it makes it its own first.

The mark is void after a while in case that its owner has died; so whoever closes must act soon after ``close``, which
may be repeated to renew the mark and look again. A task that acquires a hold reads its cluster afterwards, because it
may have been deleted together with its lease.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace
from typing import Any

from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing.lease import OPEN, Closing, Holder, HolderId, Lease, closing_error
from airflow_provider_vertex_ray.core.sharing.lease_objects import LeaseObjects, StoredObject
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    LeaseHeldError,
    LeaseStoreError,
    LeaseStoreUnavailableError,
    LeaseUnreadableError,
)

DELETES_AT_ONCE = 16
"""Number of objects that are deleted concurrently."""

ACQUIRE_TURNS = 3
"""Attempts to acquire a hold while Cloud Storage takes longer than the hold lasts."""


class LeaseStore:
    """The leases of all clusters below one URI.

    :param transport: the connection
    :param uri: ``gs://bucket/folder``
    :raises InvalidArgumentError: the URI is malformed
    """

    def __init__(self, transport: Transport, uri: str) -> None:
        self.uri = uri
        self._objects = LeaseObjects(transport, uri)

    async def check(self) -> None:
        """Validate that leases can be written, listed and deleted.

        :raises LeaseStoreError: they cannot; it names ``lease_uri`` and the remedy
        """
        path = f"checks/{secrets.token_hex(8)}.json"
        await self._objects.update(path, lambda content: OPEN if content is None else None)
        for stored in await self._objects.list_below(path):
            await self._objects.delete(stored.path, stored.generation)

    async def check_readable(self) -> None:
        """Validate that leases can be listed.

        :raises LeaseStoreError: they cannot; it names ``lease_uri`` and the remedy
        """
        await self._objects.list_below("checks/")

    async def read(self, name: ClusterName) -> Lease:
        """Return the lease of a cluster; an empty lease if there is none.

        :raises LeaseStoreError: the lease cannot be read
        :raises LeaseUnreadableError: an object of it has another form
        """
        return _lease_of(name, await self._objects.list_below(_folder(name)))

    async def acquire(self, name: ClusterName, who: HolderId, ttl: float, *, writer: str = "") -> None:
        """Acquire a hold, or renew it, so that it lasts for at least ``ttl`` seconds.

        Read the cluster afterwards; it may have been deleted together with its lease.

        :param name: the cluster, as the service names it, with the project's number, which is the same for all holders
        :param who: the hold
        :param ttl: seconds
        :param writer: who may take the hold back with ``take_back``, until another writer acquires it too
        :raises ClusterClosingError: the cluster is about to be deleted or scaled down. The hold remains, because
            another task with the same one may rely on it: take it back if it is not to be used.
        :raises LeaseStoreError: the lease could not be read or written
        """

        def hold(content: Any) -> Any:
            now = time.time()
            old = Holder.from_json(content) if content is not None else Holder(who.owner, now, now, who.scope)
            # A hold with another writer may be taken back by it; whoever relies on it makes it its own first.
            if content is not None and old.lasts(now, ttl) and old.writer == writer:
                return None
            return old.renewed(now, ttl, writer).to_json()

        for _ in range(ACQUIRE_TURNS):
            began = time.monotonic()
            await self._objects.update(_holder_path(name, who), hold)
            closing = await self._closing(name)
            if closing is not None and closing.holds(time.time()):
                raise closing_error(closing)
            # A mark that is read after the hold has expired says nothing about what came in between.
            if time.monotonic() - began < ttl / 2:
                return
        raise LeaseStoreUnavailableError(f"Cloud Storage is too slow for holds of {ttl:.0f} s in {self.uri}.")

    async def renew(self, name: ClusterName, who: HolderId, ttl: float) -> bool:
        """Renew a hold so that it lasts for at least ``ttl`` seconds; return False if it was released.

        A closing is not looked at: a live hold keeps its cluster.

        :raises LeaseStoreError: the lease could not be read or written
        """
        released = False

        def hold(content: Any) -> Any:
            nonlocal released
            now = time.time()
            old = Holder.from_json(content) if content is not None else None
            released = old is None or old.released
            return None if old is None or released or old.lasts(now, ttl) else old.renewed(now, ttl).to_json()

        await self._objects.update(_holder_path(name, who), hold)
        return not released

    async def release(self, name: ClusterName, who: HolderId) -> None:
        """Release a hold, if there is one; the time of the release is kept as the last use of the cluster.

        :raises LeaseStoreError: the lease could not be read or written
        """
        await self._objects.update(_holder_path(name, who), lambda content: _ended(content, None))

    async def release_all(self, name: ClusterName, owner: str, run: str | None = None) -> None:
        """Release all holds of an owner, in any scope.

        :param name: the cluster
        :param owner: the owner
        :param run: DAG run to which the holds must belong, as others may hold under the same owner's name; None for any
        :raises LeaseStoreError: the lease could not be read or written
        """
        lease = await self.read(name)
        for held in lease.holders.values():
            if held.owner == owner and not held.released and (run is None or held.belongs_to(run)):
                await self.release(name, held.holder_id)

    async def take_back(self, name: ClusterName, who: HolderId, writer: str) -> None:
        """Remove a hold that was not used, unless somebody else wrote it since.

        :raises LeaseStoreError: the lease could not be read or written
        """
        path = _holder_path(name, who)
        await self._objects.update(path, lambda content: _ended(content, writer))
        stored = await self._objects.read(path)
        if stored is not None and (held := Holder.from_json(stored.content)).released and held.writer == writer:
            await self._objects.delete(path, stored.generation)

    async def close(
        self,
        name: ClusterName,
        mark: Closing,
        seconds: float,
        *,
        ignoring: str | None = None,
        force: bool = False,
        unbroken: bool = False,
    ) -> None:
        """Close the lease to new holders for ``seconds``; if it is closed by the same token, renew that and look again.

        :param name: the cluster
        :param mark: who closes, why, and the token; its times are set here
        :param seconds: seconds after which the lease opens by itself; act within half of that
        :param ignoring: DAG run whose holds do not count, whatever their owner's name
        :param force: whether holders do not count at all
        :param unbroken: whether holders do not count if the lease has been closed by this token without a break: those
            who came since were refused, and only wait
        :raises LeaseHeldError: the cluster is in use; the lease is open again
        :raises ClusterClosingError: somebody else has already closed the lease
        :raises LeaseStoreError: the lease could not be read or written
        """

        kept_until = 0.0

        def closed(content: Any) -> Any:
            nonlocal kept_until
            now = time.time()
            old = Closing.from_json(content) if content is not None else None
            mine = old is not None and old.token == mark.token
            if old is not None and not mine and old.holds(now):
                raise ClusterClosingError(
                    f"{old.by} is already about to change the cluster ({old.reason}).",
                    {"by": old.by, "reason": old.reason, "until": old.until},
                )
            kept_until = old.until if old is not None and mine else 0.0
            if old is not None and mine and old.until - now >= seconds * 0.75:
                return None
            since = old.since if old is not None and mine else now
            return replace(mark, since=since, until=now + seconds).to_json()

        if not force and not unbroken:
            # Whoever cannot close must not keep others away, not even for a moment.
            (await self.read(name)).check_unheld(time.time(), ignoring)
        await self._objects.update(_closing_path(name), closed)
        # Judged after the write: it may have come too late to follow the old mark without a break.
        if force or (unbroken and time.time() < kept_until):
            return
        try:
            (await self.read(name)).check_unheld(time.time(), ignoring)
        except (LeaseHeldError, LeaseStoreError):
            await self.reopen(name, mark.token)
            raise

    async def reopen(self, name: ClusterName, token: str) -> None:
        """Open the lease to new holders, if it was closed with this token.

        :raises LeaseStoreError: the lease could not be read or written
        """

        def opened(content: Any) -> Any:
            old = Closing.from_json(content) if content is not None else None
            return OPEN if old is not None and old.token == token else None

        await self._objects.update(_closing_path(name), opened)

    async def forget(self, name: ClusterName) -> None:
        """Delete the lease of a cluster that was deleted.

        :raises LeaseStoreError: the lease could not be deleted
        """
        stored = await self._objects.list_below(_folder(name))
        await self._delete([each for each in stored if each.path != _closing_path(name)])
        await self._delete([each for each in stored if each.path == _closing_path(name)])

    async def tidy(self, name: ClusterName) -> None:
        """Delete the holds that ended long ago.

        :raises LeaseStoreError: the lease could not be read, or a hold not deleted
        """
        stored = await self._objects.list_below(_folder(name))
        outdated = set(_lease_of(name, stored).outdated(time.time()))
        await self._delete([each for each in stored if _key(each.path) in outdated])

    async def _closing(self, name: ClusterName) -> Closing | None:
        stored = await self._objects.read(_closing_path(name))
        return Closing.from_json(stored.content) if stored is not None else None

    async def _delete(self, stored: list[StoredObject]) -> None:
        for place in range(0, len(stored), DELETES_AT_ONCE):
            some = stored[place : place + DELETES_AT_ONCE]
            await asyncio.gather(*(self._objects.delete(each.path, each.generation) for each in some))


def _folder(name: ClusterName) -> str:
    return f"{name.project}/{name.location}/{name.cluster_id}/"


def _closing_path(name: ClusterName) -> str:
    return f"{_folder(name)}closing.json"


def _holder_path(name: ClusterName, who: HolderId) -> str:
    return f"{_folder(name)}holders/{who.key}.json"


def _key(path: str) -> str:
    return path.rsplit("/", 1)[-1].removesuffix(".json")


def _lease_of(name: ClusterName, stored: list[StoredObject]) -> Lease:
    holders: dict[str, Holder] = {}
    closing = None
    for each in stored:
        if each.path == _closing_path(name):
            closing = Closing.from_json(each.content)
        elif each.path.startswith(f"{_folder(name)}holders/"):
            holders[_key(each.path)] = Holder.from_json(each.content)
        else:
            raise LeaseUnreadableError(f"The object {each.path} is not part of a lease.")
    return Lease(holders, closing)


def _ended(content: Any, writer: str | None) -> Any:
    """Return the stored form of a hold after its release; None if there is nothing to release."""
    held = Holder.from_json(content) if content is not None else None
    if held is None or held.released or (writer is not None and held.writer != writer):
        return None
    return held.ended(time.time()).to_json()
