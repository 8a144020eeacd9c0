"""Access tokens: issued by the fake metadata server, checked on every surface."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SCHEME = "bearer "


class Tokens:
    """Issues and checks access tokens.

    :param seconds: lifetime of new tokens; it may be changed at any time.
    :param clock: returns the time in seconds; tests may pass their own.
    """

    def __init__(self, seconds: float = 3600.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._expiry: dict[str, float] = {}

    def mint(self) -> tuple[str, float]:
        """Issue a token; return it with its lifetime in seconds."""
        now = self._clock()
        # Long benchmarks issue tokens for hours: without this the table would grow without bound.
        if len(self._expiry) > 10_000:
            self._expiry = {token: end for token, end in self._expiry.items() if end > now}
        # Some clients and log filters recognise tokens by Google's prefix.
        token = f"ya29.emulator-{secrets.token_hex(20)}"
        self._expiry[token] = now + self.seconds
        return token, self.seconds

    def accepts(self, authorization: str | None) -> bool:
        """Return whether the value of an ``Authorization`` header contains a valid token."""
        if not authorization or authorization[: len(_SCHEME)].lower() != _SCHEME:
            return False
        return self._expiry.get(authorization[len(_SCHEME) :].strip(), float("-inf")) > self._clock()

    def revoke_all(self) -> None:
        """Invalidate every token issued so far."""
        self._expiry.clear()
