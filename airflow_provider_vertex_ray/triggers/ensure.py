"""Trigger that waits for a shared cluster, whoever creates it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.core.polling import TRANSIENT_ERRORS, Backoff, poll_until
from airflow_provider_vertex_ray.core.sharing.generations import ClusterRequest, Plan, Step
from airflow_provider_vertex_ray.core.sharing.regions import CAPACITY_ERRORS, choose_location
from airflow_provider_vertex_ray.errors import (
    InvalidArgumentError,
    LeaseStoreError,
    LeaseStoreUnavailableError,
    ProvisioningTimeoutError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers.base import WaitTrigger
from airflow_provider_vertex_ray.triggers.cluster import dashboard_not_ready
from airflow_provider_vertex_ray.triggers.cluster_deletion import Leftovers
from airflow_provider_vertex_ray.triggers.progress import CreationProgress

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.cluster.state import Cluster
    from airflow_provider_vertex_ray.core.http.transport import Transport
    from airflow_provider_vertex_ray.core.sharing.ensure import SharedClusterReconciler
    from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls


class VertexRayClusterEnsureTrigger(WaitTrigger):
    """Ensure a shared cluster: wait until it is RUNNING, its dashboard answers, and this task holds its lease.

    The result is ``Cluster.summary()`` with ``shared_name``, ``generation`` and ``lease_owner``. All steps are done
    here, including the creation, because the situation changes during the wait: the cluster that was found may be
    deleted, fail, or become too old. An error about a generation that this trigger created has ``made_here`` in its
    details.

    :param shared_name: the shared name of the cluster's generations.
    :param project_id: Google Cloud project; None for the connection's.
    :param location: region of the cluster.
    :param locations: regions in the order of preference; default: only ``location``. After a stockout or an exceeded
        quota in one of them, the next one is tried.
    :param spec: ``ClusterSpec.to_dict()`` for a new generation.
    :param labels: additional labels for a new generation.
    :param on_spec_mismatch: what to do if the live cluster has another spec: ``attach``, ``fail`` or ``replace``.
    :param max_age: seconds after which a generation gets no new work; None for no limit.
    :param lease_uri: folder in Cloud Storage with the leases; None for no leases.
    :param lease_ttl: seconds for which the lease is held.
    :param lease_owner: owner of the lease.
    :param lease_scope: the part of the owner that holds the lease, such as a task group.
    :param shares_lease: whether other tasks hold the cluster by the same owner and scope, so that this wait releases
        nothing.
    :param max_cost: cost, in the currency of ``prices``, above which the cluster gets no new work; None for no limit.
    :param prices: a price table as JSON, for ``max_cost`` and the cost in the log.
    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param poll_interval: seconds between two polls at most; the first ones follow each other faster.
    :param deadline: Unix time at which the wait fails; None for no limit.
    :param dashboard_timeout: seconds that the dashboard may take to answer after RUNNING.
    :param passthrough: JSON that is returned in the event unchanged.
    :raises LeaseStoreError: the leases cannot be used; raised before a cluster is created.
    :raises ClusterSpecMismatchError: the live cluster has another spec, and ``on_spec_mismatch`` is ``fail``.
    :raises BudgetExceededError: the live cluster has cost more than ``max_cost``.
    :raises QuotaExceededError: the quota does not suffice for a new generation.
    :raises StockoutError: the region has no capacity for a new generation at the moment.
    :raises NetworkExhaustedError: the network has no free IP range for a new generation.
    :raises ClusterFailedError: a new generation failed for another reason.
    :raises ProvisioningTimeoutError: the cluster was not ready before the deadline.
    :raises DashboardNotReadyError: the cluster is RUNNING, but its dashboard did not answer in time.
    """

    def __init__(
        self,
        *,
        shared_name: str,
        spec: dict[str, Any],
        location: str,
        locations: Sequence[str] | None = None,
        project_id: str | None = None,
        labels: dict[str, str] | None = None,
        on_spec_mismatch: str = "attach",
        max_age: float | None = None,
        lease_uri: str | None = None,
        lease_ttl: float = 900.0,
        lease_owner: str = "",
        lease_scope: str = "",
        shares_lease: bool = False,
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
            locations=list(locations or [location]),
            project_id=project_id,
            labels=labels,
            on_spec_mismatch=on_spec_mismatch,
            max_age=max_age,
            lease_uri=lease_uri,
            lease_ttl=lease_ttl,
            lease_owner=lease_owner,
            lease_scope=lease_scope,
            shares_lease=shares_lease,
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
        self._backoff = Backoff(poll_interval)
        self._running: tuple[str, float] | None = None
        self._trouble = ""
        self._reconcilers: dict[str, SharedClusterReconciler] = {}
        self._latest: SharedClusterReconciler | None = None
        self._exhausted: dict[str, VertexRayError] = {}
        # Another run may make a cluster with the id of one that is gone.
        self._leftovers = Leftovers((), self.log, labels)
        self._progress = CreationProgress(self.log, prices)
        self._problem = ""

    async def wait(self) -> dict[str, Any]:
        """Find, wait for, or create the cluster, and acquire its lease."""
        from airflow_provider_vertex_ray.core.cluster.name import validate_project
        from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
        from airflow_provider_vertex_ray.core.sharing.ensure import SharedClusterReconciler
        from airflow_provider_vertex_ray.core.sharing.lease import HolderId
        from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
        from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

        given = self.arguments
        spec = ClusterSpec.from_value(given["spec"])
        request = ClusterRequest(self._shared_name, spec.spec_hash(), given["on_spec_mismatch"], given["max_age"])
        hook = ClusterCalls(given["gcp_conn_id"], given["impersonation_chain"], given["project_id"], given["location"])
        async with hook.session() as (transport, project):
            for location in given["locations"]:
                self._reconcilers[location] = SharedClusterReconciler(
                    transport,
                    validate_project(project),
                    location,
                    request,
                    spec,
                    given["labels"] or {},
                    LeaseStore(transport, given["lease_uri"]) if given["lease_uri"] else None,
                    HolderId(given["lease_owner"], given["lease_scope"]),
                    given["lease_ttl"],
                    given["shares_lease"],
                    notify=self.log.info,
                )
            result: dict[str, Any] | None = None
            try:
                result = await poll_until(
                    lambda: self._look_in_regions(transport, hook),
                    backoff=self._backoff,
                    deadline=self._deadline,
                    timed_out=self._timed_out,
                    on_unreadable=self.on_unreadable,
                    transient=(*TRANSIENT_ERRORS, LeaseStoreUnavailableError),
                    # A cluster whose creation was cut off would be lost track of, and bill.
                    cut_off=False,
                )
                return result
            finally:
                if result is None:
                    for reconciler in self._reconcilers.values():
                        await reconciler.release_lease()

    async def _look_in_regions(self, transport: Transport, hook: ClusterCalls) -> dict[str, Any] | None:
        """Look in the region that is to be used; after a lack of capacity there, the next look is in another one."""
        from airflow_provider_vertex_ray.core.cluster.client import ClustersApi

        await self._leftovers.step(hook)
        project = next(iter(self._reconcilers.values())).project
        location = self._creating_in() or await choose_location(
            ClustersApi(transport), project, list(self._reconcilers), self._shared_name, self._exhausted
        )
        reconciler = self._latest = self._reconcilers[location]
        try:
            return await self._look(reconciler, hook)
        except CAPACITY_ERRORS as error:
            self._exhausted[location] = error
            remaining = self._leftovers.remaining
            if len(self._exhausted) == len(self._reconcilers):
                error.details.update({"leftovers": remaining} if remaining else {})
                raise
            if error.details.get("made_here"):
                self._leftovers.add(error.details["cluster"])
            reconciler.made.clear()
            self.log.warning("%s\nTrying another region", error)
            self._backoff.reset()
            return None

    def _creating_in(self) -> str | None:
        """Return the region in which this trigger is creating a generation, which need not be listed yet."""
        return next(
            (location for location, each in self._reconcilers.items() if each.made and location not in self._exhausted),
            None,
        )

    async def _look(self, reconciler: SharedClusterReconciler, hook: ClusterCalls) -> dict[str, Any] | None:
        found = await reconciler.step()
        if found.step is Step.CREATE and found.number in reconciler.made and seconds_left(self._deadline) > 0:
            self._backoff.reset()
            found = await reconciler.step()
        self._trouble = ""
        if found.cluster is not None:
            self._progress.note(found.cluster)
        if found.step is not Step.ATTACH or found.cluster is None:
            return None
        try:
            self._check_budget(found.cluster)
            ready = await self._dashboard_ready(hook, found.cluster)
        except VertexRayError as error:
            # The task deletes what it has made, and cannot use.
            error.details["made_here"] = found.number in reconciler.made
            raise
        if not ready or not await reconciler.confirm(found):
            return None
        await reconciler.release_elsewhere(found)
        await reconciler.clean_up(found)
        return self._result(found, found.cluster)

    def on_unreadable(self, error: VertexRayError, seconds: float) -> None:
        """Log that a poll got no usable answer, from Vertex AI or from the lease store."""
        self._trouble = error.message
        if isinstance(error, LeaseStoreError) and seconds > 0:
            self.log.warning("Could not access the lease store; retrying in %.1f s: %s", seconds, error.message)
        else:
            super().on_unreadable(error, seconds)

    def _check_budget(self, cluster: Cluster) -> None:
        """Validate that the cluster has not cost more than ``max_cost``.

        :raises BudgetExceededError: it has cost more.
        :raises VertexRayError: something of it has no price; the operator checked the prices of its own spec only.
        """
        if self.arguments["max_cost"] is not None:
            from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
            from airflow_provider_vertex_ray.core.cost.pricing import check_budget

            table = PriceTable.from_value(self.arguments["prices"])
            try:
                check_budget(cluster, self.arguments["max_cost"], table, time.time())
            except InvalidArgumentError as error:
                message = f"The cost of cluster {cluster.cluster_id} is unknown. {error}"
                raise VertexRayError(message, {"cluster": cluster.name}) from error

    async def _dashboard_ready(self, hook: ClusterCalls, cluster: Cluster) -> bool:
        """Check whether the dashboard answers.

        :raises DashboardNotReadyError: it has not answered for ``dashboard_timeout`` seconds.
        """
        if self._running is None or self._running[0] != cluster.name:
            self._running = (cluster.name, time.time())
        problem = await hook.dashboard_problem(cluster)
        if problem is None:
            return True
        waited = time.time() - self._running[1]
        if waited > self.arguments["dashboard_timeout"]:
            raise dashboard_not_ready(cluster, waited, problem)
        if problem != self._problem:
            self._problem = problem
            self.log.info("The dashboard of cluster %s is not ready yet: %s", cluster.cluster_id, problem)
        return False

    def _result(self, found: Plan, cluster: Cluster) -> dict[str, Any]:
        given = self.arguments
        self._progress.ready(cluster)
        return {
            **cluster.summary(),
            "shared_name": self._shared_name,
            "generation": found.number,
            "lease_owner": given["lease_owner"] if given["lease_uri"] else None,
            **({"leftovers": remaining} if (remaining := self._leftovers.remaining) else {}),
        }

    def _timed_out(self) -> ProvisioningTimeoutError:
        reconciler = self._latest
        found = reconciler.latest if reconciler else None
        made_here = reconciler is not None and found is not None and found.number in reconciler.made
        cluster = found.cluster if found else None
        if cluster is not None:
            state = f"cluster {cluster.cluster_id} is {cluster.state.value}"
        elif found is not None and made_here:
            state = f"its generation {found.number} was requested, but cannot be found"
        else:
            state = "it has no cluster" if found else "its clusters could not be read"
        if self._trouble:
            state += f"; the last poll failed: {self._trouble}"
        details: dict[str, Any] = {"cluster": cluster.name, "made_here": made_here} if cluster else {}
        if remaining := self._leftovers.remaining:
            details["leftovers"] = remaining
        return ProvisioningTimeoutError(
            f"Timed out waiting for the shared cluster {self._shared_name!r} to become ready; {state.rstrip('.')}.",
            details,
        )
