"""Triggers that wait for clusters to become idle, and delete the unused ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.deadlines import duration
from airflow_provider_vertex_ray.core.polling import TRANSIENT_ERRORS, Backoff, pause, poll_until
from airflow_provider_vertex_ray.core.sharing.activity import Activity
from airflow_provider_vertex_ray.core.sharing.idle_policy import (
    Decision,
    Policy,
    Unreadable,
    Verdict,
    superseded_among,
    verdict,
)
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    LeaseStoreError,
    OperationTimeoutError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers.base import WaitTrigger
from airflow_provider_vertex_ray.triggers.cluster import ClusterTrigger

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete
    from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
    from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

MOST_REPORTED = 100
"""Maximum number of clusters in the event, which is stored in Airflow's database."""

CHECKS_AT_ONCE = 8
"""Number of clusters that are checked concurrently: a dead dashboard takes minutes to give up on."""


class VertexRayReaperTrigger(WaitTrigger):
    """Delete unused clusters, and wait until they are gone.

    The result contains ``clusters`` (a list with ``cluster_id``, ``name``, ``state``, ``action``, ``why``,
    ``idle_seconds``, ``age_seconds`` and ``cost_so_far``), ``seen`` (the number of clusters), ``deleted`` (their ids)
    and ``unreadable`` (for each cluster whose use could not be read, since when, and when last, as Unix times).

    :param project_id: Google Cloud project; None for the connection's.
    :param location: region of the clusters.
    :param idle_for: seconds without use after which a cluster is deleted.
    :param max_age: seconds after which a cluster is deleted once it is unused for a while; None for no limit.
    :param unreadable_for: seconds after which a cluster whose use could not be read all the time is deleted; None for
        never.
    :param unreadable: the entry ``unreadable`` of the previous result.
    :param labels: consider only clusters with these labels; an empty value matches any.
    :param dry_run: whether to report only what would be deleted.
    :param drain_timeout: seconds to wait for clusters that are too old or superseded, but were used a short time ago.
    :param lease_uri: folder in Cloud Storage with the leases; None for no leases.
    :param require_leases: whether the wait fails at once if the leases cannot be read, or not written; otherwise it
        warns and deletes nothing.
    :param by: who deletes, as it is written into the leases.
    :param prices: a price table as JSON; None to report the cost in node-hours only.
    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param poll_interval: seconds between two polls.
    :param deadline: Unix time at which the wait for the deletions fails; None for no limit.
    :param passthrough: JSON that is returned in the event unchanged.
    :raises LeaseStoreError: the leases cannot be read, and ``require_leases`` is set; or a lease cannot be closed.
    :raises OperationTimeoutError: not all clusters were deleted before the deadline.
    :raises VertexRayError: the clusters could not be listed, or one that is unused could not be deleted.
    """

    def __init__(
        self,
        *,
        location: str,
        idle_for: float,
        project_id: str | None = None,
        max_age: float | None = None,
        unreadable_for: float | None = None,
        unreadable: dict[str, list[float]] | None = None,
        labels: dict[str, str] | None = None,
        dry_run: bool = False,
        drain_timeout: float = 0.0,
        lease_uri: str | None = None,
        require_leases: bool = False,
        by: str = "",
        prices: dict[str, Any] | None = None,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        poll_interval: float = 15.0,
        deadline: float | None = None,
        passthrough: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            location=location,
            idle_for=idle_for,
            project_id=project_id,
            max_age=max_age,
            unreadable_for=unreadable_for,
            unreadable=unreadable,
            labels=labels,
            dry_run=dry_run,
            drain_timeout=drain_timeout,
            lease_uri=lease_uri,
            require_leases=require_leases,
            by=by,
            prices=prices,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            poll_interval=poll_interval,
            deadline=deadline,
            passthrough=passthrough,
        )
        self._policy = Policy(idle_for, max_age, unreadable_for)
        self._poll_interval = poll_interval
        self._deadline = deadline
        self._report: dict[str, dict[str, Any]] = {}
        self._unreadable: dict[str, Unreadable] = {}
        self._warned: set[str] = set()
        self._failed: dict[str, VertexRayError] = {}

    async def wait(self) -> dict[str, Any]:
        """Check all clusters, delete the unused ones, drain the outdated ones, and wait for the deletions."""
        from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete
        from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
        from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

        given = self.arguments
        drain_until = time.time() + given["drain_timeout"]
        hook = ClusterCalls(given["gcp_conn_id"], given["impersonation_chain"], given["project_id"], given["location"])
        async with hook.session() as (transport, _):
            store = LeaseStore(transport, given["lease_uri"]) if given["lease_uri"] else None
            if store is not None:
                await self._check_leases(store)
            deletion = GuardedDelete(transport, store, given["by"] or "the reaper")
            while True:
                every = await poll_until(
                    hook.list_clusters,
                    backoff=Backoff(self._poll_interval),
                    deadline=self._deadline,
                    timed_out=self._unlisted,
                    on_unreadable=self.on_unreadable,
                )
                pending = await self._delete_unused(every, deletion)
                if given["dry_run"] or not pending or time.time() >= drain_until:
                    break
                await pause(self._poll_interval, drain_until)
            await self._wait_until_gone(hook)
        if self._failed:
            # Otherwise nobody would notice a reaper that may not delete anything.
            raise next(iter(self._failed.values()))
        clusters = list(self._report.values())
        deleted = [each["cluster_id"] for each in clusters if each["action"] == "deleted"]
        unreadable = {name: state.to_json() for name, state in list(self._unreadable.items())[:MOST_REPORTED]}
        return {
            "clusters": clusters[:MOST_REPORTED],
            "seen": len(clusters),
            "deleted": deleted,
            "unreadable": unreadable,
        }

    def _unlisted(self) -> OperationTimeoutError:
        return OperationTimeoutError(
            f"Timed out waiting for a list of the clusters in {self.arguments['location']}; none was deleted."
        )

    async def _check_leases(self, store: LeaseStore) -> None:
        """Warn that nothing can be deleted while the leases cannot be read.

        :raises LeaseStoreError: they cannot be read or, to close them, written, and ``require_leases`` is set.
        """
        try:
            if self.arguments["require_leases"] and not self.arguments["dry_run"]:
                await store.check()
            else:
                await store.check_readable()
        except LeaseStoreError as error:
            if self.arguments["require_leases"]:
                raise
            self.log.error(
                "The leases in %s cannot be read, so every cluster counts as in use: none is deleted, and all incur "
                "charges. Set require_leases to fail instead. %s",
                store.uri,
                error,
            )

    async def _delete_unused(self, every: list[Cluster], deletion: GuardedDelete) -> bool:
        """Check every cluster once, several at a time, and delete the unused ones.

        :return: whether some are still to be deleted.
        """
        superseded = superseded_among(every)
        chosen = [
            cluster
            for cluster in every
            if has_labels(cluster, self.arguments["labels"])
            and self._report.get(cluster.name, {}).get("action") != "deleted"
        ]
        room = asyncio.Semaphore(CHECKS_AT_ONCE)

        async def check(cluster: Cluster) -> tuple[Verdict, Activity, bool]:
            async with room:
                try:
                    return await self._delete_if_unused(cluster, deletion, cluster.name in superseded)
                except Exception as error:  # one cluster must not keep the others from being checked
                    self.log.exception("Could not check cluster %s", cluster.cluster_id)
                    why = f"it could not be checked: {type(error).__name__}"
                    return Verdict(Decision.KEEP, why), Activity((why,), unreadable=True), False

        pending = False
        for cluster, found in zip(chosen, await asyncio.gather(*map(check, chosen)), strict=True):
            decided, activity, deleted = found
            pending = pending or decided.decision is Decision.DRAIN
            action = {Decision.KEEP: "kept", Decision.DRAIN: "kept", Decision.DELETE: "would delete"}[decided.decision]
            self._record(cluster, activity, "deleted" if deleted else action, decided.why)
        return pending

    def _state_of(self, cluster: Cluster, activity: Activity) -> Unreadable | None:
        """Note whether the use of a cluster can be read, and return since when it cannot."""
        if not activity.unreadable:
            self._unreadable.pop(cluster.name, None)
            return None
        before = self._unreadable.get(cluster.name) or Unreadable.of(
            (self.arguments["unreadable"] or {}).get(cluster.name)
        )
        state = Unreadable.after(before, time.time(), self._policy.unreadable_for)
        self._unreadable[cluster.name] = state
        if cluster.name not in self._warned:
            self._warned.add(cluster.name)
            limit = self._policy.unreadable_for
            self.log.warning(
                "The use of cluster %s cannot be read, for %s now. It counts as in use and may incur charges; %s: %s",
                cluster.cluster_id,
                duration(state.seen - state.since),
                f"it is deleted after {duration(limit)}" if limit is not None else "set unreadable_for to delete it",
                "; ".join(activity.reasons),
            )
        return state

    async def _delete_if_unused(
        self, cluster: Cluster, deletion: GuardedDelete, superseded: bool
    ) -> tuple[Verdict, Activity, bool]:
        from airflow_provider_vertex_ray.core.sharing.activity import read_activity

        last: list[Verdict] = []

        def judge(now_seen: Cluster, activity: Activity) -> str | None:
            state = self._state_of(now_seen, activity)
            last.append(verdict(now_seen, activity, self._policy, time.time(), superseded=superseded, unreadable=state))
            return last[-1].why if last[-1].decision is Decision.DELETE else None

        if self.arguments["dry_run"]:
            activity = await read_activity(deletion.transport, cluster, deletion.store, time.time())
            judge(cluster, activity)
            return last[-1], activity, False
        self._failed.pop(cluster.name, None)
        try:
            outcome = await deletion.delete_if_unused(cluster, judge)
        except VertexRayError as error:
            self._note_failure(cluster, error)
            return Verdict(Decision.KEEP, f"it could not be deleted: {error.message}"), Activity(()), False
        if outcome.deleted:
            return Verdict(Decision.DELETE, outcome.why), outcome.activity, True
        if outcome.error is not None:
            self._note_failure(cluster, outcome.error)
        # A cluster that could not be deleted now may be deleted in the next pass.
        kept = (
            last[-1]
            if last[-1].decision is not Decision.DELETE
            else Verdict(Decision.DRAIN, f"{last[-1].why}, but {outcome.why}")
        )
        return kept, outcome.activity, False

    def _note_failure(self, cluster: Cluster, error: VertexRayError) -> None:
        """Log that an unused cluster could not be deleted; the task fails once the others are done."""
        self._failed[cluster.name] = error
        self.log.error(
            "Could not delete cluster %s, which nobody uses; it may still incur charges: %s", cluster.cluster_id, error
        )

    def _record(self, cluster: Cluster, activity: Activity, action: str, why: str) -> None:
        now = time.time()
        known = self._report.get(cluster.name)
        self._report[cluster.name] = {
            "cluster_id": cluster.cluster_id,
            "name": cluster.name,
            "state": cluster.state.value,
            "action": action,
            "why": why,
            "idle_seconds": None if activity.busy else round(activity.idle_seconds(now), 1),
            "age_seconds": None if cluster.created is None else round(now - cluster.created, 1),
            "cost_so_far": self._cost(cluster, now),
        }
        if known is None or (known["action"], known["why"]) != (action, why):
            age = "" if cluster.created is None else f", {duration(now - cluster.created)} old"
            self.log.info("Cluster %s (%s%s): %s: %s", cluster.cluster_id, cluster.state.value, age, action, why)

    def _cost(self, cluster: Cluster, now: float) -> dict[str, Any]:
        from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
        from airflow_provider_vertex_ray.core.cost.pricing import cost_so_far

        prices = self.arguments["prices"]
        return cost_so_far(cluster, now, PriceTable.from_value(prices) if prices else None)

    async def _wait_until_gone(self, hook: ClusterCalls) -> None:
        waiting = {name for name, each in self._report.items() if each["action"] == "deleted"}

        async def look() -> bool | None:
            for name in sorted(waiting):
                try:
                    await hook.get_cluster(name)
                except ClusterNotFoundError:
                    waiting.discard(name)
                    self.log.info("Cluster %s is deleted", name)
                except TRANSIENT_ERRORS as error:
                    self.log.warning("Could not read the state of cluster %s; retrying: %s", name, error.message)
            return None if waiting else True

        def timed_out() -> OperationTimeoutError:
            return OperationTimeoutError(
                f"Timed out waiting for the deletion of {', '.join(sorted(waiting))}; it continues.",
                {"clusters": sorted(waiting)},
            )

        await poll_until(
            look,
            backoff=Backoff.constant(self._poll_interval),
            deadline=self._deadline,
            timed_out=timed_out,
            on_unreadable=self.on_unreadable,
        )


