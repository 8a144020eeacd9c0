"""Resource names of the API, with the project's number in place of its id."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vertex_ray_emulator.wire.errors import ApiError, invalid

if TYPE_CHECKING:
    from vertex_ray_emulator.settings import Settings

PARENT = re.compile(r"projects/(?P<project>[^/]+)/locations/(?P<location>[a-z0-9-]+)")

REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
"""Shape of a region's name. The emulator keeps no table of regions: a new one works as soon as a client names it."""


def pattern(collection: str) -> re.Pattern[str]:
    """Return the pattern of the names in a collection; its group ``id`` is the last part."""
    return re.compile(PARENT.pattern + rf"/{collection}/(?P<id>[^/]+)")


class Names:
    """Checks and normalises the resource names that callers send.

    :param settings: settings with the project.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def canonical(self, name: str) -> str:
        """Return a resource name with the project's number in place of its id."""
        return re.sub(
            rf"^projects/{re.escape(self._settings.project)}(?=/|$)",
            f"projects/{self._settings.project_number}",
            name,
        )

    def check(self, wanted: re.Pattern[str], name: str, permission: str) -> str:
        """Return the canonical form of a name.

        :param wanted: pattern that the name must match, with a group ``project``.
        :param name: name that the caller sent.
        :param permission: permission that the caller needs, such as ``endpoints.predict``.
        :raises ApiError: INVALID_ARGUMENT if the name does not match; PERMISSION_DENIED for another project.
        """
        name = self.canonical(name)
        match = wanted.fullmatch(name)
        if match is None:
            raise invalid(f"Invalid resource name: {name!r}.")
        if match["project"] != self._settings.project_number:
            raise ApiError(
                "PERMISSION_DENIED",
                f"Permission 'aiplatform.{permission}' denied on resource "
                f"'//aiplatform.googleapis.com/{name}' (or it may not exist). "
                f"The Vertex Ray emulator has only the project {self._settings.project!r}.",
            )
        return name
