"""Waiting for a shared cluster, whoever creates it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.core.sharing.generations import ClusterRequest, Plan, Step
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    DashboardNotReadyError,
    LeaseStoreError,
    ProvisioningTimeoutError,
    RateLimitedError,
    ServiceUnavailableError,
)
from airflow_provider_vertex_ray.triggers.base import WaitTrigger, pause

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.cluster.state import Cluster
    from airflow_provider_vertex_ray.core.sharing.ensure import SharedClusterReconciler
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook


class VertexRayClusterEnsureTrigger(WaitTrigger):
    """Comes to a shared cluster that is RUNNING and whose dashboard answers, and holds its lease.

    The result is ``Cluster.summary()`` with ``shared_name``, ``generation`` and ``lease_owner``. Everything is done
    here, creating included, because what there is changes while one waits: the cluster that was found may be deleted,
    fail, or get too old.

    :param shared_name: The name.
    :param project_id: Project; None: the connection's.
    :param location: Region.
    :param spec: ``ClusterSpec.to_dict()`` of a new generation.
    :param labels: More labels of a new generation.
    :param on_spec_mismatch: ``attach``, ``fail`` or ``replace``.
    :param max_age: Seconds after which a generation gets no new work; None: no limit.
    :param lease_uri: Where leases are kept; None: nowhere.
    :param lease_ttl: Seconds for which the lease is held.
    :param lease_owner: Who holds it.
    :param max_cost: What the cluster may have cost, in the currency of ``prices``, to get new work; None: no limit.
    :param prices: A price table's JSON.
    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain.
    :param poll_interval: Seconds between two looks.
    :param deadline: Unix time at which the wait ends with an error; None for never.
    :param dashboard_timeout: Seconds that the dashboard may need after RUNNING.
    :param passthrough: JSON that is handed back in the event as it is.

    Errors: ClusterSpecMismatchError, BudgetExceededError; of a generation that is created here: QuotaExceededError,
    StockoutError, NetworkExhaustedError, ClusterFailedError, with ``made_here`` in their details;
    ProvisioningTimeoutError, DashboardNotReadyError, and what else the service answers.
    """

    def __init__(
        self,
        *,
        shared_name: str,
        spec: dict[str, Any],
        location: str,
        project_id: str | None = None,
        labels: dict[str, str] | None = None,
        on_spec_mismatch: str = "attach",
        max_age: float | None = None,
        lease_uri: str | None = None,
        lease_ttl: float = 900.0,
        lease_owner: str = "",
        max_cost: float | None = None,
        prices: dict[str, Any] | None = None,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        poll_interval: float = 15.0,
        deadline: float | None = None,
        dashboard_timeout: float = 600.0,
        passthrough: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            shared_name=shared_name,
            spec=spec,
            location=location,
            project_id=project_id,
            labels=labels,
            on_spec_mismatch=on_spec_mismatch,
            max_age=max_age,
            lease_uri=lease_uri,
            lease_ttl=lease_ttl,
            lease_owner=lease_owner,
            max_cost=max_cost,
            prices=prices,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            poll_interval=poll_interval,
            deadline=deadline,
            dashboard_timeout=dashboard_timeout,
            passthrough=passthrough,
        )
        self._shared_name = shared_name
        self._deadline = deadline
        self._poll_interval = poll_interval
        self._running: tuple[str, float] | None = None

    async def wait(self) -> dict[str, Any]:
        """Step by step."""
        async with self._ensuring() as (ensuring, hook):
            found: Plan | None = None
            done = False
            interval = min(1.0, self._poll_interval)
            try:
                while True:
                    try:
                        found = await ensuring.step()
                        if found.step is Step.ATTACH and found.cluster is not None:
                            self._check_budget(found.cluster)
                            if await self._answers(hook, found.cluster) and await ensuring.confirm(found):
                                await ensuring.clean_up(found)
                                done = True
                                return self._result(found, found.cluster)
                        elif found.step is Step.CREATE:
                            interval = min(1.0, self._poll_interval)
                            if seconds_left(self._deadline) > 0:
                                continue
                    except (ServiceUnavailableError, RateLimitedError, LeaseStoreError) as error:
                        self.log.warning("The service can not be read for the moment: %s", error)
                    if seconds_left(self._deadline) <= 0:
                        raise self._too_late(ensuring, found)
                    await pause(interval, self._deadline)
                    interval = min(interval * 1.5, self._poll_interval)
            finally:
                if not done:
                    await ensuring.let_go()

    @contextlib.asynccontextmanager
    async def _ensuring(self) -> AsyncIterator[tuple[SharedClusterReconciler, VertexRayClusterAsyncHook]]:
        from airflow_provider_vertex_ray.core.cluster.name import validate_project
        from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
        from airflow_provider_vertex_ray.core.sharing.ensure import SharedClusterReconciler
        from airflow_provider_vertex_ray.triggers.idle import opened

        given = self.arguments
        spec = ClusterSpec.from_value(given["spec"])
        wanted = ClusterRequest(self._shared_name, spec.spec_hash(), given["on_spec_mismatch"], given["max_age"])
        async with opened(given) as (hook, store), hook.session() as (transport, project):
            yield (
                SharedClusterReconciler(
                    transport,
                    validate_project(project),
                    given["location"],
                    wanted,
                    spec,
                    given["labels"] or {},
                    store,
                    given["lease_owner"],
                    given["lease_ttl"],
                    notify=self.log.info,
                ),
                hook,
            )

    def _check_budget(self, cluster: Cluster) -> None:
        """Refuse a cluster that has cost too much.

        :raises BudgetExceededError: It has.
        """
        if self.arguments["max_cost"] is not None:
            from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
            from airflow_provider_vertex_ray.core.cost.pricing import check_budget

            table = PriceTable.from_value(self.arguments["prices"])
            check_budget(cluster, self.arguments["max_cost"], table, time.time())

    async def _answers(self, hook: VertexRayClusterAsyncHook, cluster: Cluster) -> bool:
        """Whether the dashboard answers.

        :raises DashboardNotReadyError: Not for ``dashboard_timeout`` seconds.
        """
        if self._running is None or self._running[0] != cluster.name:
            self._running = (cluster.name, time.time())
        if await hook.dashboard_answers(cluster):
            return True
        waited = time.time() - self._running[1]
        if waited > self.arguments["dashboard_timeout"]:
            raise DashboardNotReadyError(
                f"Cluster {cluster.cluster_id} is RUNNING, but its dashboard did not answer for {waited:.0f} s.",
                {"cluster": cluster.name},
            )
        return False

    def _result(self, found: Plan, cluster: Cluster) -> dict[str, Any]:
        given = self.arguments
        self.log.info("Cluster %s is RUNNING, and its dashboard answers", cluster.cluster_id)
        return {
            **cluster.summary(),
            "shared_name": self._shared_name,
            "generation": found.number,
            "lease_owner": given["lease_owner"] if given["lease_uri"] else None,
        }

    def _too_late(
        self, ensuring: SharedClusterReconciler, found: Plan | None
    ) -> ProvisioningTimeoutError | ClusterNotFoundError:
        cluster = found.cluster if found else None
        state = f"cluster {cluster.cluster_id} is {cluster.state.value}" if cluster else "there is no cluster"
        made_here = found is not None and found.number in ensuring.made
        details = {"cluster": cluster.name, "made_here": made_here} if cluster else {}
        return ProvisioningTimeoutError(
            f"The shared cluster {self._shared_name!r} was not ready in time; {state}.", details
        )
