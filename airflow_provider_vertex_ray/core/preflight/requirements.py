"""The request of a preflight, the cluster's requirements of its project, and the commands that fulfil them. Pure.

Sources: https://cloud.google.com/vertex-ai/docs/open-source/ray-on-vertex-ai/set-up,
https://cloud.google.com/vertex-ai/docs/general/vpc-peering, https://cloud.google.com/vertex-ai/docs/general/iam-permissions.
Roles are the smallest predefined roles with a permission: https://cloud.google.com/iam/docs/roles-permissions.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.pools import parse_official_image
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.preflight.report import Finding, Status
from airflow_provider_vertex_ray.errors import (
    NotAuthorisedError,
    RateLimitedError,
    ServiceDisabledError,
    ServiceUnavailableError,
    UnreadableAnswerError,
    VertexRayError,
)

CONSOLE = "https://console.cloud.google.com"

VERTEX_AI = "aiplatform.googleapis.com"

REQUIRED_PERMISSIONS: tuple[str, ...] = tuple(
    f"aiplatform.persistentResources.{verb}" for verb in ("create", "get", "list", "delete")
)
RESIZE_PERMISSION = "aiplatform.persistentResources.update"
USER_PERMISSION = "aiplatform.customJobs.create"
"""A permission of roles/aiplatform.user that smaller roles lack.

The dashboard asks for at least that role (documented); which of its permissions counts is not known."""
ACT_AS = "iam.serviceAccounts.actAs"
BUCKET_PERMISSIONS = (
    "storage.objects.get",
    "storage.objects.create",
    "storage.objects.delete",
    "storage.objects.list",
)
"""Permissions on a bucket; to overwrite an object, Cloud Storage requires the permission to delete it."""
LEASE_PERMISSIONS = BUCKET_PERMISSIONS
"""Permissions on the bucket of leases."""

ROLES: dict[str, str] = {
    **dict.fromkeys(
        [f"aiplatform.persistentResources.{verb}" for verb in ("create", "update", "delete")], "roles/aiplatform.admin"
    ),
    **dict.fromkeys([f"aiplatform.persistentResources.{verb}" for verb in ("get", "list")], "roles/aiplatform.user"),
    USER_PERMISSION: "roles/aiplatform.user",
    "resourcemanager.projects.getIamPolicy": "roles/iam.securityReviewer",
    "serviceusage.services.get": "roles/serviceusage.serviceUsageViewer",
    "serviceusage.quotas.get": "roles/serviceusage.serviceUsageViewer",
    "monitoring.timeSeries.list": "roles/monitoring.viewer",
    "compute.networks.get": "roles/compute.networkViewer",
    "compute.networkAttachments.get": "roles/compute.networkViewer",
    "compute.machineTypes.list": "roles/compute.viewer",
    "compute.acceleratorTypes.list": "roles/compute.viewer",
    "cloudkms.cryptoKeys.get": "roles/cloudkms.viewer",
}
"""Roles by permission."""

AGAIN = "Run the preflight again in a few minutes."
"""Remedy for a service that could not be reached."""


@dataclass(frozen=True)
class PreflightRequest:
    """The request of a preflight.

    :param project: id or number of the project
    :param location: the region
    :param spec: spec of the planned cluster
    :param bucket: ``gs://`` URI of a bucket that jobs use; None for none
    :param lease_uri: URI of the folder with the leases; None for none
    :param member: the caller, as in a policy, such as ``serviceAccount:…``
    """

    project: str
    location: str
    spec: ClusterSpec
    bucket: str | None = None
    lease_uri: str | None = None
    member: str = "PRINCIPAL"

    @property
    def own_images(self) -> list[str]:
        """Return the custom images of the cluster."""
        images = [pool.custom_image for pool in self.spec.pools()]
        return list(dict.fromkeys(image for image in images if image and parse_official_image(image) is None))

    @property
    def pairs(self) -> list[tuple[str, str | None]]:
        """Return the Ray and Python versions of the service's images that the nodes run, starting with the head."""
        found = [self._pair(pool.custom_image) for pool in self.spec.pools()]
        return list(dict.fromkeys(pair for pair in found if pair is not None))

    @property
    def head_pair(self) -> tuple[str, str | None] | None:
        """Return the versions on the head, which the Ray Client must match; None if they are unknown."""
        return self._pair(self.spec.pools()[0].custom_image)

    def _pair(self, image: str | None) -> tuple[str, str | None] | None:
        if image is None:
            return self.spec.ray_version, self.spec.python_version
        official = parse_official_image(image)
        return None if official is None else (official.ray_version, official.python_version)


