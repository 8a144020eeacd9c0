"""Retries: after which answers, how often, and after which pause."""

from __future__ import annotations

import datetime
import email.utils
import random
import re
import time
from dataclasses import dataclass

__all__ = ["TRANSIENT", "RefusalGrace", "RetryPolicy"]

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 524})
"""HTTP statuses after which a repeated request may succeed; a dashboard's front end answers 524 while Ray starts."""

GRACE_SECONDS = 300.0
"""Seconds for which a call that had worked may be refused before that counts as the answer.

The propagation of permissions, and the proxies in front of the services, refuse valid calls for minutes."""

REMEMBERED_CALLS = 10_000
"""Number of calls of which is remembered whether they have worked."""

_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class RetryPolicy:
    """Retry policy of calls that may be repeated.

    :param attempts: total number of attempts
    :param first_delay: seconds before the second attempt; doubles with each further attempt, with jitter
    :param longest_delay: maximum number of seconds between two attempts, also for the server's Retry-After
    """

    attempts: int = 6
    first_delay: float = 0.5
    longest_delay: float = 20.0

    def delay(self, failures: int, retry_after: str | None) -> float:
        """Return the seconds to wait before the next attempt.

        :param failures: number of failed attempts
        :param retry_after: value of the server's Retry-After header, if there is one
        """
        asked = _seconds_of(retry_after)
        if asked is not None:
            return min(asked, self.longest_delay)
        ceiling: float = min(self.first_delay * 2 ** min(failures - 1, 30), self.longest_delay)
        return ceiling * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, not a secret


def _seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date that is not past; None for anything else."""
    text = (retry_after or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.timezone.utc)
        left = moment.timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return left if left > 0 else None


class RefusalGrace:
    """Distinguishes a refusal of a call that had worked, which may be temporary, from one that was always refused."""

    def __init__(self) -> None:
        # For each call that has worked: when it was first refused since then; None if it was not.
        self._calls: dict[str, float | None] = {}

    def worked(self, call: str) -> None:
        """Note that a call has worked."""
        if call not in self._calls and len(self._calls) >= REMEMBERED_CALLS:
            del self._calls[next(iter(self._calls))]
        self._calls[call] = None

    def tolerates(self, call: str) -> bool:
        """Note that a call was refused; return whether it had worked before, and since when is not too long ago."""
        if call not in self._calls:
            return False
        since = self._calls[call]
        now = time.monotonic()
        if since is None:
            self._calls[call] = since = now
        return now - since < GRACE_SECONDS