class VertexRayClusterIdleTrigger(ClusterTrigger):
    """Wait until a cluster has been idle for a while; the result is ``Cluster.summary()`` with ``idle_seconds``.

    :param idle_for: seconds for which the cluster must have been idle.
    :param lease_uri: folder in Cloud Storage with the leases; None for no leases.
    :raises ClusterNotFoundError: the cluster does not exist.
    :raises OperationTimeoutError: the cluster was not idle before the deadline.
    """

    def __init__(self, *, idle_for: float, lease_uri: str | None = None, **arguments: Any) -> None:
        super().__init__(idle_for=idle_for, lease_uri=lease_uri, **arguments)
        self._idle_for = idle_for
        self._last_reasons = ""

    async def look(self, hook: ClusterCalls) -> dict[str, Any] | None:
        """Read the cluster's jobs and leases."""
        from airflow_provider_vertex_ray.core.sharing.activity import read_activity
        from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore

        cluster = (await hook.get_cluster(self.cluster_name)).require_ray()
        uri = self.arguments["lease_uri"]
        async with hook.session() as (transport, _):
            store = LeaseStore(transport, uri) if uri else None
            activity = await read_activity(transport, cluster, store, time.time())
        idle = activity.idle_seconds(time.time())
        reasons = "; ".join(activity.reasons)
        if reasons and reasons != self._last_reasons:
            self.log.info("Cluster %s is in use: %s", self.cluster_id, reasons)
        self._last_reasons = reasons
        if activity.busy or idle < self._idle_for:
            return None
        return {**cluster.summary(), "idle_seconds": round(idle, 1)}

    def timed_out(self) -> VertexRayError:
        """Tell who uses the cluster."""
        why = f"it is in use: {self._last_reasons}" if self._last_reasons else "it was used recently"
        return OperationTimeoutError(f"Timed out waiting for cluster {self.cluster_id} to become idle; {why}.")


def has_labels(cluster: Cluster, labels: dict[str, str] | None) -> bool:
    """Check whether a cluster has all of these labels; an empty value matches any."""
    return all(
        key in cluster.labels and (not value or cluster.labels[key] == value) for key, value in (labels or {}).items()
    )
