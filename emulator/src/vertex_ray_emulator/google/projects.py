"""The project's number (Cloud Resource Manager v3), which the SDK always requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.wire.errors import ApiError
from vertex_ray_emulator.wire.protos import Project

if TYPE_CHECKING:
    from vertex_ray_emulator.settings import Settings


def get_project(name: str, settings: Settings) -> Any:
    """Return the emulator's project.

    :param name: ``projects/<id or number>``.
    :raises ApiError: PERMISSION_DENIED for any other project, as for one without access.
    """
    if name not in (f"projects/{settings.project}", f"projects/{settings.project_number}"):
        raise ApiError("PERMISSION_DENIED", "The caller does not have permission")
    return Project(
        name=f"projects/{settings.project_number}",
        project_id=settings.project,
        display_name=settings.project,
        state=Project.State.Value("ACTIVE"),
    )
