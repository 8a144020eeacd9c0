"""Names of clusters: from an id, or a full resource name, to project, location and id."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.checks import MISSING_RULE
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = [
    "ClusterName",
    "dashboard_host",
    "is_dashboard_address",
    "parse_cluster_name",
    "region_of_dashboard",
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
    """The full name of a cluster, by its parts.

    :param project: id or number of the Google Cloud project, as the user gave it
    :param location: region, e.g. ``us-central1``
    :param cluster_id: id within the project and region
    """

    project: str
    location: str
    cluster_id: str

    @property
    def parent(self) -> str:
        """Return ``projects/…/locations/…``, where the cluster is created and listed."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def full(self) -> str:
        """Return the resource name, ``projects/…/locations/…/persistentResources/…``."""
        return f"{self.parent}/persistentResources/{self.cluster_id}"

    def __str__(self) -> str:
        return self.full


def validate_cluster_id(cluster_id: str, field: str = "cluster_id") -> str:
    """Return ``cluster_id`` if it is a valid id of a cluster.

    The pattern is the service's: ``[a-z]([a-z0-9-]{0,61}[a-z0-9])?`` (API reference of
    persistentResources.create; the SDK's own docstring also allows underscores, which the service rejects).

    :param cluster_id: the id
    :param field: name of the argument, for the error
    :raises InvalidArgumentError: the service would reject the id
    """
    if cluster_id is None or cluster_id == "None":
        raise InvalidArgumentError(field, cluster_id, MISSING_RULE)
    if not isinstance(cluster_id, str) or not _CLUSTER_ID.fullmatch(cluster_id):
        raise InvalidArgumentError(
            field,
            cluster_id,
            "Use 1 to 63 lower-case letters, digits and hyphens; begin with a letter and do not end with a hyphen.",
        )
    return cluster_id


def validate_location(location: str | None, field: str = "location") -> str:
    """Return ``location`` if it is the name of a region.

    The location becomes part of the host that a token is sent to, so only names of regions pass.

    :param location: the region
    :param field: name of the argument, for the error
    :raises InvalidArgumentError: it is missing, or not the name of a region
    """
    if not location:
        raise InvalidArgumentError(
            field,
            location,
            "Use a region such as 'us-central1', or a full cluster name.",
        )
    if not isinstance(location, str) or not _LOCATION.fullmatch(location):
        raise InvalidArgumentError(field, location, "Use a region such as 'us-central1', not a zone or a multi-region.")
    return location


def validate_project(project_id: str | None, field: str = "project_id") -> str:
    """Return ``project_id`` if it is the id or the number of a project.

    :param project_id: the project
    :param field: name of the argument, for the error
    :raises InvalidArgumentError: it is missing, or has the wrong format
    """
    if not project_id:
        raise InvalidArgumentError(
            field,
            project_id,
            "Use the id of a project, set one in the Google Cloud connection, or use a full cluster name.",
        )
    if not isinstance(project_id, str) or not _PROJECT.fullmatch(project_id):
        raise InvalidArgumentError(field, project_id, "Use the id or the number of a Google Cloud project.")
    return project_id


def parse_cluster_name(
    value: str | ClusterName, project_id: str | None = None, location: str | None = None, *, field: str = "cluster_id"
) -> ClusterName:
    """Return the full name of a cluster from an id or a full name.

    :param value: an id, a full ``projects/…/locations/…/persistentResources/…`` name, or a parsed name, which is
        returned as it is
    :param project_id: project of a bare id; a full name takes precedence
    :param location: location of a bare id; a full name takes precedence
    :param field: name of the argument, for the error
    :raises InvalidArgumentError: ``value`` is neither an id nor a full name, or it is an id and the project or the
        location is missing
    """
    if isinstance(value, ClusterName):
        return value
    if isinstance(value, str) and "/" in value:
        parts = value.split("/")
        if len(parts) != 6 or parts[0::2] != ["projects", "locations", "persistentResources"]:
            raise InvalidArgumentError(
                field, value, "Use an id, or projects/PROJECT/locations/LOCATION/persistentResources/ID."
            )
        project_id, location, value = parts[1], parts[3], parts[5]
        return ClusterName(
            validate_project(project_id, field),
            validate_location(location, field),
            validate_cluster_id(value, field),
        )
    cluster_id = validate_cluster_id(value, field)
    return ClusterName(validate_project(project_id), validate_location(location), cluster_id)


# The emulator's addresses begin with its own, because the host of a dashboard leads nowhere there.
_DASHBOARD = re.compile(
    r"(?:https?://)?(?:[a-z0-9.-]+:[0-9]+/)?(?P<host>[a-z0-9-]+-dot-(?P<region>[a-z]+-[a-z]+[0-9]+)\.[a-z0-9.-]+)(?:/.*)?"
)


def is_dashboard_address(address: str) -> bool:
    """Tell whether a string is the address of a dashboard, such as ``<hash>-dot-us-central1.aiplatform-training.…``."""
    return _DASHBOARD.fullmatch(address) is not None


def dashboard_host(address: str) -> str:
    """Return the host name in the address of a dashboard; any other address is returned as it is."""
    match = _DASHBOARD.fullmatch(address)
    return match["host"] if match else address


def region_of_dashboard(address: str) -> str | None:
    """Return the region in the host name of a dashboard; None if there is none."""
    match = _DASHBOARD.fullmatch(address)
    return match["region"] if match else None
