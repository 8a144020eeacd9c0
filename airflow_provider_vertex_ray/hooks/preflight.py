"""The preflight, and the training quotas, through an Airflow connection."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException

from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.preflight.lookups import bucket_uri
from airflow_provider_vertex_ray.core.preflight.quota_demand import QuotaStatus, quota_demand, unknown_machines
from airflow_provider_vertex_ray.core.preflight.quotas import QuotasApi
from airflow_provider_vertex_ray.core.preflight.report import Report, choose_checks
from airflow_provider_vertex_ray.core.preflight.requirements import PreflightRequest
from airflow_provider_vertex_ray.core.preflight.run import preflight
from airflow_provider_vertex_ray.core.sharing.lease_store import parse_lease_uri
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRayBaseHook, run_sync


class VertexRayPreflightAsyncHook(VertexRayBaseAsyncHook):
    """What there is for a cluster, for an event loop. Nothing is changed by any call."""

    async def preflight(
        self,
        spec: ClusterSpec | dict[str, Any],
        *,
        checks: Sequence[str] | None = None,
        bucket: str | None = None,
        lease_uri: str | None = None,
    ) -> Report:
        """Look whether a cluster could be created and used.

        What can not be looked at is a finding as well, and not an error.

        :param spec: The cluster that is to be.
        :param checks: Names of ``preflight.CHECKS``; None: all that apply to the spec.
        :param bucket: A bucket that jobs use: ``my-bucket`` or ``gs://my-bucket/folder``.
        :param lease_uri: Folder in Cloud Storage with leases.
        :raises InvalidArgumentError: An argument is wrong; nothing was asked.
        """
        spec = checked_spec(spec, self._location)
        names = choose_checks(checks)
        location = self._place()
        place = None if bucket is None else bucket_uri(bucket)
        if lease_uri is not None:
            parse_lease_uri(lease_uri)
        own = (_installed_ray(), f"{sys.version_info.major}.{sys.version_info.minor}")
        async with contextlib.AsyncExitStack() as stack:
            transport, project, trouble = await self._open(stack)
            asked = PreflightRequest(validate_project(project), location, spec, place, lease_uri)
            return await preflight(asked, transport, names, own_versions=own, no_credentials=trouble)

    def _place(self) -> str:
        """The region; and what is known of the project is judged as well, before any call."""
        if self._project_id:
            validate_project(self._project_id)
        return validate_location(self._location)

    async def _open(self, stack: contextlib.AsyncExitStack) -> tuple[Transport | None, str | None, str]:
        """The transport and the project; or None, the project as far as it is named, and why there are no credentials.

        :raises AirflowNotFoundException: There is no such connection.
        """
        from google.auth.exceptions import GoogleAuthError

        try:
            transport, project = await stack.enter_async_context(self.session())
        except AirflowNotFoundException:
            raise
        except (GoogleAuthError, AirflowException, OSError, ValueError) as error:
            # No key, one that can not be read, or one that is none: the Google provider has an exception for each.
            named = (await self.get_sync_hook())._get_field("project")
            return None, self._project_id or named or None, str(error)
        return transport, project, ""

    async def quota(self, spec: ClusterSpec | dict[str, Any]) -> list[QuotaStatus]:
        """The training quotas that a cluster draws on, each with its limit and its use.

        :raises InvalidArgumentError: The spec is wrong, or names a machine whose size is not known.
        :raises VertexRayError: They can not be read.
        """
        spec = checked_spec(spec, self._location)
        location = self._place()
        for machine in unknown_machines(spec):
            raise InvalidArgumentError(
                "spec", machine, "how many vCPUs it has is not known here, so its quota can not be told"
            )
        async with self.session() as (transport, project):
            return await QuotasApi(transport, validate_project(project), location).standings(quota_demand(spec))


def checked_spec(spec: ClusterSpec | dict[str, Any], location: str | None) -> ClusterSpec:
    """The spec, complete and right for a region.

    :raises InvalidArgumentError: It is not.
    """
    found = ClusterSpec.from_value(spec)
    found.to_persistent_resource(validate_location(location))
    return found


def _installed_ray() -> str | None:
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return None


class VertexRayPreflightHook(VertexRayBaseHook):
    """What there is for a cluster, from synchronous code."""

    def _async(self) -> VertexRayPreflightAsyncHook:
        return VertexRayPreflightAsyncHook(
            self.gcp_conn_id, self.impersonation_chain, self.default_project_id, self.default_location
        )

    def preflight(
        self,
        spec: ClusterSpec | dict[str, Any],
        *,
        checks: Sequence[str] | None = None,
        bucket: str | None = None,
        lease_uri: str | None = None,
    ) -> Report:
        """Look whether a cluster could be created and used; see ``VertexRayPreflightAsyncHook.preflight``."""
        return run_sync(lambda: self._async().preflight(spec, checks=checks, bucket=bucket, lease_uri=lease_uri))

    def quota(self, spec: ClusterSpec | dict[str, Any]) -> list[QuotaStatus]:
        """The training quotas that a cluster draws on; see ``VertexRayPreflightAsyncHook.quota``."""
        return run_sync(lambda: self._async().quota(spec))
