"""Pages of lists. A token holds the last name of a page, so that pages do not shift when resources come and go."""

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
    """Return a page of resources, and the token of the next page or an empty string.

    :param found: all resources in their order, each with a unique ``name``.
    :param page_size: maximum number of resources; 0 for the default of 100, values above 1,000 count as 1,000.
    :param page_token: token of the previous page; empty for the first page.
    :raises ApiError: INVALID_ARGUMENT if the size is negative or the token is invalid.
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
    # The resource was deleted in the meantime; in a list by name its position is still known.
    return [each for each in found if each.name > name]


def _read(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise invalid(f"Invalid page_token: {token!r}.") from error
