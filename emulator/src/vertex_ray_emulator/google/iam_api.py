"""The caller's permissions on the project, and its policy (Cloud Resource Manager v1); service accounts (IAM v1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.google.cloud_api import PROJECT, CloudRequest, CloudRpc
from vertex_ray_emulator.wire.errors import ApiError, invalid

if TYPE_CHECKING:
    from vertex_ray_emulator.project.project_script import Project

_ACCOUNT = rf"v1/{PROJECT}/serviceAccounts/(?P<email>[^/:]+)"
_PERMISSION = re.compile(r"[a-z][a-zA-Z0-9]*\.[a-zA-Z0-9]+\.[a-zA-Z0-9]+")
MOST_PERMISSIONS = 100


class IamApi:
    """The permissions of the caller, and the project's policy.

    :param project: the project with the denied permissions and the policy.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def rpcs(self) -> list[CloudRpc]:
        """Return the methods that this API serves."""
        return [
            CloudRpc("TestIamPermissions", "POST", rf"v1/{PROJECT}:testIamPermissions", self._on_project),
            CloudRpc("GetProject", "GET", rf"v1/{PROJECT}", self._get_project),
            CloudRpc("GetIamPolicy", "POST", rf"v1/{PROJECT}:getIamPolicy", self._get_policy),
            CloudRpc("TestServiceAccountPermissions", "POST", rf"{_ACCOUNT}:testIamPermissions", self._on_account),
            CloudRpc("GetServiceAccount", "GET", _ACCOUNT, self._get_account),
        ]

    async def _on_project(self, request: CloudRequest) -> dict[str, Any]:
        return _answer([each for each in _wanted(request) if self._project.granted(each)])

    async def _get_project(self, request: CloudRequest) -> dict[str, Any]:
        project = self._project
        return {
            "projectNumber": project.number,
            "projectId": project.id,
            "name": project.id,
            "lifecycleState": "ACTIVE",
        }

    async def _get_policy(self, request: CloudRequest) -> dict[str, Any]:
        agent = f"serviceAccount:service-{self._project.number}@gcp-sa-aiplatform.iam.gserviceaccount.com"
        roles = {"roles/aiplatform.serviceAgent": [agent], **self._project.script.policy}
        bindings = [{"role": role, "members": members} for role, members in sorted(roles.items()) if members]
        return {"version": 1, "etag": "BwYAAAAAAAA=", **({"bindings": bindings} if bindings else {})}

    async def _on_account(self, request: CloudRequest) -> dict[str, Any]:
        denied = self._account(request.path["email"]).get("denied_permissions", [])
        return _answer([each for each in _wanted(request) if each not in denied and self._project.granted(each)])

    async def _get_account(self, request: CloudRequest) -> dict[str, Any]:
        email = request.path["email"]
        self._account(email)
        return {
            "name": f"projects/{self._project.id}/serviceAccounts/{email}",
            "projectId": self._project.id,
            "email": email,
        }

    def _account(self, email: str) -> dict[str, Any]:
        account = self._project.script.service_accounts.get(email, {})
        if account is None:
            raise ApiError("NOT_FOUND", f"Unknown service account: {email}")
        return account


def _wanted(request: CloudRequest) -> list[str]:
    found = request.body.get("permissions", [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise invalid("Invalid value at 'permissions' (TYPE_STRING)")
    if len(found) > MOST_PERMISSIONS:
        raise invalid(f"At most {MOST_PERMISSIONS} permissions can be tested in one request.")
    for each in found:
        if not _PERMISSION.fullmatch(each):
            raise invalid(f"Permission {each} is not valid for this resource.")
    return found


def _answer(granted: list[str]) -> dict[str, Any]:
    # Google's JSON omits empty lists.
    return {"permissions": granted} if granted else {}
