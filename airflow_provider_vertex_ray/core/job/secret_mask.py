"""Masking of secret values in texts that come from a cluster. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

SHORTEST_HIDDEN = 5
"""Minimum length of a value that is masked; a shorter one would be part of too many words."""


class SecretMask:
    """Replaces secret values in a text by ``***``.

    :param values: the values; those of several lines are masked line by line, and those that are too short are not
        masked
    """

    def __init__(self, values: Iterable[str]) -> None:
        parts = {part.strip() for value in values for part in value.splitlines()}
        # Longest first: one value may be a prefix of another.
        hidden = sorted((part for part in parts if len(part) >= SHORTEST_HIDDEN), key=lambda part: (-len(part), part))
        self.longest = len(hidden[0]) if hidden else 0
        """Characters of the longest value."""
        self._pattern = re.compile("|".join(map(re.escape, hidden))) if hidden else None

    def __call__(self, text: str) -> str:
        """Return the text with the values masked."""
        return self._pattern.sub("***", text) if self._pattern else text
