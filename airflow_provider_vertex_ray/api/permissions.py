"""What the caller may do. Asking that needs no permission.

Sources: https://cloud.google.com/resource-manager/reference/rest/v1/projects/testIamPermissions and
https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts/testIamPermissions.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from airflow_provider_vertex_ray.api.cloud_call import read_json
from airflow_provider_vertex_ray.api.transport import Transport


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
