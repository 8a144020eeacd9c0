"""Leases: who uses a cluster, and who is about to delete it. Pure; times are unix seconds, and always passed in.

All clocks are those of the machines that take part, so a lease counts as live for ``CLOCK_SKEW`` seconds longer than it
says: two machines whose clocks differ by less than that never disagree to somebody's harm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_vertex_ray.errors import ClusterClosingError, LeaseHeldError, LeaseUnreadableError

CLOCK_SKEW = 300.0
"""Seconds by which the clocks of two holders may differ."""

KEPT_USE = 86_400.0
"""Seconds for which a hold that has expired is remembered: it says when the cluster was used last."""

VERSION = 1


@dataclass(frozen=True)
class Holder:
    """Somebody who uses the cluster.

    :param owner: Who, such as ``<dag_id>/<run_id>``.
    :param since: When the hold began.
    :param expires: When it ends, unless it is renewed.
    """

    owner: str
    since: float
    expires: float


@dataclass(frozen=True)
class Closing:
    """Somebody is about to delete the cluster, or to make it smaller; it takes no holders meanwhile.

    :param by: Who.
    :param reason: Why.
    :param since: Since when.
    :param until: When it is void, should whoever closed it have died.
    """

    by: str
    reason: str
    since: float
    until: float


@dataclass(frozen=True)
class Lease:
    """What is known of a cluster's users.

    :param holders: By owner; some may have expired.
    :param closing: Set while somebody is about to delete the cluster.
    :param last_used: When a hold was given back last.
    """

    holders: Mapping[str, Holder] = field(default_factory=dict)
    closing: Closing | None = None
    last_used: float | None = None

    def acquire(self, owner: str, now: float, ttl: float) -> Lease:
        """Hold the cluster for ``ttl`` seconds from now, or for as long as it is held already.

        :raises ClusterClosingError: Somebody is about to delete it.
        """
        if closing := self.closing_at(now):
            raise ClusterClosingError(
                f"The cluster takes no new work: {closing.by} is about to change it ({closing.reason}).",
                {"by": closing.by, "reason": closing.reason, "until": closing.until},
            )
        held = self.holders.get(owner)
        since = held.since if held and held.expires > now else now
        expires = max(now + ttl, held.expires if held else 0.0)
        kept = {name: each for name, each in self.holders.items() if each.expires + KEPT_USE > now}
        return replace(self, holders={**kept, owner: Holder(owner, since, expires)}, closing=None)

    def release(self, owner: str, now: float) -> Lease:
        """Give the hold back; nothing happens to who has none."""
        if owner not in self.holders:
            return self
        kept = {name: each for name, each in self.holders.items() if name != owner}
        return replace(self, holders=kept, last_used=max(now, self.last_used or 0.0))

    def live(self, now: float) -> tuple[Holder, ...]:
        """Those who use the cluster, or may still do so by their own clocks."""
        return tuple(each for each in self.holders.values() if each.expires + CLOCK_SKEW > now)

    def close(self, by: str, reason: str, now: float, ttl: float) -> Lease:
        """Take no new holders for ``ttl`` seconds.

        :raises LeaseHeldError: Somebody uses the cluster.
        :raises ClusterClosingError: Somebody else is about to delete it already.
        """
        closing = self.closing_at(now)
        if closing and closing.by != by:
            raise ClusterClosingError(
                f"{closing.by} is about to change the cluster already ({closing.reason}).",
                {"by": closing.by, "reason": closing.reason, "until": closing.until},
            )
        if live := self.live(now):
            owners = sorted(each.owner for each in live)
            raise LeaseHeldError(f"The cluster is held by {', '.join(owners)}.", {"owners": owners})
        return replace(self, closing=Closing(by, reason, closing.since if closing else now, now + ttl))

    def reopen(self, by: str) -> Lease:
        """Take holders again, if ``by`` had closed it."""
        return replace(self, closing=None) if self.closing and self.closing.by == by else self

    def closing_at(self, now: float) -> Closing | None:
        """Who is about to delete the cluster, as far as that is not void."""
        return self.closing if self.closing and self.closing.until + CLOCK_SKEW > now else None

    def used_until(self, now: float) -> float | None:
        """When the cluster was held last, as far as that is known and over."""
        ends = [self.last_used, *(each.expires for each in self.holders.values())]
        known = [min(end, now) for end in ends if end is not None]
        return max(known) if known else None

    def to_json(self) -> dict[str, Any]:
        """The lease as it is stored."""
        return {
            "version": VERSION,
            "holders": {each.owner: {"since": each.since, "expires": each.expires} for each in self.holders.values()},
            "closing": None if self.closing is None else dict(vars(self.closing)),
            "last_used": self.last_used,
        }

    @classmethod
    def from_json(cls, data: Any) -> Lease:
        """Read one back.

        :raises LeaseUnreadableError: It is something else; whoever reads it must take the cluster for used.
        """
        try:
            if data["version"] != VERSION:
                raise LeaseUnreadableError(f"The lease has version {data['version']!r}; this package knows {VERSION}.")
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
            raise LeaseUnreadableError(f"This is no lease: {str(data)[:200]!r} ({error!r})") from error


def _moment(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no time")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value