def required_services(asked: PreflightRequest) -> dict[str, str]:
    """Return the APIs that creating the cluster requires, and the purpose of each."""
    spec = asked.spec
    found = {VERTEX_AI: "clusters"}
    if spec.network or spec.psc_interface_config:
        found["compute.googleapis.com"] = "the network"
    if spec.network:
        found["servicenetworking.googleapis.com"] = "the network's peering"
    if asked.own_images:
        found["artifactregistry.googleapis.com"] = "custom images"
    if spec.encryption_spec_key_name:
        found["cloudkms.googleapis.com"] = "the encryption key"
    if asked.bucket or asked.lease_uri:
        found["storage.googleapis.com"] = "the bucket"
    return found


def advised_services(asked: PreflightRequest) -> dict[str, str]:
    """Return the APIs that monitoring the cluster requires, and the purpose of each."""
    found = {}
    if asked.spec.enable_logging:
        found["logging.googleapis.com"] = "the cluster's logs"
    if asked.spec.enable_metrics_collection:
        found["monitoring.googleapis.com"] = "the cluster's metrics"
    return found


def enable(service: str, project: str) -> str:
    """Return the command that enables an API."""
    return f"gcloud services enable {service} --project={project}"


def grant(project: str, role: str, member: str) -> str:
    """Return the command that grants a role on a project."""
    return f"gcloud projects add-iam-policy-binding {project} --member={member} --role={role}"


def roles_for(permissions: list[str]) -> list[str]:
    """Return the known roles with these permissions, without a role that another one includes."""
    roles = list(dict.fromkeys(ROLES[permission] for permission in permissions if permission in ROLES))
    if "roles/aiplatform.admin" in roles:
        roles = [role for role in roles if role != "roles/aiplatform.user"]
    return roles


def quota_page(project: str) -> str:
    """Return the address of Vertex AI's quotas in the console, where an increase can be requested."""
    return f"{CONSOLE}/apis/api/{VERTEX_AI}/quotas?project={project}"


def member_of(account: str | None) -> str:
    """Return an account as a policy names it; a placeholder if the account is unknown."""
    if not account or "@" not in account:
        return "PRINCIPAL"
    return f"{'serviceAccount' if account.endswith('.gserviceaccount.com') else 'user'}:{account}"


def unchecked(
    asked: PreflightRequest,
    check: str,
    subject: str,
    error: VertexRayError,
    permission: str | None = None,
    *,
    project: str | None = None,
) -> Finding:
    """Return the finding of a check that failed with an error.

    :param asked: the request
    :param check: name of the check
    :param subject: what was checked
    :param error: the error
    :param permission: permission that the check needs; None for none
    :param project: project in which the permission is needed, if it is not that of the request
    """
    where = project or asked.project
    if isinstance(error, ServiceDisabledError):
        service = str(error.details.get("service") or "the API")
        found = f"{service} is disabled in the queried project"
        remedy = enable(service, where) if "service" in error.details else error.message
    elif isinstance(error, NotAuthorisedError):
        reported = error.details.get("permission")
        needed = str(reported or permission or "")
        found = f"the caller lacks {needed}, which this check needs" if reported else f"access denied: {error.message}"
        remedy = (
            grant(where, ROLES[needed], asked.member)
            if needed in ROLES
            else f"Check that project {where} exists and that the connection's account has access to it."
        )
    elif isinstance(error, (ServiceUnavailableError, RateLimitedError)) and not isinstance(
        error, UnreadableAnswerError
    ):
        found, remedy = f"no answer: {error.message}", AGAIN
    else:
        found, remedy = f"unexpected answer: {error.message}", AGAIN
    return Finding(check, Status.COULD_NOT_CHECK, subject, found, remedy)
