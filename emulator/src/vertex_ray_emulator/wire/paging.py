"""Pages of lists, with tokens that hold the last name of a page: what comes and goes meanwhile moves nothing."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.wire.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PAGE = 100
MAX_PAGE = 1000


def page(found: Sequence[Any], page_size: int, page_token: str) -> tuple[list[Any], str]:
    """A page of resources, and the token of the next page or an empty string.

    :param found: All of them, in their order, each with a ``name`` that no other has.
    :param page_size: How many at most; 0 for the default of 100, more than 1,000 are never given.
    :param page_token: The last page's token; empty for the first page.
    :raises ApiError: INVALID_ARGUMENT for a size or a token that there is not.
    """
    if page_size < 0:
        raise invalid("page_size must not be negative.")
    size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
    rest = _after(found, _read(page_token)) if page_token else list(found)
    token = base64.urlsafe_b64encode(rest[size - 1].name.encode()).decode() if len(rest) > size else ""
    return rest[:size], token


def _after(found: Sequence[Any], name: str) -> list[Any]:
    for index, each in enumerate(found):
        if each.name == name:
            return list(found[index + 1 :])
    # It was deleted meanwhile; in a list by name its place is still known.
    return [each for each in found if each.name > name]


def _read(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise invalid(f"Invalid page_token: {token!r}.") from error
