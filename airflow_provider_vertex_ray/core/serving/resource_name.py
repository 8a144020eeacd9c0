"""Names of models and endpoints: ids and full resource names."""

from __future__ import annotations

import re

from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["check_resource", "location_of", "resource_name"]

_ID = re.compile(r"[a-z0-9_]([a-zA-Z0-9_-]{0,126}[a-zA-Z0-9_])?")
_VERSION = re.compile(r"[a-zA-Z0-9-]+")


def check_resource(kind: str, value: object, field: str) -> None:
    """Validate that ``value`` is an id or a full resource name.

    :param kind: ``models`` or ``endpoints``
    :param value: the name
    :param field: name of the argument, for the error
    :raises InvalidArgumentError: it is neither
    """
    rule = f"Use an id, or projects/…/locations/…/{kind}/ID."
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(field, value, rule)
    name, _, version = value.partition("@")
    parts = name.split("/")
    full = len(parts) == 6 and parts[0::2] == ["projects", "locations", kind] and all(parts)
    versioned = kind == "models" and "@" in value
    wrong_version = "@" in value and not (versioned and _VERSION.fullmatch(version))
    if not (full or len(parts) == 1) or not _ID.fullmatch(parts[-1]) or wrong_version:
        raise InvalidArgumentError(field, value, rule)


def resource_name(kind: str, value: str, field: str, project: str | None, location: str | None) -> str:
    """Return the full resource name of a model or an endpoint.

    :param kind: ``models`` or ``endpoints``
    :param value: an id, or a full resource name
    :param field: name of the argument, for the error
    :param project: project of an id
    :param location: location of an id
    :raises InvalidArgumentError: ``value`` is malformed, or it is an id and the project or the location is missing
    """
    check_resource(kind, value, field)
    if "/" in value:
        return value
    return f"projects/{validate_project(project)}/locations/{validate_location(location)}/{kind}/{value}"


def location_of(name: str) -> str:
    """Return the region in a full resource name."""
    return name.split("/locations/", 1)[1].split("/", 1)[0]
