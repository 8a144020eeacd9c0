"""Calls for the preflight checks and the training quotas."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight.live import live_findings
from airflow_provider_vertex_ray.core.preflight.lookups import bucket_uri
from airflow_provider_vertex_ray.core.preflight.quota_demand import QuotaStatus, quota_demand, unknown_machines
from airflow_provider_vertex_ray.core.preflight.quotas import QuotasApi
from airflow_provider_vertex_ray.core.preflight.report import Finding, Report, choose_checks
from airflow_provider_vertex_ray.core.preflight.requirements import PreflightRequest
from airflow_provider_vertex_ray.core.preflight.run import preflight
from airflow_provider_vertex_ray.core.sharing.lease_objects import parse_lease_uri
from airflow_provider_vertex_ray.core.threads import in_airflow_thread
from airflow_provider_vertex_ray.errors import CredentialsError, InvalidArgumentError
from airflow_provider_vertex_ray.hooks.calls.base import BaseCalls
from airflow_provider_vertex_ray.hooks.connection import GoogleConnection


class PreflightCalls(BaseCalls):
    """Check the requirements and quotas of a cluster from asynchronous code. All calls are read-only."""

    async def preflight(
        self,
        spec: ClusterSpec | dict[str, Any],
        *,
        checks: Sequence[str] | None = None,
        bucket: str | None = None,
        lease_uri: str | None = None,
    ) -> Report:
        """Check whether a cluster could be created and used.

        A check that cannot be made is a finding, not an error.

        :param spec: specification of the cluster.
        :param checks: names in ``preflight.CHECKS``; None for all that apply to the spec.
        :param bucket: a bucket that jobs use: ``my-bucket`` or ``gs://my-bucket/folder``.
        :param lease_uri: folder in Cloud Storage with the leases (``gs://bucket/folder``).
        :return: the findings.
        :raises InvalidArgumentError: an argument is invalid; no request was made.
        """
        spec = checked_spec(spec, self._location)
        names = choose_checks(checks)
        location = self._checked_location()
        uri = None if bucket is None else bucket_uri(bucket)
        if lease_uri is not None:
            parse_lease_uri(lease_uri)
        own = (_installed_ray(), f"{sys.version_info.major}.{sys.version_info.minor}")
        async with contextlib.AsyncExitStack() as stack:
            transport, project, trouble = await self._open(stack)
            asked = PreflightRequest(validate_project(project), location, spec, uri, lease_uri)
            return await preflight(asked, transport, names, own_versions=own, no_credentials=trouble)

    async def live_check(self) -> list[Finding]:
        """Look at the clusters that exist in the hook's project and region, and ask their dashboards.

        :return: the findings; see "What to try first on a real project" in the documentation.
        :raises InvalidArgumentError: the project or the region is missing.
        """
        location = self._checked_location()
        async with self.session() as (transport, project):
            return await live_findings(transport, validate_project(project), location)

    def _checked_location(self) -> str:
        """Validate the region, and the project if the hook names one, before any request."""
        if self._project_id:
            validate_project(self._project_id)
        return validate_location(self._location)

    async def _open(self, stack: contextlib.AsyncExitStack) -> tuple[Transport | None, str | None, str]:
        """Open the shared transport, if the connection has usable credentials.

        :return: the transport, the project and an empty text; or None, the project if it is named, and the reason.
        :raises InvalidArgumentError: the Airflow connection does not exist, or is not one to Google Cloud.
        """
        try:
            transport, project = await stack.enter_async_context(self.session())
        except CredentialsError as error:
            named = await in_airflow_thread(lambda: GoogleConnection(*self._connection).named_project)
            return None, self._project_id or named, str(error)
        return transport, project, ""

    async def quota(self, spec: ClusterSpec | dict[str, Any]) -> list[QuotaStatus]:
        """Return the training quotas that a cluster needs, each with its limit and usage.

        :param spec: specification of the cluster.
        :raises InvalidArgumentError: the spec is invalid, or contains a machine type of unknown size.
        :raises VertexRayError: the quotas could not be read.
        """
        spec = checked_spec(spec, self._location)
        location = self._checked_location()
        for machine in unknown_machines(spec):
            raise InvalidArgumentError(
                "spec", machine, "Its number of vCPUs is unknown to this version, so its quota cannot be checked."
            )
        async with self.session() as (transport, project):
            return await QuotasApi(transport, validate_project(project), location).statuses(quota_demand(spec))


def checked_spec(spec: ClusterSpec | dict[str, Any], location: str | None) -> ClusterSpec:
    """Return the spec as a ``ClusterSpec`` that is valid for a region.

    :raises InvalidArgumentError: the spec is invalid.
    """
    found = ClusterSpec.from_value(spec)
    found.to_persistent_resource(validate_location(location))
    return found


def _installed_ray() -> str | None:
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return None
