"""The preflight: all checks that a cluster's spec asks for, some at a time. Nothing is changed by any of them."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

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
"""Checks that are made at a time."""

LONGEST = 90.0
"""Seconds for one check."""

CREDENTIALS = "credentials"


@dataclass(frozen=True)
class _Check:
    """A check that asks Google.

    :param make: Makes it.
    :param subject: What it is about, where it could not even begin.
    :param applies: Whether the cluster needs it.
    :param permission: What the call needs; None for nothing, or where the check itself says so.
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
    """Make the checks.

    Of all checks those that do not apply to the spec are left out; one that was picked says so.

    :param transport: The connection; None where there are no credentials for one.
    :param checks: As ``choose_checks`` gives them.
    :param own_versions: This process's version of Ray, None for none, and of Python, such as ``3.11``.
    :param no_credentials: Why there are none.
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
            part = [Finding(name, Status.PASS, "cluster", "the spec asks for nothing that it looks at")]
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
        return [Finding(name, Status.COULD_NOT_CHECK, check.subject(asked), "there are no credentials to ask with")]
    async with room:
        try:
            return await asyncio.wait_for(check.make(asked, transport), LONGEST)
        except asyncio.TimeoutError:
            found = f"no answer within {LONGEST:.0f} s"
            return [Finding(name, Status.COULD_NOT_CHECK, check.subject(asked), found, AGAIN)]
        except VertexRayError as error:
            return [unchecked(asked, name, check.subject(asked), error, check.permission)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # JSON of another shape than Google's, from whatever is in between.
            log.warning("The check %s could not read its answer", name, exc_info=True)
            found = f"an answer that can not be read: {error!r}"
            return [Finding(name, Status.COULD_NOT_CHECK, check.subject(asked), found, AGAIN)]


def _spec(asked: PreflightRequest) -> list[Finding]:
    """What the service takes, and the user may regret."""
    warnings = [text.partition(": ") for text in asked.spec.warnings()]
    if warnings:
        return [Finding("spec", Status.WARN, field, rule) for field, _, rule in warnings]
    least, most = asked.spec.node_count(), asked.spec.max_node_count()
    nodes = f"{least} nodes" if least == most else f"{least} to {most} nodes"
    return [Finding("spec", Status.PASS, "cluster", f"{nodes}, the head included")]


def _versions(asked: PreflightRequest, own_ray: str | None, own_python: str) -> list[Finding]:
    findings = [pair_finding(*pair, _today()) for pair in asked.pairs]
    for image in asked.own_images:
        found = "an image of your own: which versions it has, and whether the service still has them, it does not tell"
        findings.append(Finding("versions", Status.COULD_NOT_CHECK, image, found))
    if asked.head_pair is not None:
        findings.append(client_finding(*asked.head_pair, own_ray, own_python))
    return findings


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.timezone.utc).date()
