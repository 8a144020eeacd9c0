"""Trigger that waits for free quota."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.polling import Backoff, poll_until
from airflow_provider_vertex_ray.errors import OperationTimeoutError, QuotaTooSmallError, VertexRayError
from airflow_provider_vertex_ray.triggers.base import WaitTrigger

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.calls.preflight import PreflightCalls


class VertexRayQuotaTrigger(WaitTrigger):
    """Wait until the training quotas that a cluster needs are free; see ``VertexRayQuotaSensor``.

    :param project_id: Google Cloud project of the cluster; None for the connection's.
    :param location: region of the cluster.
    :param spec: fields of its ``ClusterSpec``.
    :param full_size: whether autoscaling pools count with their maximum size.
    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param poll_interval: seconds between two polls.
    :param deadline: Unix time at which the wait fails; None for no limit.
    :param end: how the task ends without a worker; see ``WaitTrigger``.
    :raises QuotaTooSmallError: a quota's limit is below what the cluster needs, so waiting is pointless.
    :raises OperationTimeoutError: the quotas were not free before the deadline.
    :raises NotAuthorisedError: the account may not read quotas.
    """

    service = "the quota services"

    def __init__(
        self,
        *,
        project_id: str | None,
        location: str,
        spec: dict[str, Any],
        full_size: bool = False,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        poll_interval: float = 60.0,
        deadline: float | None = None,
        end: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            project_id=project_id,
            location=location,
            spec=spec,
            full_size=full_size,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            poll_interval=poll_interval,
            deadline=deadline,
            end=end,
        )

    @property
    def hook(self) -> PreflightCalls:
        """The preflight hook with the task's connection."""
        from airflow_provider_vertex_ray.hooks.calls.preflight import PreflightCalls

        return PreflightCalls(
            self.arguments["gcp_conn_id"],
            self.arguments["impersonation_chain"],
            self.arguments["project_id"],
            self.arguments["location"],
        )

    async def look(self) -> dict[str, Any] | None:
        """Poll once.

        :return: the quotas when all of them are free; None while they are not.
        :raises QuotaTooSmallError: a limit is below what the cluster needs.
        """
        full_size, location = self.arguments["full_size"], self.arguments["location"]
        standings = await self.hook.quota(self.arguments["spec"])
        found = [standing.to_dict() for standing in standings]
        never = [standing for standing in standings if standing.can_never(full_size)]
        if never:
            shortage = "; ".join(f"{standing.demand.metric}: {standing}" for standing in never)
            raise QuotaTooSmallError(f"The quota in {location} is too small: {shortage}.", {"quota": found})
        short = [standing for standing in standings if not standing.is_free(full_size)]
        for standing in short:
            self.log.info("Waiting for quota %s in %s: %s", standing.demand.metric, location, standing)
        return None if short else {"location": location, "quota": found}

    async def wait(self) -> dict[str, Any]:
        """Poll until all quotas are free."""
        async with self.hook.session():
            return await poll_until(
                self.look,
                backoff=Backoff.constant(self.arguments["poll_interval"]),
                deadline=self.arguments["deadline"],
                timed_out=self._timed_out,
                on_unreadable=self.on_unreadable,
            )

    def _timed_out(self) -> VertexRayError:
        return OperationTimeoutError(f"Timed out waiting for free quota in {self.arguments['location']}.")
