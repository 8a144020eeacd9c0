"""Checks of a create on what a test has scripted about the project; whatever is not scripted passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.clusters.rules import KMS_PATTERN
from vertex_ray_emulator.wire.errors import ApiError, invalid
from vertex_ray_emulator.wire.protos import accelerator_name

if TYPE_CHECKING:
    from vertex_ray_emulator.project.project_script import Project

ACT_AS = "iam.serviceAccounts.actAs"


def check_project(resource: Any, region: str, project: Project) -> None:
    """Raise an error for a persistent resource that refers to what the project's script denies, disables or lacks.

    :param resource: the v1beta1 message, which has passed the other rules.
    :param region: region in which it is created.
    :param project: the project with its script.
    :raises ApiError: PERMISSION_DENIED for a service account, FAILED_PRECONDITION for a key, else INVALID_ARGUMENT.
    """
    _check_account(resource.resource_runtime_spec.service_account_spec.service_account, project)
    _check_network(resource.network, project)
    _check_key(resource.encryption_spec.kms_key_name, project)
    for i, pool in enumerate(resource.resource_pools):
        for name in filter(None, (pool.machine_spec.machine_type, accelerator_name(pool.machine_spec))):
            if project.script.lacks(region, name):
                raise invalid(f"resource_pools[{i}].machine_spec: {name!r} is not available in {region}.")


def _check_account(email: str, project: Project) -> None:
    if not email:
        return
    account = project.script.service_accounts.get(email, {})
    # IAM does not tell an account that does not exist from one on which the caller has no permission.
    if account is None or ACT_AS in account.get("denied_permissions", ()) or not project.granted(ACT_AS):
        raise ApiError(
            "PERMISSION_DENIED", f"Permission '{ACT_AS}' denied on service account {email} (or it may not exist)."
        )


def _check_network(network: str, project: Project) -> None:
    owner, _, name = network.removeprefix("projects/").partition("/global/networks/")
    if owner == project.number and project.script.networks.get(name, {}) is None:
        raise invalid(f"Invalid network: {network!r}. The network does not exist.")


def _check_key(key: str, project: Project) -> None:
    match = KMS_PATTERN.fullmatch(key)
    if match is None or match["project"] not in (project.id, project.number):
        return
    state = project.script.crypto_keys.get(f"{match['location']}/{match['ring']}/{match['key']}", "ENABLED")
    if state != "ENABLED":
        raise ApiError("FAILED_PRECONDITION", f"{key}/cryptoKeyVersions/1 is not enabled, current state is: {state}.")
