"""The name of a cluster: its id, or the full resource name, and what completes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = [
    "ClusterName",
    "parse_cluster_name",
    "validate_cluster_id",
    "validate_location",
    "validate_project",
]

_CLUSTER_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_LOCATION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
# Ids, numbers, and the older "example.com:project" form.
_PROJECT = re.compile(r"[a-z0-9]([a-z0-9.:-]*[a-z0-9])?")


@dataclass(frozen=True)
class ClusterName:
    """Where a cluster is.

    :param project: id or number of the Google Cloud project, as the user gave it.
    :param location: region, e.g. ``us-central1``.
    :param cluster_id: id within project and region.
    """

    project: str
    location: str
    cluster_id: str

    @property
    def parent(self) -> str:
        """``projects/…/locations/…``: where it is created and listed."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def full(self) -> str:
        """The resource name: ``projects/…/locations/…/persistentResources/…``."""
        return f"{self.parent}/persistentResources/{self.cluster_id}"

    def __str__(self) -> str:
        return self.full


def validate_cluster_id(cluster_id: str, field: str = "cluster_id") -> str:
    """Return ``cluster_id`` if the service takes it for a name, else raise InvalidArgumentError.

    The pattern is the service's: ``[a-z]([a-z0-9-]{0,61}[a-z0-9])?`` (API reference of
    persistentResources.create; the SDK's own docstring also promises underscores, which are refused).
    """
    if not isinstance(cluster_id, str) or not _CLUSTER_ID.fullmatch(cluster_id):
        raise InvalidArgumentError(
            field,
            cluster_id,
            "use 1 to 63 lower-case letters, digits and hyphens, begin with a letter and do not end with a hyphen",
        )
    return cluster_id


def validate_location(location: str | None, field: str = "location") -> str:
    """Return ``location`` if it is the name of a region, else raise InvalidArgumentError.

    The location becomes part of the host that a token is sent to, so nothing but a region's name may pass.
    """
    if not location:
        raise InvalidArgumentError(
            field,
            location,
            "no location is known: give a region such as 'us-central1', or a full cluster name",
        )
    if not isinstance(location, str) or not _LOCATION.fullmatch(location):
        raise InvalidArgumentError(field, location, "give a region such as 'us-central1' (no zone, no multi-region)")
    return location


def validate_project(project_id: str | None, field: str = "project_id") -> str:
    """Return ``project_id`` if it can be the id or number of a project, else raise InvalidArgumentError."""
    if not project_id:
        raise InvalidArgumentError(
            field,
            project_id,
            "no project is known: give its id, set one in the Google connection, or give a full cluster name",
        )
    if not isinstance(project_id, str) or not _PROJECT.fullmatch(project_id):
        raise InvalidArgumentError(field, project_id, "give the id or the number of a Google Cloud project")
    return project_id


def parse_cluster_name(
    value: str, project_id: str | None = None, location: str | None = None, *, field: str = "cluster_id"
) -> ClusterName:
    """Complete what the user calls a cluster to a full name.

    :param value: an id, or a full ``projects/…/locations/…/persistentResources/…`` name.
    :param project_id: used for a bare id only: a full name says better where the cluster is.
    :param location: the same.
    :param field: what an error calls ``value``.
    :raises InvalidArgumentError: ``value`` is neither, or it is an id and the project or the location is missing.
    """
    if isinstance(value, str) and "/" in value:
        parts = value.split("/")
        if len(parts) != 6 or parts[0::2] != ["projects", "locations", "persistentResources"]:
            raise InvalidArgumentError(
                field, value, "give an id, or projects/PROJECT/locations/LOCATION/persistentResources/ID"
            )
        project_id, location, value = parts[1], parts[3], parts[5]
        return ClusterName(
            validate_project(project_id, field),
            validate_location(location, field),
            validate_cluster_id(value, field),
        )
    cluster_id = validate_cluster_id(value, field)
    return ClusterName(validate_project(project_id), validate_location(location), cluster_id)
