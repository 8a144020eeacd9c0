"""Waiting for free quota."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.errors import (
    OperationTimeoutError,
    QuotaTooSmallError,
    RateLimitedError,
    ServiceUnavailableError,
)
from airflow_provider_vertex_ray.triggers.base import WaitTrigger, pause, time_for_a_look

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.preflight import VertexRayPreflightAsyncHook


class VertexRayQuotaTrigger(WaitTrigger):
    """Waits until the training quotas that a cluster needs are free; see ``VertexRayQuotaSensor``.

    :param project_id: Project of the cluster.
    :param location: Region of the cluster.
    :param spec: Fields of its ``ClusterSpec``.
    :param full_size: Whether autoscaling pools count with their maximum.
    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain.
    :param poll_interval: Seconds between two looks.
    :param deadline: Unix time at which the wait ends with an error; None for never.

    Errors: QuotaTooSmallError, OperationTimeoutError, NotAuthorisedError.
    """

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
        )

    @property
    def hook(self) -> VertexRayPreflightAsyncHook:
        """Quotas, through the task's connection."""
        from airflow_provider_vertex_ray.hooks.preflight import VertexRayPreflightAsyncHook

        return VertexRayPreflightAsyncHook(
            self.arguments["gcp_conn_id"],
            self.arguments["impersonation_chain"],
            self.arguments["project_id"],
            self.arguments["location"],
        )

    async def look(self) -> dict[str, Any] | None:
        """One look: what the quotas are when all is free, None while it is not, or can not be read for the moment.

        :raises QuotaTooSmallError: A limit is smaller than what is asked for.
        """
        full_size, location = self.arguments["full_size"], self.arguments["location"]
        try:
            standings = await self.hook.quota(self.arguments["spec"])
        except (ServiceUnavailableError, RateLimitedError) as error:
            self.log.warning("The quotas can not be read for the moment: %s", error)
            return None
        found = [standing.to_dict() for standing in standings]
        never = [standing for standing in standings if standing.can_never(full_size)]
        if never:
            said = "; ".join(f"{standing.demand.metric}: {standing}" for standing in never)
            raise QuotaTooSmallError(f"The quota in {location} is too small: {said}.", {"quota": found})
        short = [standing for standing in standings if not standing.is_free(full_size)]
        for standing in short:
            self.log.info("Too little is free of %s in %s: %s", standing.demand.metric, location, standing)
        return None if short else {"location": location, "quota": found}

    async def wait(self) -> dict[str, Any]:
        """Look until all is free."""
        deadline = self.arguments["deadline"]
        async with self.hook.session():
            while True:
                try:
                    found = await asyncio.wait_for(self.look(), time_for_a_look(deadline))
                except asyncio.TimeoutError:
                    self.log.warning("The quotas could not be read in time")
                    found = None
                if found is not None:
                    return found
                if seconds_left(deadline) <= 0:
                    raise OperationTimeoutError(f"The quota in {self.arguments['location']} did not get free in time.")
                await pause(self.arguments["poll_interval"], deadline)
