"""The resources that a cluster spec refers to: networks, attachments, machine types (Compute v1), keys (KMS v1)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.google.cloud_api import PROJECT, CloudRequest, CloudRpc, offset_page
from vertex_ray_emulator.project.catalog import ACCELERATORS, MACHINES
from vertex_ray_emulator.project.project_script import zones
from vertex_ray_emulator.wire.errors import ApiError, invalid
from vertex_ray_emulator.wire.protos import supported_regions

if TYPE_CHECKING:
    from vertex_ray_emulator.project.project_script import Project

_BASE = rf"compute/v1/{PROJECT}"
_URL = "https://www.googleapis.com/compute/v1"
_KEY = rf"v1/{PROJECT}/locations/(?P<location>[^/:]+)/keyRings/(?P<ring>[^/:]+)/cryptoKeys/(?P<key>[^/:]+)"
_NAME_FILTER = re.compile(r"""\(?\s*name\s*(?:=|eq|:)\s*(?:"([^"]*)"|'([^']*)'|([\w-]+))\s*\)?""")
PAGE = 500
DEFAULT_NETWORK = "default"


class ComputeApi:
    """Networks, network attachments, KMS keys, and the machine types of each zone.

    :param project: the project with what tests have scripted.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def rpcs(self) -> list[CloudRpc]:
        """Return the methods that this API serves."""
        attachment = rf"{_BASE}/regions/(?P<region>[^/]+)/networkAttachments/(?P<name>[^/]+)"
        return [
            CloudRpc("GetNetwork", "GET", rf"{_BASE}/global/networks/(?P<name>[^/]+)", self._network),
            CloudRpc("GetNetworkAttachment", "GET", attachment, self._attachment),
            CloudRpc(
                "AggregatedListMachineTypes",
                "GET",
                rf"{_BASE}/aggregated/machineTypes",
                self._aggregated("machineTypes", self._machine_types),
            ),
            CloudRpc(
                "AggregatedListAcceleratorTypes",
                "GET",
                rf"{_BASE}/aggregated/acceleratorTypes",
                self._aggregated("acceleratorTypes", self._accelerator_types),
            ),
            CloudRpc("GetCryptoKey", "GET", _KEY, self._key),
        ]

    async def _network(self, request: CloudRequest) -> dict[str, Any]:
        name = request.path["name"]
        path = f"projects/{self._project.id}/global/networks/{name}"
        scripted = self._project.script.networks
        fields = scripted.get(name, {} if name == DEFAULT_NETWORK else None)
        if fields is None:
            raise ApiError("NOT_FOUND", f"The resource '{path}' was not found")
        peering = {
            "name": "servicenetworking-googleapis-com",
            "network": f"{_URL}/projects/1234567890-tp/global/networks/servicenetworking",
            "state": "ACTIVE",
            "stateDetails": "Connected.",
        }
        return {
            "kind": "compute#network",
            "name": name,
            "selfLink": f"{_URL}/{path}",
            "autoCreateSubnetworks": True,
            "peerings": [peering],
            **fields,
        }

    async def _attachment(self, request: CloudRequest) -> dict[str, Any]:
        region, name = request.path["region"], request.path["name"]
        project = f"projects/{self._project.id}"
        path = f"{project}/regions/{region}/networkAttachments/{name}"
        fields = self._project.script.network_attachments.get(f"{region}/{name}")
        if fields is None:
            raise ApiError("NOT_FOUND", f"The resource '{path}' was not found")
        return {
            "kind": "compute#networkAttachment",
            "name": name,
            "region": f"{_URL}/{project}/regions/{region}",
            "selfLink": f"{_URL}/{path}",
            "connectionPreference": "ACCEPT_AUTOMATIC",
            "network": f"{_URL}/{project}/global/networks/{DEFAULT_NETWORK}",
            "subnetworks": [f"{_URL}/{project}/regions/{region}/subnetworks/{DEFAULT_NETWORK}"],
            **fields,
        }

    async def _key(self, request: CloudRequest) -> dict[str, Any]:
        location, ring, key = (request.path[part] for part in ("location", "ring", "key"))
        name = f"projects/{self._project.id}/locations/{location}/keyRings/{ring}/cryptoKeys/{key}"
        state = self._project.script.crypto_keys.get(f"{location}/{ring}/{key}")
        if state is None:
            raise ApiError("NOT_FOUND", f"CryptoKey {name} not found.")
        return {
            "name": name,
            "purpose": "ENCRYPT_DECRYPT",
            "primary": {"name": f"{name}/cryptoKeyVersions/1", "state": state},
        }

    def _aggregated(
        self, field: str, list_zone: Callable[[str, str], list[dict[str, Any]]]
    ) -> Callable[[CloudRequest], Awaitable[dict[str, Any]]]:
        """Return a method that lists all zones in pages; a zone without results on a page has a warning."""

        async def work(request: CloudRequest) -> dict[str, Any]:
            name = _name_of(request.parameter("filter"))
            size = request.number("maxResults", PAGE)
            if not 1 <= size <= PAGE:
                raise invalid(f"Invalid value for field 'maxResults': '{size}'. It must be between 1 and {PAGE}.")
            everything = [
                (zone, each)
                for region in supported_regions()
                for zone in zones(region)
                for each in list_zone(region, zone)
                if name in (None, each["name"])
            ]
            found, token = offset_page(everything, size, request.parameter("pageToken"))
            items: dict[str, Any] = {}
            for zone, each in found:
                items.setdefault(f"zones/{zone}", {field: []})[field].append(each)
            for region in supported_regions():
                for zone in zones(region):
                    items.setdefault(f"zones/{zone}", _nothing(f"zones/{zone}"))
            kind = f"compute#{field[:-1]}AggregatedList"
            answer = {"kind": kind, "id": f"projects/{self._project.id}/aggregated/{field}", "items": items}
            return {**answer, "nextPageToken": token} if token else answer

        return work

    def _machine_types(self, region: str, zone: str) -> list[dict[str, Any]]:
        missing = self._project.script.missing_in(region, zone)
        return [
            {
                "kind": "compute#machineType",
                "name": machine.name,
                "guestCpus": machine.cpus,
                "memoryMb": machine.memory_bytes >> 20,
                "zone": zone,
                "selfLink": f"{_URL}/projects/{self._project.id}/zones/{zone}/machineTypes/{machine.name}",
            }
            for machine in MACHINES.values()
            # A zone without a type of GPU does not have the machine types with that GPU built in either.
            if machine.name.upper() not in missing
            and not (machine.built_in and compute_name(machine.built_in[0]).upper() in missing)
        ]

    def _accelerator_types(self, region: str, zone: str) -> list[dict[str, Any]]:
        missing = self._project.script.missing_in(region, zone)
        names = (compute_name(each) for each in ACCELERATORS)
        return [
            {
                "kind": "compute#acceleratorType",
                "name": name,
                "zone": f"{_URL}/projects/{self._project.id}/zones/{zone}",
                "maximumCardsPerInstance": 8,
            }
            for name in names
            if name.upper() not in missing
        ]


def compute_name(accelerator: str) -> str:
    """Return Compute Engine's name of a Vertex AI accelerator, such as ``nvidia-tesla-t4``."""
    return accelerator.lower().replace("_", "-")


def _nothing(scope: str) -> dict[str, Any]:
    return {
        "warning": {
            "code": "NO_RESULTS_ON_PAGE",
            "message": f"There are no results for scope '{scope}' on this page.",
            "data": [{"key": "scope", "value": scope}],
        }
    }


def _name_of(text: str) -> str | None:
    """Return the name in a filter, or None for an empty filter."""
    if not text.strip():
        return None
    match = _NAME_FILTER.fullmatch(text.strip())
    if match is None:
        raise invalid(f"Invalid value for field 'filter': '{text}'. Invalid list filter expression.")
    return next(each for each in match.groups() if each is not None)
