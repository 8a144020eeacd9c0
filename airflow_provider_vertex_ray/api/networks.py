"""Compute Engine: a network with its peerings, and a network attachment.

Sources: https://cloud.google.com/compute/docs/reference/rest/v1/networks/get (``compute.networks.get``) and
https://cloud.google.com/compute/docs/reference/rest/v1/networkAttachments/get (``compute.networkAttachments.get``).
"""

from __future__ import annotations

from typing import Any

from airflow_provider_vertex_ray.api.cloud_call import read_json
from airflow_provider_vertex_ray.api.transport import Transport

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
