"""Service Usage: which APIs are enabled in a project.

Source: https://cloud.google.com/service-usage/docs/reference/rest/v1/services/batchGet, which needs
``serviceusage.services.get``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from airflow_provider_vertex_ray.core.http.google_call import NoSuchResourceError, read_json
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.sharing.lease_store import parse_lease_uri
from airflow_provider_vertex_ray.errors import InvalidArgumentError, ServiceError

MOST_NAMES = 30
"""Names in one request, at most."""


class ServicesApi:
    """The APIs of a project."""

    def __init__(self, transport: Transport, project: str) -> None:
        self._transport = transport
        self._project = project

    async def enabled(self, names: Sequence[str]) -> dict[str, bool]:
        """Whether each of these APIs, such as ``compute.googleapis.com``, is enabled.

        :raises VertexRayError: It can not be told.
        """
        found: dict[str, bool] = {}
        parent = f"projects/{self._project}"
        for begin in range(0, len(names), MOST_NAMES):
            part = [f"{parent}/services/{name}" for name in names[begin : begin + MOST_NAMES]]
            query = urlencode([("names", name) for name in part])
            url = f"{self._transport.addresses.service_usage()}/v1/{parent}/services:batchGet?{query}"
            for service in (await read_json(self._transport, "GET", url)).get("services") or []:
                name = str((service.get("config") or {}).get("name") or service.get("name", "").rsplit("/", 1)[-1])
                found[name] = service.get("state") == "ENABLED"
        return found


class PermissionsApi:
    """The permissions of the transport's account."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def on_project(self, project: str, permissions: Sequence[str]) -> set[str]:
        """Those of the permissions that it has on a project.

        :raises VertexRayError: It can not be told.
        """
        url = f"{self._transport.addresses.resource_manager()}/v1/projects/{quote(project, safe=':')}"
        return await self._test(url, permissions)

    async def on_service_account(self, email: str, permissions: Sequence[str]) -> set[str]:
        """Those of the permissions that it has on a service account.

        :raises NoSuchResourceError: There is no such account.
        :raises VertexRayError: It can not be told.
        """
        # "-": the account's own project, whichever that is.
        url = f"{self._transport.addresses.iam()}/v1/projects/-/serviceAccounts/{quote(email, safe='@')}"
        return await self._test(url, permissions)

    async def _test(self, url: str, permissions: Sequence[str]) -> set[str]:
        body = {"permissions": list(permissions)}
        found = await read_json(self._transport, "POST", f"{url}:testIamPermissions", body=body)
        return set(found.get("permissions") or [])


SERVICE_NETWORKING = "servicenetworking-googleapis-com"
"""Name of the peering of private services access, which Service Networking itself makes
(https://cloud.google.com/vpc/docs/configure-private-services-access).
"""


