"""The preflight: all checks that a cluster's spec requires, several at a time. None of them changes anything."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight.project_checks import (
    check_apis,
    check_permissions,
    check_service_account,
)
from airflow_provider_vertex_ray.core.preflight.ray_versions import client_finding, pair_finding
from airflow_provider_vertex_ray.core.preflight.region_checks import (
    check_bucket,
    check_encryption_key,
    check_machines,
    check_network,
    check_quota,
)
from airflow_provider_vertex_ray.core.preflight.report import CHECKS, Finding, Report, Status
from airflow_provider_vertex_ray.core.preflight.requirements import AGAIN, PreflightRequest, member_of, unchecked
from airflow_provider_vertex_ray.errors import VertexRayError

log = logging.getLogger(__name__)

MOST_AT_ONCE = 4
"""Maximum number of simultaneous checks."""

LONGEST = 90.0
"""Maximum number of seconds for one check."""

CREDENTIALS = "credentials"
"""Name of the check of the finding for missing credentials."""


@dataclass(frozen=True)
class _Check:
    """A check that calls Google's services.

    :param make: runs the check
    :param subject: returns what is checked, for the finding of a check that could not run
    :param applies: tells whether the cluster needs the check
    :param permission: permission that the check needs; None for none, or if the check itself reports it
    """

    make: Callable[[PreflightRequest, Transport], Awaitable[list[Finding]]]
    subject: Callable[[PreflightRequest], str]
    applies: Callable[[PreflightRequest], bool] = lambda asked: True
    permission: str | None = None


def _project(asked: PreflightRequest) -> str:
    return f"project {asked.project}"


_REMOTE: dict[str, _Check] = {
    "apis": _Check(check_apis, _project, permission="serviceusage.services.get"),
    "permissions": _Check(check_permissions, _project),
    "service_account": _Check(
        check_service_account,
        lambda asked: str(asked.spec.service_account),
        lambda asked: bool(asked.spec.service_account),
    ),
    "quota": _Check(check_quota, lambda asked: asked.location),
    "machines": _Check(check_machines, lambda asked: asked.location),
    "network": _Check(
        check_network,
        lambda asked: str(asked.spec.network or asked.spec.psc_interface_config),
        lambda asked: bool(asked.spec.network or asked.spec.psc_interface_config),
    ),
    "encryption_key": _Check(
        check_encryption_key,
        lambda asked: str(asked.spec.encryption_spec_key_name),
        lambda asked: bool(asked.spec.encryption_spec_key_name),
    ),
    "bucket": _Check(
        check_bucket,
        lambda asked: str(asked.bucket or asked.lease_uri),
        lambda asked: bool(asked.bucket or asked.lease_uri),
    ),
}


async def preflight(
    asked: PreflightRequest,
    transport: Transport | None,
    checks: Sequence[str],
    *,
    own_versions: tuple[str | None, str],
    no_credentials: str = "",
) -> Report:
    """Run the checks and return their report.

    If all checks run, those that do not apply to the spec are left out; otherwise they report that they do not apply.

    :param asked: the request
    :param transport: the connection; None if there are no credentials
    :param checks: names of the checks, from ``choose_checks``
    :param own_versions: Ray version of this process (None if it has none), and its Python version, such as ``3.11``
    :param no_credentials: why there are no credentials
    """
    findings: list[Finding] = []
    remedy = "gcloud auth application-default login, or correct the Airflow connection's key or impersonation chain"
    if transport is not None:
        try:
            await transport.authenticate()
            asked = replace(asked, member=member_of(transport.account))
        except VertexRayError as error:
            if transport.addresses.emulator_host:
                remedy = "vertex-ray-emulator start"
            transport, no_credentials = None, error.message
    if transport is None:
        findings.append(Finding(CREDENTIALS, Status.FAIL, "Airflow connection", no_credentials, remedy))
    room = asyncio.Semaphore(MOST_AT_ONCE)
    parts = await asyncio.gather(*(_part(name, asked, transport, room, own_versions) for name in checks))
    for name, part in zip(checks, parts, strict=True):
        if not part and tuple(checks) != CHECKS:
            part = [Finding(name, Status.PASS, "cluster", "does not apply to this spec")]
        findings += part
    return Report(asked.project, asked.location, tuple(findings))


async def _part(
    name: str,
    asked: PreflightRequest,
    transport: Transport | None,
    room: asyncio.Semaphore,
    own_versions: tuple[str | None, str],
) -> list[Finding]:
    if name == "spec":
        return _spec(asked)
    if name == "versions":
        return _versions(asked, *own_versions)
    check = _REMOTE[name]
    if not check.applies(asked):
        return []
    if transport is None:
        return [Finding(name, Status.COULD_NOT_CHECK, check.subject(asked), "no credentials")]
    async with room:
        try:
            return await within(LONGEST, check.make(asked, transport))
        except asyncio.TimeoutError:
            found = f"no answer within {LONGEST:.0f} s"
            return [Finding(name, Status.COULD_NOT_CHECK, check.subject(asked), found, AGAIN)]
        except VertexRayError as error:
            return [unchecked(asked, name, check.subject(asked), error, check.permission)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # JSON of another form than Google's, for example from a proxy.
            log.warning("Check %s failed, because its answer has an unexpected form", name, exc_info=True)
            found = f"unexpected answer: {type(error).__name__}"
            return [Finding(name, Status.COULD_NOT_CHECK, check.subject(asked), found, AGAIN)]


def _spec(asked: PreflightRequest) -> list[Finding]:
    """Report values that the service accepts but that may have an unwanted effect."""
    warnings = [text.partition(": ") for text in asked.spec.warnings()]
    if warnings:
        return [Finding("spec", Status.WARN, field, rule) for field, _, rule in warnings]
    least, most = asked.spec.node_count(), asked.spec.max_node_count()
    nodes = f"{least} nodes" if least == most else f"{least} to {most} nodes"
    return [Finding("spec", Status.PASS, "cluster", f"{nodes}, including the head")]


def _versions(asked: PreflightRequest, own_ray: str | None, own_python: str) -> list[Finding]:
    findings = [pair_finding(*pair, _today()) for pair in asked.pairs]
    for image in asked.own_images:
        found = "custom image: its Ray and Python versions, and whether the service still supports them, are unknown"
        findings.append(Finding("versions", Status.COULD_NOT_CHECK, image, found))
    if asked.head_pair is not None:
        findings.append(client_finding(*asked.head_pair, own_ray, own_python))
    return findings


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.timezone.utc).date()
