"""Waiting for clusters to be idle, and deleting those that nobody uses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.deadlines import seconds_left
from airflow_provider_vertex_ray.core.sharing.activity import Activity
from airflow_provider_vertex_ray.core.sharing.idle_policy import (
    Decision,
    Policy,
    Verdict,
    duration,
    superseded_among,
    verdict,
)
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    OperationTimeoutError,
    RateLimitedError,
    ServiceUnavailableError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers.base import WaitTrigger, pause
from airflow_provider_vertex_ray.triggers.cluster import ClusterTrigger

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete
    from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook

MOST_REPORTED = 100
"""Clusters in the event: it is kept in Airflow's database."""


class VertexRayReaperTrigger(WaitTrigger):
    """Deletes the clusters that nobody uses, and waits until they are gone.

    The result has ``clusters`` (a list: ``cluster_id``, ``name``, ``state``, ``action``, ``why``, ``idle_seconds``,
    ``age_seconds``, ``cost_so_far``), ``seen`` (how many) and ``deleted`` (their ids).

    :param project_id: Project; None: the connection's.
    :param location: Region.
    :param idle_for: Seconds without use after which a cluster is deleted.
    :param max_age: Seconds after which a cluster is deleted as soon as nobody uses it; None: no limit.
    :param labels: Only clusters with these labels; an empty value stands for any.
    :param dry_run: Whether only to say what would be done.
    :param drain_timeout: Seconds for which the end of the use of clusters that are too old or superseded is waited for.
    :param lease_uri: Where leases are kept; None: nowhere.
    :param by: Who deletes.
    :param prices: A price table's JSON; None: the cost is given in node-hours only.
    :param poll_interval: Seconds between two looks.
    :param deadline: Unix time at which the wait for the deletions ends with an error.

    Errors: OperationTimeoutError, and what the service answers to the list.
    """

    def __init__(
        self,
        *,
        location: str,
        idle_for: float,
        project_id: str | None = None,
        max_age: float | None = None,
        labels: dict[str, str] | None = None,
        dry_run: bool = False,
        drain_timeout: float = 0.0,
        lease_uri: str | None = None,
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
            labels=labels,
            dry_run=dry_run,
            drain_timeout=drain_timeout,
            lease_uri=lease_uri,
            by=by,
            prices=prices,
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            poll_interval=poll_interval,
            deadline=deadline,
            passthrough=passthrough,
        )
        self._policy = Policy(idle_for, max_age)
        self._poll_interval = poll_interval
        self._deadline = deadline
        self._report: dict[str, dict[str, Any]] = {}

    async def wait(self) -> dict[str, Any]:
        """Look at all, delete what is to go, drain, and wait for the end."""
        drain_until = time.time() + self.arguments["drain_timeout"]
        async with self._opened() as (hook, deletion):
            while True:
                pending = await self._pass(hook, deletion)
                if self.arguments["dry_run"] or not pending or time.time() >= drain_until:
                    break
                await pause(self._poll_interval, drain_until)
            await self._until_gone(hook)
        clusters = list(self._report.values())
        deleted = [each["cluster_id"] for each in clusters if each["action"] == "deleted"]
        return {"clusters": clusters[:MOST_REPORTED], "seen": len(clusters), "deleted": deleted}

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[VertexRayClusterAsyncHook, GuardedDelete]]:
        from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete

        given = self.arguments
        async with opened(given) as (hook, store), hook.session() as (transport, _):
            yield hook, GuardedDelete(transport, store, given["by"] or "the reaper")

    async def _pass(self, hook: VertexRayClusterAsyncHook, deletion: GuardedDelete) -> bool:
        """Look at every cluster once; whether some are still to go."""
        every = await hook.list_clusters()
        superseded = superseded_among(every)
        pending = False
        for cluster in every:
            known = self._report.get(cluster.name)
            if not has_labels(cluster, self.arguments["labels"]) or (known and known["action"] == "deleted"):
                continue
            said, activity, deleted = await self._one(cluster, deletion, cluster.name in superseded)
            pending = pending or said.decision is Decision.DRAIN
            action = {Decision.KEEP: "kept", Decision.DRAIN: "kept", Decision.DELETE: "would delete"}[said.decision]
            self._note(cluster, activity, "deleted" if deleted else action, said.why, known)
        return pending

    async def _one(self, cluster: Cluster, deletion: GuardedDelete, superseded: bool) -> tuple[Verdict, Activity, bool]:
        from airflow_provider_vertex_ray.core.sharing.activity import read_activity

        last: list[Verdict] = []

        def judge(now_seen: Cluster, activity: Activity) -> str | None:
            last.append(verdict(now_seen, activity, self._policy, time.time(), superseded=superseded))
            return last[-1].why if last[-1].decision is Decision.DELETE else None

        if self.arguments["dry_run"]:
            activity = await read_activity(deletion.transport, cluster, deletion.store, time.time())
            judge(cluster, activity)
            return last[-1], activity, False
        try:
            outcome = await deletion.delete_if_unused(cluster, judge)
        except VertexRayError as error:
            return Verdict(Decision.KEEP, f"it could not be deleted: {error.message}"), Activity(()), False
        if outcome.deleted:
            return Verdict(Decision.DELETE, outcome.why), outcome.activity, True
        # What was to go and did not, may go with the next pass.
        kept = (
            last[-1]
            if last[-1].decision is not Decision.DELETE
            else Verdict(Decision.DRAIN, f"{last[-1].why}, but {outcome.why}")
        )
        return kept, outcome.activity, False

    def _note(self, cluster: Cluster, activity: Activity, action: str, why: str, known: dict[str, Any] | None) -> None:
        now = time.time()
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
            self.log.info("%s (%s%s): %s: %s", cluster.cluster_id, cluster.state.value, age, action, why)

    def _cost(self, cluster: Cluster, now: float) -> dict[str, Any]:
        from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
        from airflow_provider_vertex_ray.core.cost.pricing import cost_so_far

        prices = self.arguments["prices"]
        return cost_so_far(cluster, now, PriceTable.from_value(prices) if prices else None)

    async def _until_gone(self, hook: VertexRayClusterAsyncHook) -> None:
        waiting = {name for name, each in self._report.items() if each["action"] == "deleted"}
        while waiting:
            for name in sorted(waiting):
                try:
                    await hook.get_cluster(name)
                except ClusterNotFoundError:
                    waiting.discard(name)
                    self.log.info("Cluster %s is gone", name)
                except (ServiceUnavailableError, RateLimitedError) as error:
                    self.log.warning("The service can not be read for the moment: %s", error)
            if waiting and seconds_left(self._deadline) <= 0:
                raise OperationTimeoutError(
                    f"{', '.join(sorted(waiting))} could not be seen to be gone in time; the deletion goes on.",
                    {"clusters": sorted(waiting)},
                )
            if waiting:
                await pause(self._poll_interval, self._deadline)


