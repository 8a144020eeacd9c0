"""Keep credentials out of errors and logs: what is told about a failed request never shows its headers."""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import AsyncIterator
from urllib.parse import unquote, urlsplit

__all__ = ["Redactor", "describe", "excerpt"]

SHORTEST_SECRET = 8
"""Minimum length of a text that is replaced; a shorter one would be part of ordinary words."""

KEPT_SECRETS = 16
"""Number of secrets that are remembered: a server may send back a token that it received some time ago."""

# The parser quotes the bytes in lines of their own; another error may quote that text.
_QUOTED_BYTES = re.compile(r"\n|\\n|b'|b\"")

LONGEST_DESCRIPTION = 300
"""Characters of a description of an error."""


class Redactor:
    """Replaces the access tokens and proxy passwords that were used by ``***``, wherever a text repeats them."""

    def __init__(self) -> None:
        self._secrets: deque[str] = deque(maxlen=KEPT_SECRETS)

    def add(self, secret: str) -> None:
        """Remember a secret; one that is too short is ignored."""
        if len(secret) >= SHORTEST_SECRET and secret not in self._secrets:
            self._secrets.append(secret)

    def add_proxy(self, url: str) -> None:
        """Remember the user's password in a proxy's URL, as it is written there, decoded, and as a header sends it."""
        parts = urlsplit(url)
        if parts.password is None:
            return
        user, password = unquote(parts.username or ""), unquote(parts.password)
        sent = base64.b64encode(f"{user}:{password}".encode()).decode()
        for secret in (parts.password, password, sent):
            self.add(secret)

    def __call__(self, text: str) -> str:
        """Return the text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def content(self, content: bytes | bytearray) -> bytes | bytearray:
        """Return the body of an answer without the secrets."""
        for secret in self._secrets:
            found = secret.encode()
            if found in content:
                content = content.replace(found, b"***")
        return content

    async def stream(self, pieces: AsyncIterator[str]) -> AsyncIterator[str]:
        """Yield the pieces of a text without the secrets; the beginning of one is held back until the next piece."""
        held = ""
        async for piece in pieces:
            text = self(held + piece)
            end = len(text) - self._begun(text)
            held = text[end:]
            if end:
                yield text[:end]
        if held:
            yield held

    def _begun(self, text: str) -> int:
        """Return the number of characters at the end of a text with which a secret begins."""
        longest = 0
        for secret in self._secrets:
            at = max(0, len(text) - len(secret) + 1)
            while (at := text.find(secret[0], at)) >= 0:
                if secret.startswith(text[at:]):
                    longest = max(longest, len(text) - at)
                    break
                at += 1
        return longest


def excerpt(text: str, longest: int = LONGEST_DESCRIPTION) -> str:
    """Return the beginning of an error answer's body in one line, for an answer without a message.

    JSON is not quoted: a job's record contains its environment variables.
    """
    shown = " ".join(text.split())[:longest]
    if not shown:
        return "(empty answer)"
    return "(JSON of an unexpected form)" if shown[0] in "{[" else shown


def describe(error: BaseException) -> str:
    """Return the type and the text of an error of the HTTP library.

    Its ``repr`` is never shown: that of an answer's error contains the request's headers. An answer's error is
    described by its status and message only, because its text also names the URL, which may contain a proxy's password.
    The part of the answer that the parser stumbled over is left out: it may be any part of a job's record.
    """
    status = getattr(error, "status", None)
    text = f"{status}, {getattr(error, 'message', '')}" if isinstance(status, int) else str(error)
    text = _QUOTED_BYTES.split(text[:LONGEST_DESCRIPTION], maxsplit=1)[0]
    shown = "".join(char if char.isprintable() else " " for char in text).rstrip()
    return f"{type(error).__name__}: {shown}" if shown.strip() else type(error).__name__
