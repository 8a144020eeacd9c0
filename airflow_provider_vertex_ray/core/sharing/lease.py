"""Leases: who uses a cluster, and who is about to delete it. Pure; all times are Unix times and are arguments.

The times come from the clocks of different machines. Therefore a lease stays live for ``CLOCK_SKEW`` seconds after its
expiry: as long as the clocks differ by less, no cluster is deleted while it is in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_vertex_ray.core.checks import is_number
from airflow_provider_vertex_ray.errors import ClusterClosingError, LeaseHeldError, LeaseUnreadableError

CLOCK_SKEW = 300.0
"""Seconds by which the clocks of two machines may differ."""

KEPT_USE = 86_400.0
"""Seconds for which an expired hold is remembered, because it tells when the cluster was last used."""

VERSION = 1
"""Version of the stored format."""


@dataclass(frozen=True)
class Holder:
    """A holder of the lease, who uses the cluster.

    :param owner: name of the holder, such as ``<dag_id>/<run_id>``
    :param since: time at which the hold began
    :param expires: time at which it ends unless it is renewed
    """

    owner: str
    since: float
    expires: float


@dataclass(frozen=True)
class Closing:
    """A mark that the cluster is about to be deleted or scaled down, so it accepts no new holders.

    :param by: who is about to do it
    :param reason: why
    :param since: time at which the lease was closed
    :param until: time at which the mark becomes void, in case that its owner has died
    """

    by: str
    reason: str
    since: float
    until: float


@dataclass(frozen=True)
class Lease:
    """The lease of a cluster.

    :param holders: holders by owner, including expired ones
    :param closing: set while the cluster is about to be deleted or scaled down
    :param last_used: time at which a hold was last released
    """

    holders: Mapping[str, Holder] = field(default_factory=dict)
    closing: Closing | None = None
    last_used: float | None = None

    def acquire(self, owner: str, now: float, ttl: float) -> Lease:
        """Return the lease with a hold that lasts for ``ttl`` seconds from now, or as long as an existing one.

        :param owner: name of the holder
        :param now: Unix time
        :param ttl: seconds
        :raises ClusterClosingError: the cluster is about to be deleted or scaled down
        """
        if closing := self.closing_at(now):
            raise ClusterClosingError(
                f"The cluster accepts no new work, because {closing.by} is about to change it ({closing.reason}).",
                {"by": closing.by, "reason": closing.reason, "until": closing.until},
            )
        held = self.holders.get(owner)
        since = held.since if held and held.expires > now else now
        expires = max(now + ttl, held.expires if held else 0.0)
        kept = {name: each for name, each in self.holders.items() if each.expires + KEPT_USE > now}
        return replace(self, holders={**kept, owner: Holder(owner, since, expires)}, closing=None)

    def release(self, owner: str, now: float) -> Lease:
        """Return the lease without the hold of ``owner``, if there is one."""
        if owner not in self.holders:
            return self
        kept = {name: each for name, each in self.holders.items() if name != owner}
        return replace(self, holders=kept, last_used=max(now, self.last_used or 0.0))

    def live(self, now: float) -> tuple[Holder, ...]:
        """Return the holders who use the cluster, or may still use it according to their own clocks."""
        return tuple(each for each in self.holders.values() if each.expires + CLOCK_SKEW > now)

    def close(self, by: str, reason: str, now: float, ttl: float) -> Lease:
        """Return the lease closed to new holders for ``ttl`` seconds.

        :param by: who is about to delete the cluster or scale it down
        :param reason: why
        :param now: Unix time
        :param ttl: seconds
        :raises LeaseHeldError: the cluster is in use
        :raises ClusterClosingError: somebody else has already closed the lease
        """
        closing = self.closing_at(now)
        if closing and closing.by != by:
            raise ClusterClosingError(
                f"{closing.by} is already about to change the cluster ({closing.reason}).",
                {"by": closing.by, "reason": closing.reason, "until": closing.until},
            )
        if live := self.live(now):
            owners = sorted(each.owner for each in live)
            raise LeaseHeldError(f"The cluster is held by {', '.join(owners)}.", {"owners": owners})
        return replace(self, closing=Closing(by, reason, closing.since if closing else now, now + ttl))

    def reopen(self, by: str) -> Lease:
        """Return the lease open to new holders, if ``by`` had closed it."""
        return replace(self, closing=None) if self.closing and self.closing.by == by else self

    def closing_at(self, now: float) -> Closing | None:
        """Return who is about to delete the cluster or scale it down; None if that is void."""
        return self.closing if self.closing and self.closing.until + CLOCK_SKEW > now else None

    def used_until(self, now: float) -> float | None:
        """Return the time until which the cluster was last held, but at most ``now``; None if unknown."""
        ends = [self.last_used, *(each.expires for each in self.holders.values())]
        known = [min(end, now) for end in ends if end is not None]
        return max(known) if known else None

    def to_json(self) -> dict[str, Any]:
        """Return the stored form of the lease."""
        return {
            "version": VERSION,
            "holders": {each.owner: {"since": each.since, "expires": each.expires} for each in self.holders.values()},
            "closing": None if self.closing is None else dict(vars(self.closing)),
            "last_used": self.last_used,
        }

    @classmethod
    def from_json(cls, data: Any) -> Lease:
        """Return the lease in its stored form.

        :raises LeaseUnreadableError: it has another form, so the cluster must be considered in use
        """
        try:
            if data["version"] != VERSION:
                raise LeaseUnreadableError(
                    f"The lease has version {data['version']!r}; this version of the package reads version {VERSION}."
                )
            holders = {
                str(owner): Holder(str(owner), _moment(each["since"]), _moment(each["expires"]))
                for owner, each in data["holders"].items()
            }
            found = data["closing"]
            closing = (
                found
                if found is None
                else Closing(
                    _text(found["by"]), _text(found["reason"]), _moment(found["since"]), _moment(found["until"])
                )
            )
            last_used = data["last_used"]
            return cls(holders, closing, None if last_used is None else _moment(last_used))
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise LeaseUnreadableError(f"The content is not a lease: {str(data)[:200]!r} ({error!r})") from error


def _moment(value: Any) -> float:
    if not is_number(value):
        raise ValueError(f"{value!r} is not a time")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    return value
