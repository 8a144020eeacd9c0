"""Leases: who uses a cluster, and who is about to change it. Pure; all times are Unix times and are arguments.

The times come from the clocks of different machines. Therefore a hold stays live for ``CLOCK_SKEW`` seconds after its
expiry, and so does a closing: as long as the clocks differ by less, no cluster is deleted while it is in use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_vertex_ray.core.checks import is_number
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseUnreadableError,
)

CLOCK_SKEW = 300.0
"""Seconds by which the clocks of two machines may differ."""

KEPT_USE = 86_400.0
"""Seconds for which an ended hold is kept, because it tells when the cluster was last used."""

SPARE_SHARE = 0.2
"""Share of ``ttl`` by which a written hold exceeds it, so that it need not be written again for each use."""

LONGEST_NAME = 1000
"""Characters of an owner or a scope, at most; Cloud Storage limits the metadata of an object to 8 KiB."""

LONGEST_REASON = 500
"""Characters of a closing's reason that are kept."""

VERSION = 2
"""Version of the stored format."""


@dataclass(frozen=True)
class HolderId:
    """Identity of a hold. Two users of a cluster that must not release each other's hold need different ones.

    :param owner: name of the holder for people, such as ``<dag_id>/<run_id>``
    :param scope: the part of the owner that holds, such as the ID of a task group or a task
    :raises InvalidArgumentError: a name is too long or not printable
    """

    owner: str
    scope: str = ""

    def __post_init__(self) -> None:
        for name in (self.owner, self.scope):
            if len(name) > LONGEST_NAME or not name.isprintable():
                rule = f"Use at most {LONGEST_NAME} printable characters."
                raise InvalidArgumentError("lease_owner", name[:100], rule)

    @property
    def key(self) -> str:
        """Name under which the hold is stored."""
        return hashlib.sha256(json.dumps([self.owner, self.scope]).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Holder:
    """A hold on a cluster.

    :param owner: name of the holder, such as ``<dag_id>/<run_id>``
    :param since: time at which the hold began
    :param expires: time at which it ends unless it is renewed, or at which it was released
    :param scope: the part of the owner that holds
    :param released: whether it was released, so that it does not count even if clocks differ
    :param writer: who wrote it last, if only this writer may take it back
    """

    owner: str
    since: float
    expires: float
    scope: str = ""
    released: bool = False
    writer: str = ""

    @property
    def holder_id(self) -> HolderId:
        """Identity of the hold."""
        return HolderId(self.owner, self.scope)

    def live(self, now: float) -> bool:
        """Tell whether the holder uses the cluster, or may still use it according to its own clock."""
        return not self.released and self.expires + CLOCK_SKEW > now

    def belongs_to(self, run: str) -> bool:
        """Tell whether a DAG run (``<dag_id>/<run_id>``) holds, maybe under another owner's name.

        The scope then begins with the run, see ``lease_holder_of``.
        """
        return run in (self.owner, self.scope.rpartition("/")[0])

    def lasts(self, now: float, ttl: float) -> bool:
        """Tell whether the hold lasts for another ``ttl`` seconds as it is."""
        return not self.released and self.expires - now >= ttl

    def renewed(self, now: float, ttl: float, writer: str = "") -> Holder:
        """Return the hold, renewed for ``ttl`` seconds and some more; a hold that has ended begins anew."""
        since = self.since if not self.released and self.expires > now else now
        kept = 0.0 if self.released else self.expires
        expires = max(now + ttl * (1 + SPARE_SHARE), kept)
        return replace(self, since=since, expires=expires, released=False, writer=writer)

    def ended(self, now: float) -> Holder:
        """Return the hold after its release."""
        return replace(self, expires=min(now, self.expires), released=True)

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return {"version": VERSION, **vars(self)}

    @classmethod
    def from_json(cls, data: Any) -> Holder:
        """Return the hold in its stored form.

        :raises LeaseUnreadableError: it has another form, so the cluster must be considered in use
        """
        with _Reading(data):
            return cls(
                _text(data["owner"]),
                _moment(data["since"]),
                _moment(data["expires"]),
                _text(data["scope"]),
                _flag(data["released"]),
                _text(data["writer"]),
            )


@dataclass(frozen=True)
class Closing:
    """A mark that the cluster is about to be deleted or scaled down, so it accepts no new holders.

    :param by: who is about to do it, for people
    :param reason: why
    :param since: time at which the lease was closed
    :param until: time at which the mark becomes void, in case that its owner has died
    :param token: identity of the deletion; another one with the same ``by`` has another token
    """

    by: str
    reason: str
    since: float
    until: float
    token: str = ""

    def holds(self, now: float) -> bool:
        """Tell whether the mark keeps new holders away, or may do so according to another clock."""
        return self.until + CLOCK_SKEW > now

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return {"version": VERSION, **vars(self), "reason": self.reason[:LONGEST_REASON]}

    @classmethod
    def from_json(cls, data: Any) -> Closing | None:
        """Return the mark in its stored form; None if it was taken back.

        :raises LeaseUnreadableError: it has another form
        """
        with _Reading(data):
            if data == OPEN:
                return None
            moments = (_moment(data["since"]), _moment(data["until"]))
            return cls(_text(data["by"]), _text(data["reason"]), *moments, _text(data["token"]))


OPEN: dict[str, Any] = {"version": VERSION}
"""Stored form of a mark that was taken back."""


@dataclass(frozen=True)
class Lease:
    """The lease of a cluster.

    :param holders: holders by key, including ended ones
    :param closing: set while the cluster is about to be deleted or scaled down
    """

    holders: Mapping[str, Holder] = field(default_factory=dict)
    closing: Closing | None = None

    def live(self, now: float) -> tuple[Holder, ...]:
        """Return the holders who use the cluster, or may still use it according to their own clocks."""
        return tuple(each for each in self.holders.values() if each.live(now))

    def closing_at(self, now: float) -> Closing | None:
        """Return who is about to delete the cluster or scale it down; None if that is void."""
        return self.closing if self.closing and self.closing.holds(now) else None

    def used_until(self, now: float) -> float | None:
        """Return the time until which the cluster was last held, but at most ``now``; None if unknown."""
        known = [min(each.expires, now) for each in self.holders.values()]
        return max(known) if known else None

    def check_unheld(self, now: float, ignoring: str | None = None) -> None:
        """Validate that nobody uses the cluster.

        :param now: Unix time
        :param ignoring: DAG run whose holds do not count, whatever their owner's name
        :raises LeaseHeldError: the cluster is in use
        """
        owners = sorted({each.owner for each in self.live(now) if ignoring is None or not each.belongs_to(ignoring)})
        if owners:
            more = f" and {len(owners) - 5} more" if len(owners) > 5 else ""
            raise LeaseHeldError(f"The cluster is held by {', '.join(owners[:5])}{more}.", {"owners": owners[:100]})

    def outdated(self, now: float) -> list[str]:
        """Return the keys of the holds that ended long ago, except that of the last one, which tells the last use."""
        ended = sorted(
            ((each.expires, key) for key, each in self.holders.items() if each.expires + KEPT_USE < now), reverse=True
        )
        newest = max(self.holders.values(), key=lambda each: each.expires, default=None)
        return [key for _, key in ended if self.holders[key] is not newest]


def closing_error(closing: Closing) -> ClusterClosingError:
    """Return the error for somebody who comes while the lease is closed."""
    return ClusterClosingError(
        f"The cluster accepts no new work, because {closing.by} is about to change it ({closing.reason}).",
        {"by": closing.by, "reason": closing.reason, "until": closing.until},
    )


class _Reading:
    """Turns what goes wrong while a stored form is read into ``LeaseUnreadableError``."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __enter__(self) -> None:
        version = self._data.get("version") if isinstance(self._data, dict) else None
        if version != VERSION:
            raise LeaseUnreadableError(
                f"The lease has version {str(version)[:50]}; this version of the package reads version {VERSION}."
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (KeyError, TypeError, AttributeError, ValueError, OverflowError)):
            raise LeaseUnreadableError(
                f"The content is not a lease: {str(self._data)[:200]!r} ({type(error).__name__}: {error})"
            ) from error


def _moment(value: Any) -> float:
    if not is_number(value):
        raise ValueError(f"{value!r} is not a time")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value