class NetworksApi:
    """Networks, by their full names without the API's address."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def network(self, name: str) -> dict[str, Any]:
        """``projects/…/global/networks/…``, as Compute Engine has it.

        :raises NoSuchResourceError: There is none.
        :raises VertexRayError: It can not be read.
        """
        return await self._get(name)

    async def attachment(self, name: str) -> dict[str, Any]:
        """``projects/…/regions/…/networkAttachments/…``, as Compute Engine has it.

        :raises NoSuchResourceError: There is none.
        :raises VertexRayError: It can not be read.
        """
        return await self._get(name)

    async def _get(self, name: str) -> dict[str, Any]:
        return await read_json(self._transport, "GET", f"{self._transport.addresses.compute()}/compute/v1/{name}")


def peering_state(network: dict[str, Any]) -> str | None:
    """The state of a network's peering with Google's services, such as ``ACTIVE``; None without one."""
    states = [
        str(each.get("state")) for each in network.get("peerings") or [] if each.get("name") == SERVICE_NETWORKING
    ]
    return states[0] if states else None


class MachineTypesApi:
    """Machine types and accelerators of one region, as seen from a project."""

    def __init__(self, transport: Transport, project: str, location: str) -> None:
        self._transport = transport
        self._project = project
        self._location = location

    async def zones_with_machine(self, machine_type: str) -> set[str]:
        """The region's zones that have a machine type; empty for none.

        :raises VertexRayError: It can not be told.
        """
        return await self._zones("machineTypes", machine_type)

    async def zones_with_accelerator(self, accelerator: str) -> set[str]:
        """The region's zones that have an accelerator of the Vertex AI API, such as ``NVIDIA_TESLA_T4``.

        :raises VertexRayError: It can not be told.
        """
        return await self._zones("acceleratorTypes", compute_name(accelerator))

    async def _zones(self, kind: str, name: str) -> set[str]:
        url = f"{self._transport.addresses.compute()}/compute/v1/projects/{self._project}/aggregated/{kind}"
        params = {"filter": f"name={name}", "maxResults": "500"}
        found: set[str] = set()
        token = ""
        while True:
            answer = await read_json(
                self._transport, "GET", url, params={**params, **({"pageToken": token} if token else {})}
            )
            for place, part in (answer.get("items") or {}).items():
                zone = place.removeprefix("zones/")
                # A zone without any is in the answer as well, with a warning.
                if part.get(kind) and zone.rpartition("-")[0] == self._location:
                    found.add(zone)
            token = answer.get("nextPageToken") or ""
            if not token:
                return found


def compute_name(accelerator: str) -> str:
    """What Compute Engine calls an accelerator of Vertex AI: ``nvidia-tesla-t4``."""
    return accelerator.lower().replace("_", "-")


ENCRYPT = "ENCRYPT_DECRYPT"
ENABLED = "ENABLED"


@dataclass(frozen=True)
class EncryptionKey:
    """A key.

    :param purpose: ``ENCRYPT_DECRYPT`` for one that can encrypt disks.
    :param primary_state: State of its primary version, such as ``ENABLED``; None without one.
    """

    purpose: str
    primary_state: str | None


async def encryption_key(transport: Transport, name: str) -> EncryptionKey:
    """Read ``projects/…/locations/…/keyRings/…/cryptoKeys/…``.

    :raises NoSuchResourceError: There is none.
    :raises VertexRayError: It can not be read.
    """
    found = await read_json(transport, "GET", f"{transport.addresses.kms()}/v1/{name}")
    primary = found.get("primary") or {}
    return EncryptionKey(str(found.get("purpose", "")), primary.get("state"))


async def permissions_in(transport: Transport, bucket: str, permissions: Sequence[str]) -> set[str] | None:
    """Those of the permissions that the transport's account has in a bucket.

    None where the server knows no permissions, as an emulator of Cloud Storage does not: then the bucket is there.

    :raises NoSuchResourceError: There is no such bucket.
    :raises VertexRayError: It can not be told.
    """
    url = f"{transport.addresses.storage()}/storage/v1/b/{bucket}"
    query = urlencode([("permissions", permission) for permission in permissions])
    try:
        found = await read_json(transport, "GET", f"{url}/iam/testPermissions?{query}")
    except NoSuchResourceError:
        raise
    except ServiceError as error:
        # The page of a server that has no such method, and not Cloud Storage's own answer.
        if error.details.get("http_status") != 404:
            raise
        await read_json(transport, "GET", url)
        return None
    return set(found.get("permissions") or [])


def bucket_uri(bucket: str) -> str:
    """A bucket's name, or a URI in it, as a ``gs://`` URI.

    :raises InvalidArgumentError: It is none.
    """
    uri = bucket if isinstance(bucket, str) and "://" in bucket else f"gs://{bucket}"
    try:
        parse_lease_uri(uri)
    except InvalidArgumentError as error:
        raise InvalidArgumentError("bucket", bucket, "give a bucket's name, or gs://BUCKET/FOLDER") from error
    return uri
