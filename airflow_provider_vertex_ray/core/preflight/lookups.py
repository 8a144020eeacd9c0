"""Read-only look-ups in the services around Vertex AI: APIs, permissions, networks, machine types, keys and buckets.

Sources: https://cloud.google.com/service-usage/docs/reference/rest/v1/services/batchGet (which needs
``serviceusage.services.get``), https://cloud.google.com/resource-manager/reference/rest/v1/projects/testIamPermissions,
https://cloud.google.com/compute/docs/reference/rest/v1 and https://cloud.google.com/kms/docs/reference/rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlencode

from airflow_provider_vertex_ray.core.http.google_call import NoSuchResourceError, read_json
from airflow_provider_vertex_ray.core.http.paging import PageTokens
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight.answers import (
    AnyObject,
    KeyAnswer,
    NetworkAnswer,
    PermissionsAnswer,
    PolicyAnswer,
    ProjectAnswer,
    ServicesAnswer,
    ZonesPage,
)
from airflow_provider_vertex_ray.core.sharing.lease_objects import parse_lease_uri
from airflow_provider_vertex_ray.errors import InvalidArgumentError, ServiceError

T = TypeVar("T")

MOST_NAMES = 30
"""Maximum number of names in one request to Service Usage."""

SERVICE_NETWORKING = "servicenetworking-googleapis-com"
"""Name of the peering of private services access, which Service Networking itself creates
(https://cloud.google.com/vpc/docs/configure-private-services-access)."""

ENCRYPT = "ENCRYPT_DECRYPT"
"""Purpose of a key that can encrypt disks."""

ENABLED = "ENABLED"
"""State of an enabled API, and of a usable version of a key."""


class ServicesApi:
    """Client of Service Usage for the APIs of a project.

    :param transport: the connection
    :param project: id or number of the project
    """

    def __init__(self, transport: Transport, project: str) -> None:
        self._transport = transport
        self._project = project

    async def enabled(self, names: Sequence[str]) -> dict[str, bool]:
        """Return whether each of these APIs, such as ``compute.googleapis.com``, is enabled.

        :raises VertexRayError: the state of the APIs cannot be read
        """
        found: dict[str, bool] = {}
        parent = f"projects/{self._project}"
        for begin in range(0, len(names), MOST_NAMES):
            part = [f"{parent}/services/{name}" for name in names[begin : begin + MOST_NAMES]]
            query = urlencode([("names", name) for name in part])
            url = f"{self._transport.addresses.service_usage()}/v1/{parent}/services:batchGet?{query}"
            answer = await read_json(self._transport, ServicesAnswer, "GET", url)
            for service in answer.services or []:
                name = (service.config.name if service.config else None) or (service.name or "").rsplit("/", 1)[-1]
                found[name] = service.state == ENABLED
        return found


class PermissionsApi:
    """Client for the permissions of the transport's account.

    :param transport: the connection
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def on_project(self, project: str, permissions: Sequence[str]) -> set[str]:
        """Return those of the permissions that the account has on a project.

        :raises VertexRayError: the permissions cannot be read
        """
        url = f"{self._transport.addresses.resource_manager()}/v1/projects/{quote(project, safe=':')}"
        return await self._test(url, permissions)

    async def on_service_account(self, email: str, permissions: Sequence[str]) -> set[str]:
        """Return those of the permissions that the account has on a service account.

        :raises NoSuchResourceError: the service account does not exist
        :raises VertexRayError: the permissions cannot be read
        """
        # "-" stands for the service account's own project.
        url = f"{self._transport.addresses.iam()}/v1/projects/-/serviceAccounts/{quote(email, safe='@')}"
        return await self._test(url, permissions)

    async def agent_roles(self, project: str, member: str) -> set[str]:
        """Return the roles that the policy of a project grants a member directly.

        :param project: id or number of the project
        :param member: the member, such as ``serviceAccount:…``
        :raises VertexRayError: the policy cannot be read
        """
        url = f"{self._transport.addresses.resource_manager()}/v1/projects/{quote(project, safe=':')}:getIamPolicy"
        policy = await read_json(self._transport, PolicyAnswer, "POST", url, body={})
        return {binding.role for binding in policy.bindings or () if binding.role and member in (binding.members or ())}

    async def project_number(self, project: str) -> str:
        """Return the number of a project.

        :raises VertexRayError: the project cannot be read
        """
        if project.isdecimal():
            return project
        url = f"{self._transport.addresses.resource_manager()}/v1/projects/{quote(project, safe=':')}"
        found = await read_json(self._transport, ProjectAnswer, "GET", url)
        return "" if found.project_number is None else str(found.project_number)

    async def _test(self, url: str, permissions: Sequence[str]) -> set[str]:
        body = {"permissions": list(permissions)}
        found = await read_json(self._transport, PermissionsAnswer, "POST", f"{url}:testIamPermissions", body=body)
        return set(found.permissions or [])


class NetworksApi:
    """Client of Compute Engine for networks, by their full names.

    :param transport: the connection
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def network(self, name: str) -> NetworkAnswer:
        """Return the network ``projects/…/global/networks/…``.

        :raises NoSuchResourceError: the network does not exist
        :raises VertexRayError: the network cannot be read
        """
        return await self._get(name, NetworkAnswer)

    async def check_attachment(self, name: str) -> None:
        """Check that the network attachment ``projects/…/regions/…/networkAttachments/…`` exists.

        :raises NoSuchResourceError: the network attachment does not exist
        :raises VertexRayError: the network attachment cannot be read
        """
        await self._get(name, AnyObject)

    async def _get(self, name: str, kind: type[T]) -> T:
        return await read_json(self._transport, kind, "GET", f"{self._transport.addresses.compute()}/compute/v1/{name}")


def peering_state(network: NetworkAnswer) -> str | None:
    """Return the state of a network's peering with Google's services, such as ``ACTIVE``; None if there is none."""
    states = [str(each.state) for each in network.peerings or [] if each.name == SERVICE_NETWORKING]
    return states[0] if states else None


class MachineTypesApi:
    """Client of Compute Engine for the machine types and accelerators that a project can use in a region.

    :param transport: the connection
    :param project: id or number of the project
    :param location: the region
    """

    def __init__(self, transport: Transport, project: str, location: str) -> None:
        self._transport = transport
        self._project = project
        self._location = location

    async def zones_with_machine(self, machine_type: str) -> set[str]:
        """Return the zones of the region that offer a machine type.

        :raises VertexRayError: the machine types cannot be read
        """
        return await self._zones("machineTypes", machine_type)

    async def zones_with_accelerator(self, accelerator: str) -> set[str]:
        """Return the zones of the region that offer an accelerator, such as ``NVIDIA_TESLA_T4``.

        :raises VertexRayError: the accelerators cannot be read
        """
        return await self._zones("acceleratorTypes", compute_name(accelerator))

    async def _zones(self, kind: str, name: str) -> set[str]:
        url = f"{self._transport.addresses.compute()}/compute/v1/projects/{self._project}/aggregated/{kind}"
        params = {"filter": f"name={name}", "maxResults": "500"}
        found: set[str] = set()
        tokens = PageTokens()
        token = ""
        while True:
            page = await read_json(
                self._transport, ZonesPage, "GET", url, params={**params, **({"pageToken": token} if token else {})}
            )
            for place, part in (page.items or {}).items():
                zone = place.removeprefix("zones/")
                # Zones without any are part of the answer as well, with a warning.
                if (part.machine_types or part.accelerator_types) and zone.rpartition("-")[0] == self._location:
                    found.add(zone)
            if not (token := tokens.follow(page.next_page_token)):
                return found


def compute_name(accelerator: str) -> str:
    """Return Compute Engine's name of an accelerator of Vertex AI, such as ``nvidia-tesla-t4``."""
    return accelerator.lower().replace("_", "-")


@dataclass(frozen=True)
class EncryptionKey:
    """A key of Cloud KMS.

    :param purpose: purpose of the key, such as ``ENCRYPT_DECRYPT``
    :param primary_state: state of its primary version, such as ``ENABLED``; None if it has none
    """

    purpose: str
    primary_state: str | None


async def encryption_key(transport: Transport, name: str) -> EncryptionKey:
    """Return the key ``projects/…/locations/…/keyRings/…/cryptoKeys/…``.

    :raises NoSuchResourceError: the key does not exist
    :raises VertexRayError: the key cannot be read
    """
    found = await read_json(transport, KeyAnswer, "GET", f"{transport.addresses.kms()}/v1/{name}")
    return EncryptionKey(found.purpose or "", found.primary.state if found.primary else None)


async def permissions_in(transport: Transport, bucket: str, permissions: Sequence[str]) -> set[str] | None:
    """Return those of the permissions that the transport's account has on a bucket.

    :param transport: the connection
    :param bucket: name of the bucket
    :param permissions: the permissions
    :return: None if the bucket exists but the server does not support permissions, like an emulator of Cloud Storage
    :raises NoSuchResourceError: the bucket does not exist
    :raises VertexRayError: the permissions cannot be read
    """
    url = f"{transport.addresses.storage()}/storage/v1/b/{bucket}"
    query = urlencode([("permissions", permission) for permission in permissions])
    try:
        found = await read_json(transport, PermissionsAnswer, "GET", f"{url}/iam/testPermissions?{query}")
    except NoSuchResourceError:
        raise
    except ServiceError as error:
        # The answer of a server that does not have this method, and not Cloud Storage's own answer.
        if error.details.get("http_status") != 404:
            raise
        await read_json(transport, AnyObject, "GET", url)
        return None
    return set(found.permissions or [])


def bucket_uri(bucket: str) -> str:
    """Return the ``gs://`` URI of a bucket, from its name or from a URI.

    :raises InvalidArgumentError: it is neither
    """
    uri = bucket if isinstance(bucket, str) and "://" in bucket else f"gs://{bucket}"
    try:
        parse_lease_uri(uri)
    except InvalidArgumentError as error:
        raise InvalidArgumentError("bucket", bucket, "Use the name of a bucket, or gs://BUCKET/FOLDER.") from error
    return uri