class VertexRayClusterIdleTrigger(ClusterTrigger):
    """Waits until nobody has used a cluster for some time; the result is ``Cluster.summary()`` with ``idle_seconds``.

    :param idle_for: Seconds.
    :param lease_uri: Where leases are kept; None: nowhere.

    Errors: ClusterNotFoundError, OperationTimeoutError.
    """

    def __init__(self, *, idle_for: float, lease_uri: str | None = None, **arguments: Any) -> None:
        super().__init__(idle_for=idle_for, lease_uri=lease_uri, **arguments)
        self._idle_for = idle_for
        self._said = ""

    async def look(self, hook: VertexRayClusterAsyncHook) -> dict[str, Any] | None:
        """Ask the cluster and the store."""
        from airflow_provider_vertex_ray.core.sharing.activity import read_activity

        cluster = (await hook.get_cluster(self.cluster_name)).require_ray()
        async with opened(self.arguments) as (_, store), hook.session() as (transport, _):
            activity = await read_activity(transport, cluster, store, time.time())
        idle = activity.idle_seconds(time.time())
        said = "; ".join(activity.reasons)
        if said and said != self._said:
            self.log.info("Cluster %s is in use: %s", self.cluster_id, said)
        self._said = said
        if activity.busy or idle < self._idle_for:
            return None
        return {**cluster.summary(), "idle_seconds": round(idle, 1)}

    async def too_late(self, hook: VertexRayClusterAsyncHook) -> VertexRayError:
        """Says who uses it."""
        why = f"it is in use: {self._said}" if self._said else "it was used a short time ago"
        return OperationTimeoutError(f"Cluster {self.cluster_id} was not idle in time; {why}.")


@contextlib.asynccontextmanager
async def opened(given: dict[str, Any]) -> AsyncIterator[tuple[VertexRayClusterAsyncHook, LeaseStore | None]]:
    """The hook, and the store of leases where there is one."""
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
    from airflow_provider_vertex_ray.hooks.lease import VertexRayLeaseAsyncHook

    connection = (given["gcp_conn_id"], given["impersonation_chain"])
    hook = VertexRayClusterAsyncHook(*connection, given.get("project_id"), given.get("location"))
    if not given["lease_uri"]:
        yield hook, None
        return
    async with VertexRayLeaseAsyncHook(*connection).store(given["lease_uri"]) as store:
        yield hook, store


def has_labels(cluster: Cluster, labels: dict[str, str] | None) -> bool:
    """Whether a cluster carries all of these labels; an empty value stands for any."""
    return all(
        key in cluster.labels and (not value or cluster.labels[key] == value) for key, value in (labels or {}).items()
    )
