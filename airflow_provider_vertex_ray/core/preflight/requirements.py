"""What a cluster needs of its project, and the commands that give it. Pure.

Sources: https://cloud.google.com/vertex-ai/docs/open-source/ray-on-vertex-ai/set-up,
https://cloud.google.com/vertex-ai/docs/general/vpc-peering, https://cloud.google.com/vertex-ai/docs/general/iam-permissions.
Roles are the smallest predefined ones with the permission: https://cloud.google.com/iam/docs/roles-permissions.
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
    VertexRayError,
)

CONSOLE = "https://console.cloud.google.com"

VERTEX_AI = "aiplatform.googleapis.com"

REQUIRED_PERMISSIONS: tuple[str, ...] = tuple(
    f"aiplatform.persistentResources.{verb}" for verb in ("create", "get", "list", "delete")
)
RESIZE_PERMISSION = "aiplatform.persistentResources.update"
ACT_AS = "iam.serviceAccounts.actAs"
LEASE_PERMISSIONS = ("storage.objects.get", "storage.objects.create", "storage.objects.delete")
"""Cloud Storage counts writing over an object as deleting it."""
BUCKET_PERMISSIONS = (*LEASE_PERMISSIONS, "storage.objects.list")

ROLES: dict[str, str] = {
    **dict.fromkeys(
        [f"aiplatform.persistentResources.{verb}" for verb in ("create", "update", "delete")], "roles/aiplatform.admin"
    ),
    **dict.fromkeys([f"aiplatform.persistentResources.{verb}" for verb in ("get", "list")], "roles/aiplatform.user"),
    "serviceusage.services.get": "roles/serviceusage.serviceUsageViewer",
    "serviceusage.quotas.get": "roles/serviceusage.serviceUsageViewer",
    "monitoring.timeSeries.list": "roles/monitoring.viewer",
    "compute.networks.get": "roles/compute.networkViewer",
    "compute.networkAttachments.get": "roles/compute.networkViewer",
    "compute.machineTypes.list": "roles/compute.viewer",
    "compute.acceleratorTypes.list": "roles/compute.viewer",
    "cloudkms.cryptoKeys.get": "roles/cloudkms.viewer",
}


@dataclass(frozen=True)
class PreflightRequest:
    """What a preflight is about.

    :param project: Id or number.
    :param location: The region.
    :param spec: The cluster that is to be.
    :param bucket: A bucket that jobs use, with or without ``gs://`` and a folder; None for none.
    :param lease_uri: Folder with leases; None for none.
    :param member: The caller, as in a policy: ``serviceAccount:…``.
    """

    project: str
    location: str
    spec: ClusterSpec
    bucket: str | None = None
    lease_uri: str | None = None
    member: str = "PRINCIPAL"

    @property
    def own_images(self) -> list[str]:
        """The images that are not the service's."""
        images = [pool.custom_image for pool in self.spec.pools()]
        return list(dict.fromkeys(image for image in images if image and parse_official_image(image) is None))

    @property
    def pairs(self) -> list[tuple[str, str | None]]:
        """The versions of Ray and Python of the service's images that nodes run, the head's first."""
        found = [self._pair(pool.custom_image) for pool in self.spec.pools()]
        return list(dict.fromkeys(pair for pair in found if pair is not None))

    @property
    def head_pair(self) -> tuple[str, str | None] | None:
        """The head's versions, with which the Ray Client has to agree; None for an image that does not tell."""
        return self._pair(self.spec.pools()[0].custom_image)

    def _pair(self, image: str | None) -> tuple[str, str | None] | None:
        if image is None:
            return self.spec.ray_version, self.spec.python_version
        official = parse_official_image(image)
        return None if official is None else (official.ray_version, official.python_version)


def required_services(asked: PreflightRequest) -> dict[str, str]:
    """The APIs without which the cluster can not be made, and what each is for."""
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
    """The APIs without which the cluster runs, but cannot be watched."""
    found = {}
    if asked.spec.enable_logging:
        found["logging.googleapis.com"] = "the cluster's logs"
    if asked.spec.enable_metrics_collection:
        found["monitoring.googleapis.com"] = "the cluster's metrics"
    return found


def enable(service: str, project: str) -> str:
    """The command that enables an API."""
    return f"gcloud services enable {service} --project={project}"


def grant(project: str, role: str, member: str) -> str:
    """The command that gives a role on a project."""
    return f"gcloud projects add-iam-policy-binding {project} --member={member} --role={role}"


def roles_for(permissions: list[str]) -> list[str]:
    """The roles that have permissions, where they are known; the wide one has the narrow one's."""
    roles = list(dict.fromkeys(ROLES[permission] for permission in permissions if permission in ROLES))
    if "roles/aiplatform.admin" in roles:
        roles = [role for role in roles if role != "roles/aiplatform.user"]
    return roles


def quota_page(project: str) -> str:
    """The console's address of the quotas of Vertex AI, where more is asked for."""
    return f"{CONSOLE}/apis/api/{VERTEX_AI}/quotas?project={project}"


def member_of(account: str | None) -> str:
    """An account as a policy names it; a word to replace where the account is not known."""
    if not account or "@" not in account:
        return "PRINCIPAL"
    return f"{'serviceAccount' if account.endswith('.gserviceaccount.com') else 'user'}:{account}"


AGAIN = "Run the preflight again in some minutes."


def unchecked(
    asked: PreflightRequest,
    check: str,
    subject: str,
    error: VertexRayError,
    permission: str | None = None,
    *,
    project: str | None = None,
) -> Finding:
    """The finding for a check that could not be made.

    :param permission: What the call needs; None for nothing.
    :param project: Where the permission is needed, if not in the project that is looked at.
    """
    where = project or asked.project
    if isinstance(error, ServiceDisabledError):
        service = str(error.details.get("service") or "the API that tells")
        found = f"{service} is disabled in the project that is asked, so it does not answer"
        remedy = enable(service, where) if "service" in error.details else error.message
    elif isinstance(error, NotAuthorisedError):
        said = error.details.get("permission")
        needed = str(said or permission or "")
        found = f"the caller lacks {needed}, with which to look" if said else f"refused: {error.message}"
        remedy = (
            grant(where, ROLES[needed], asked.member)
            if needed in ROLES
            else f"Check that project {where} exists and that the connection's account may see it."
        )
    elif isinstance(error, (ServiceUnavailableError, RateLimitedError)):
        found, remedy = f"no answer: {error.message}", AGAIN
    else:
        found, remedy = f"an answer that says nothing: {error.message}", AGAIN
    return Finding(check, Status.COULD_NOT_CHECK, subject, found, remedy)
