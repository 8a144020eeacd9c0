"""Access tokens: minted by the fake metadata server, checked on every surface."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SCHEME = "bearer "


class Tokens:
    """Mints and checks access tokens.

    :param seconds: The life of the tokens minted from now on; may be changed at any time.
    :param clock: Gives the time in seconds; a test may pass its own.
    """

    def __init__(self, seconds: float = 3600.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._expiry: dict[str, float] = {}

    def mint(self) -> tuple[str, float]:
        """A new token and its remaining life in seconds."""
        now = self._clock()
        # A benchmark mints for hours; without this the table would only ever grow.
        if len(self._expiry) > 10_000:
            self._expiry = {token: end for token, end in self._expiry.items() if end > now}
        # Google's own prefix, because some clients and log filters recognise tokens by it.
        token = f"ya29.emulator-{secrets.token_hex(20)}"
        self._expiry[token] = now + self.seconds
        return token, self.seconds

    def accepts(self, authorization: str | None) -> bool:
        """Whether an ``Authorization`` header's value holds a token that is valid now."""
        if not authorization or authorization[: len(_SCHEME)].lower() != _SCHEME:
            return False
        return self._expiry.get(authorization[len(_SCHEME) :].strip(), float("-inf")) > self._clock()

    def revoke_all(self) -> None:
        """Make every token minted so far invalid."""
        self._expiry.clear()
