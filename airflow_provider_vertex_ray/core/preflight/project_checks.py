"""Preflight checks of the project: its APIs, and the permissions of the caller."""

from __future__ import annotations

from airflow_provider_vertex_ray.core.http.google_call import NoSuchResourceError
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight.lookups import PermissionsApi, ServicesApi
from airflow_provider_vertex_ray.core.preflight.report import Finding, Status
from airflow_provider_vertex_ray.core.preflight.requirements import (
    ACT_AS,
    REQUIRED_PERMISSIONS,
    RESIZE_PERMISSION,
    USER_PERMISSION,
    PreflightRequest,
    advised_services,
    enable,
    grant,
    required_services,
    roles_for,
)


async def check_apis(asked: PreflightRequest, transport: Transport) -> list[Finding]:
    """Check that the APIs of the cluster are enabled."""
    required, advised = required_services(asked), advised_services(asked)
    enabled = await ServicesApi(transport, asked.project).enabled([*required, *advised])
    findings = []
    for service, purpose in {**required, **advised}.items():
        if service not in enabled:
            found = f"Service Usage does not report its state; it is needed for {purpose}"
            findings.append(Finding("apis", Status.COULD_NOT_CHECK, service, found, enable(service, asked.project)))
        elif enabled[service]:
            findings.append(Finding("apis", Status.PASS, service, f"enabled, for {purpose}"))
        else:
            status = Status.FAIL if service in required else Status.WARN
            found = f"disabled, but needed for {purpose}"
            findings.append(Finding("apis", status, service, found, enable(service, asked.project)))
    return findings


async def check_permissions(asked: PreflightRequest, transport: Transport) -> list[Finding]:
    """Check the caller's permissions for clusters in the project, and for their dashboards."""
    permissions = [*REQUIRED_PERMISSIONS, RESIZE_PERMISSION]
    granted = await PermissionsApi(transport).on_project(asked.project, [*permissions, USER_PERMISSION])
    found = _permissions(asked, permissions, granted)
    if USER_PERMISSION not in granted:
        text = (
            f"lacks {USER_PERMISSION}, so probably roles/aiplatform.user, which the dashboard asks for: jobs may be "
            "rejected with 401 or 403"
        )
        remedy = grant(asked.project, "roles/aiplatform.user", asked.member)
        found.append(Finding("permissions", Status.WARN, "dashboard", text, remedy))
    return found


def _permissions(asked: PreflightRequest, permissions: list[str], granted: set[str]) -> list[Finding]:
    subject = f"project {asked.project}"
    missing = [permission for permission in permissions if permission not in granted]
    if not missing:
        verbs = ", ".join(permission.rpartition(".")[2] for permission in permissions)
        return [Finding("permissions", Status.PASS, subject, f"may {verbs} clusters")]
    remedy = " && ".join(grant(asked.project, role, asked.member) for role in roles_for(missing))
    if missing == [RESIZE_PERMISSION]:
        found = f"lacks {RESIZE_PERMISSION}, so clusters cannot be resized"
        return [Finding("permissions", Status.WARN, subject, found, remedy)]
    return [Finding("permissions", Status.FAIL, subject, f"lacks {', '.join(missing)}", remedy)]


async def check_service_account(asked: PreflightRequest, transport: Transport) -> list[Finding]:
    """Check that the caller may run the cluster as its service account."""
    email = asked.spec.service_account or ""
    name, _, domain = email.partition("@")
    home = domain.removesuffix(".iam.gserviceaccount.com") if domain.endswith(".iam.gserviceaccount.com") else ""
    try:
        granted = await PermissionsApi(transport).on_service_account(email, [ACT_AS])
    except NoSuchResourceError:
        remedy = f"gcloud iam service-accounts create {name} --project={home or asked.project}"
        return [Finding("service_account", Status.FAIL, email, "the service account does not exist", remedy)]
    if ACT_AS in granted:
        return [Finding("service_account", Status.PASS, email, "the cluster may run as it")]
    remedy = (
        f"gcloud iam service-accounts add-iam-policy-binding {email} "
        f"{f'--project={home} ' if home else ''}--member={asked.member} --role=roles/iam.serviceAccountUser"
    )
    return [Finding("service_account", Status.FAIL, email, f"the caller lacks {ACT_AS} on it", remedy)]
