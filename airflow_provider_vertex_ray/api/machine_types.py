"""Compute Engine: in which zones of a region there is a machine type, or an accelerator.

Sources: https://cloud.google.com/compute/docs/reference/rest/v1/machineTypes/aggregatedList
(``compute.machineTypes.list``) and …/acceleratorTypes/aggregatedList (``compute.acceleratorTypes.list``). Vertex AI
offers fewer than that; no API tells which.
"""

from __future__ import annotations

from airflow_provider_vertex_ray.api.cloud_call import read_json
from airflow_provider_vertex_ray.api.transport import Transport


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
