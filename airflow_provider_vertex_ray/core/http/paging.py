"""Pages of a list: the token of the next one, and an end to a list that never ends."""

from __future__ import annotations

from airflow_provider_vertex_ray.errors import UnreadableAnswerError

__all__ = ["PageTokens"]

MOST_PAGES = 2_000
"""Maximum number of pages of one list."""


class PageTokens:
    """The tokens of one list's pages; pass each page's ``nextPageToken`` to ``follow``."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def follow(self, token: str | None) -> str:
        """Return the token of the next page; empty after the last one.

        :param token: the answer's token of the next page
        :raises UnreadableAnswerError: the service repeats a token, so that the list would never end, or has too many
            pages
        """
        if not token:
            return ""
        if token in self._seen or len(self._seen) >= MOST_PAGES:
            raise UnreadableAnswerError(
                f"The service repeats pages of a list, or has more than {MOST_PAGES}; the list cannot be read."
            )
        self._seen.add(token)
        return token
