"""Service Usage: which APIs are enabled in a project.

Source: https://cloud.google.com/service-usage/docs/reference/rest/v1/services/batchGet, which needs
``serviceusage.services.get``.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from airflow_provider_vertex_ray.api.cloud_call import read_json
from airflow_provider_vertex_ray.api.transport import Transport

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
