"""Resource names of the API: the project's number in place of its id, and which projects there are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vertex_ray_emulator.wire.errors import ApiError, invalid

if TYPE_CHECKING:
    from vertex_ray_emulator.settings import Settings

PARENT = re.compile(r"projects/(?P<project>[^/]+)/locations/(?P<location>[a-z0-9-]+)")


def pattern(collection: str) -> re.Pattern[str]:
    """The pattern of a collection's names; ``id`` is the last part."""
    return re.compile(PARENT.pattern + rf"/{collection}/(?P<id>[^/]+)")


class Names:
    """Checks the names that callers give.

    :param settings: Knows the project.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def canonical(self, name: str) -> str:
        """A resource's name with the project's number in place of its id."""
        return re.sub(
            rf"^projects/{re.escape(self._settings.project)}(?=/|$)",
            f"projects/{self._settings.project_number}",
            name,
        )

    def check(self, wanted: re.Pattern[str], name: str, permission: str) -> str:
        """The canonical form of a name.

        :param wanted: What it has to look like, with a group ``project``.
        :param permission: What the caller needs for it, such as ``endpoints.predict``.
        :raises ApiError: INVALID_ARGUMENT for another form, PERMISSION_DENIED for another project.
        """
        name = self.canonical(name)
        match = wanted.fullmatch(name)
        if match is None:
            raise invalid(f"Invalid resource name: {name!r}.")
        if match["project"] != self._settings.project_number:
            raise ApiError(
                "PERMISSION_DENIED",
                f"Permission 'aiplatform.{permission}' denied on resource "
                f"'//aiplatform.googleapis.com/{name}' (or it may not exist).",
            )
        return name
