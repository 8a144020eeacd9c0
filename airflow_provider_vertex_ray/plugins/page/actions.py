"""Actions of the page: stop a job, delete a cluster. They need the permission to trigger the DAG, and are audited."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.sharing.activity import Activity
from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.plugins.page.access import Viewer, check_same_site, viewer_of
from airflow_provider_vertex_ray.plugins.page.airflow import Audit
from airflow_provider_vertex_ray.plugins.page.owners import owner_of_job
from airflow_provider_vertex_ray.plugins.page.reader import ClusterFacts
from airflow_provider_vertex_ray.plugins.page.row import ClusterRow, cluster_row
from airflow_provider_vertex_ray.plugins.page.service import PageService
from airflow_provider_vertex_ray.plugins.page.sources import Source
from airflow_provider_vertex_ray.plugins.page.visible import dag_of_holder

READ_SECONDS = 15.0
"""Seconds for reading the cluster and its current users."""

WAIT_SECONDS = 25.0
"""Seconds for which the browser waits; a longer action continues, and the audit log records its outcome."""

STOP_READ_SECONDS = 1.0
"""Seconds for reading the job that is stopped; after that, what is known of it counts.

A process that knows nothing of it yet reads it within ``READ_SECONDS``."""

STOP_WAIT_SECONDS = 3.0
"""Seconds for which the browser waits for a stop, so that the stop of a known job is answered within 5 s."""

MOST_AT_ONCE = 4
"""Number of concurrent actions in one API server process."""

CurrentViewer = Annotated[Viewer, Depends(viewer_of)]


@dataclass(frozen=True)
class ActionResult:
    """The outcome of an action.

    :param done: whether the action was carried out.
    :param message: a message for the user and for the audit log.
    """

    done: bool
    message: str


def add_actions(app: FastAPI, service: PageService) -> None:
    """Add the routes that act."""
    actions = Actions(service)
    from_here = [Depends(check_same_site)]
    app.post("/{source}/{cluster_id}/delete", dependencies=from_here)(actions.delete)
    app.post("/{source}/{cluster_id}/stop", dependencies=from_here)(actions.stop)


def needed_dags(row: ClusterRow, lease: Lease | None, *, jobs_too: bool) -> list[str | None]:
    """Return the DAGs that a user must be permitted to trigger to delete a cluster; None stands for all DAGs.

    :param row: the cluster.
    :param lease: the complete lease, including holders whose names the user may not see.
    :param jobs_too: whether to include the DAGs that use the cluster now, which would lose it; all if unknown.
    """
    facts = row.facts
    needed: list[str | None] = [row.owner.dag_id if row.owner else None]
    if jobs_too:
        if not facts.users_known:
            needed.append(None)
        for job in facts.jobs.value or ():
            if not job.status.is_terminal:
                owner = owner_of_job(job)
                needed.append(owner.dag_id if owner else None)
        needed += [dag_of_holder(holder) for holder in (lease.live(time.time()) if lease else ())]
    return needed


class Actions:
    """Handlers of the routes that act."""

    def __init__(self, service: PageService) -> None:
        self._service = service
        self._running: set[concurrent.futures.Future[ActionResult]] = set()

    def delete(
        self,
        viewer: CurrentViewer,
        source: str,
        cluster_id: str,
        confirm: Annotated[str, Body()] = "",
        force: Annotated[bool, Body()] = False,
    ) -> JSONResponse:
        """Delete a cluster.

        :param viewer: the user.
        :param source: key of the connection and region.
        :param cluster_id: id of the cluster.
        :param confirm: the cluster's id, as typed by the user.
        :param force: whether to delete the cluster even if it is in use, or if that is unknown.
        """
        chosen, facts, row = self._find(viewer, source, cluster_id)
        if not viewer.may_act(needed_dags(row, facts.lease.value, jobs_too=force)):
            raise HTTPException(403, f"You need the permission to trigger {_whose(row, force)}.")
        if confirm != cluster_id:
            raise HTTPException(400, "The cluster's name does not match.")
        about = {"cluster": facts.cluster.name, "gcp_conn_id": chosen.gcp_conn_id, "force": force}
        audit = Audit("vertex_ray.delete_cluster", viewer.name, row.owner, about)
        late = "The action is still in progress; check again in a minute. The audit log will have its outcome."
        work = self._delete(chosen, facts.cluster, viewer.name, force)
        return self._carry_out(audit, work, WAIT_SECONDS, late)

    def stop(
        self, viewer: CurrentViewer, source: str, cluster_id: str, job: Annotated[str, Body(embed=True)]
    ) -> JSONResponse:
        """Stop a job.

        :param viewer: the user.
        :param source: key of the connection and region.
        :param cluster_id: id of the cluster.
        :param job: submission id of the job.
        """
        # What a dashboard that hangs said before is enough: neither a job's owner nor its cluster changes.
        chosen, facts, _ = self._find(viewer, source, cluster_id, STOP_READ_SECONDS)
        found = next((each for each in facts.jobs.value or () if each.submission_id == job), None)
        if found is None or found.is_driver:
            raise HTTPException(404, "The job does not exist, or the cluster's jobs cannot be read at the moment.")
        owner = owner_of_job(found)
        if not viewer.may_act([owner.dag_id if owner else None]):
            whose = f"DAG {owner.dag_id}" if owner and viewer.may_read(owner.dag_id) else "all DAGs"
            raise HTTPException(403, f"You need the permission to trigger {whose}.")
        about = {"cluster": facts.cluster.name, "gcp_conn_id": chosen.gcp_conn_id, "job": job}
        audit = Audit("vertex_ray.stop_job", viewer.name, owner, about)
        late = (
            f"The dashboard of cluster {cluster_id} has not answered yet. The request to stop job {job} is repeated "
            "for a while; the audit log will have its outcome, and the table the job's status."
        )
        return self._carry_out(audit, self._stop(chosen, facts.cluster, job), STOP_WAIT_SECONDS, late)

    def _find(
        self, viewer: Viewer, source: str, cluster_id: str, seconds: float = READ_SECONDS
    ) -> tuple[Source, ClusterFacts, ClusterRow]:
        chosen = self._service.sources().find(source)
        facts = None
        if chosen is not None:
            facts, listed = self._service.cluster(chosen, cluster_id, seconds, anew=True)
            if seconds < READ_SECONDS and not (facts.jobs if facts else listed).known:
                # This process has not read it before; the read in progress counts.
                facts, _ = self._service.cluster(chosen, cluster_id, READ_SECONDS - seconds)
        if chosen is None or facts is None:
            raise HTTPException(404, "The cluster does not exist, or it cannot be read at the moment.")
        return chosen, facts, cluster_row(facts, time.time(), viewer.may_read, self._service.owners.find)

    def _carry_out(self, audit: Audit, work: Any, seconds: float, late: str) -> JSONResponse:
        if len(self._running) >= MOST_AT_ONCE:
            work.close()
            audit.outcome("rejected: too many concurrent actions")
            raise HTTPException(429, "Too many concurrent actions; try again in a moment.")
        future = self._service.start(_with_outcome(work))
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        try:
            done = future.result(seconds)
        except concurrent.futures.TimeoutError:
            # In a separate thread, so that the event loop in which the action ends does not wait for the database.
            future.add_done_callback(lambda ended: threading.Thread(target=_log_outcome, args=(audit, ended)).start())
            return JSONResponse({"done": False, "message": late}, 202)
        audit.outcome(done.message)
        return JSONResponse({"done": done.done, "message": done.message}, 200 if done.done else 409)

    async def _stop(self, source: Source, cluster: Cluster, job: str) -> ActionResult:
        opened = await self._service.reader().connections.open(source)
        async with opened.acting() as transport:
            api = JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri or ""))
            stopped = await api.stop(job)
        self._service.reader().outdate(source, cluster)
        return ActionResult(
            True, f"A stop request was sent to job {job}." if stopped else f"Job {job} had already ended."
        )

    async def _delete(self, source: Source, cluster: Cluster, user: str, force: bool) -> ActionResult:
        by = f"{user} on the page Ray clusters"
        why = f"{user} deletes it" + (" although it is in use" if force else "")

        def judge(seen: Cluster, activity: Activity) -> str | None:
            if seen.state is ClusterState.STOPPING:
                return None
            return why if force or not activity.busy else None

        opened = await self._service.reader().connections.open(source)
        async with opened.acting() as transport:
            # Read again, because the name may now belong to a newer cluster than the one on the page.
            now = await ClustersApi(transport).get(cluster.resource_name)
            if now.create_time != cluster.create_time:
                return ActionResult(
                    False, "The cluster was replaced by a newer one with the same name; reload the page."
                )
            store = LeaseStore(transport, source.lease_uri) if source.lease_uri else None
            outcome = await GuardedDelete(transport, store, by).delete_if_unused(now, judge, force=force)
        self._service.reader().outdate(source, cluster)
        if outcome.deleted:
            return ActionResult(True, f"Cluster {cluster.cluster_id} is being deleted.")
        reason = outcome.why or "; ".join(outcome.activity.reasons) or "it is already being deleted"
        return ActionResult(False, f"Cluster {cluster.cluster_id} was not deleted: {reason}.")


def _log_outcome(audit: Audit, late: concurrent.futures.Future[ActionResult]) -> None:
    audit.outcome("cut off by the end of the API server" if late.cancelled() else late.result().message)


async def _with_outcome(work: Any) -> ActionResult:
    try:
        found: ActionResult = await work
    except VertexRayError as error:
        return ActionResult(False, str(error))
    except Exception as error:  # noqa: BLE001 - the user must see errors of any kind
        return ActionResult(False, f"{type(error).__name__}: {error}")
    return found


def _whose(row: ClusterRow, force: bool) -> str:
    dag = f"DAG {row.owner.dag_id}" if row.owner else "all DAGs, because the cluster's creator is unknown"
    if not force:
        return dag
    if not row.facts.users_known:
        return "all DAGs, because the cluster's users cannot be read"
    return f"{dag}, and every DAG that uses the cluster"
