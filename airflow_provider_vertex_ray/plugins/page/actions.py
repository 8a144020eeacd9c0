"""Acting from the page: stop a job, delete a cluster. Permitted as a trigger of the DAG is, confirmed, and audited."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.sharing.activity import Activity
from airflow_provider_vertex_ray.core.sharing.guarded_delete import CLOSING_SECONDS, GuardedDelete
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.plugins.page.access import Viewer, eyes_of, refuse_other_sites
from airflow_provider_vertex_ray.plugins.page.airflow import Audit
from airflow_provider_vertex_ray.plugins.page.owners import owner_of_job
from airflow_provider_vertex_ray.plugins.page.reader import ClusterFacts
from airflow_provider_vertex_ray.plugins.page.row import ClusterRow, cluster_row
from airflow_provider_vertex_ray.plugins.page.service import PageService
from airflow_provider_vertex_ray.plugins.page.sources import Source
from airflow_provider_vertex_ray.plugins.page.visible import dag_of_holder

LOOK_SECONDS = 15.0
"""Seconds for finding out what it is about, and who uses it now."""

WAIT_SECONDS = 25.0
"""Seconds for which the browser waits; what takes longer goes on, and the audit log says how it ended."""

MOST_AT_ONCE = 4
"""Actions of one API server process at the same time."""

CurrentViewer = Annotated[Viewer, Depends(eyes_of)]


@dataclass(frozen=True)
class Done:
    """What came of an action.

    :param done: Whether it was carried out.
    :param said: For the user, and for the audit log.
    """

    done: bool
    said: str


def add_actions(app: FastAPI, service: PageService) -> None:
    """The routes that act."""
    actions = Actions(service)
    from_here = [Depends(refuse_other_sites)]
    app.post("/{source}/{cluster_id}/delete", dependencies=from_here)(actions.delete)
    app.post("/{source}/{cluster_id}/stop", dependencies=from_here)(actions.stop)


def needed_dags(row: ClusterRow, lease: Lease | None, *, jobs_too: bool) -> list[str | None]:
    """The DAGs of which one needs the permission to delete a cluster; None stands for all.

    :param lease: The lease as it is, with the holders whose names the user may not see.
    :param jobs_too: Also those that use it now: it would be deleted from under them. Where they are not known, all.
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
    """Carries out."""

    def __init__(self, service: PageService) -> None:
        self._service = service
        self._running: set[concurrent.futures.Future[Done]] = set()

    def delete(
        self,
        viewer: CurrentViewer,
        source: str,
        cluster_id: str,
        confirm: Annotated[str, Body()] = "",
        force: Annotated[bool, Body()] = False,
    ) -> JSONResponse:
        """Delete a cluster.

        :param confirm: The cluster's id once more.
        :param force: Also while it is in use, or while that is not known.
        """
        chosen, facts, row = self._find(viewer, source, cluster_id)
        if not viewer.may_act(needed_dags(row, facts.lease.value, jobs_too=force)):
            raise HTTPException(403, f"You need the permission to trigger {_whose(row, force)}.")
        if confirm != cluster_id:
            raise HTTPException(400, "The cluster's name does not match.")
        about = {"cluster": facts.cluster.name, "gcp_conn_id": chosen.gcp_conn_id, "force": force}
        audit = Audit("vertex_ray.delete_cluster", viewer.name, row.owner, about)
        return self._carry_out(audit, self._delete(chosen, facts.cluster, viewer.name, force))

    def stop(
        self, viewer: CurrentViewer, source: str, cluster_id: str, job: Annotated[str, Body(embed=True)]
    ) -> JSONResponse:
        """Stop a job.

        :param job: Its submission id.
        """
        chosen, facts, _ = self._find(viewer, source, cluster_id)
        found = next((each for each in facts.jobs.value or () if each.submission_id == job), None)
        if found is None or found.is_driver:
            raise HTTPException(404, "The cluster has no such job, or does not say so now.")
        owner = owner_of_job(found)
        if not viewer.may_act([owner.dag_id if owner else None]):
            whose = f"DAG {owner.dag_id}" if owner and viewer.may_read(owner.dag_id) else "all DAGs"
            raise HTTPException(403, f"You need the permission to trigger {whose}.")
        about = {"cluster": facts.cluster.name, "gcp_conn_id": chosen.gcp_conn_id, "job": job}
        audit = Audit("vertex_ray.stop_job", viewer.name, owner, about)
        return self._carry_out(audit, self._stop(chosen, facts.cluster, job))

    def _find(self, viewer: Viewer, source: str, cluster_id: str) -> tuple[Source, ClusterFacts, ClusterRow]:
        chosen = self._service.sources().find(source)
        facts = self._service.cluster(chosen, cluster_id, LOOK_SECONDS, anew=True)[0] if chosen else None
        if chosen is None or facts is None:
            raise HTTPException(404, "There is no such cluster, or it can not be read now.")
        return chosen, facts, cluster_row(facts, time.time(), viewer.may_read, self._service.owners.find)

    def _carry_out(self, audit: Audit, work: Any) -> JSONResponse:
        if len(self._running) >= MOST_AT_ONCE:
            work.close()
            audit.outcome("refused: too many actions at once")
            raise HTTPException(429, "Too many actions at once; try again in a moment.")
        future = self._service.start(_with_outcome(work))
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        try:
            done = future.result(WAIT_SECONDS)
        except concurrent.futures.TimeoutError:
            # In a thread of its own: the loop that it ends in is not to wait for the database.
            future.add_done_callback(lambda late: threading.Thread(target=_note, args=(audit, late)).start())
            return JSONResponse({"done": False, "said": "It takes long and goes on; look again in a minute."}, 202)
        audit.outcome(done.said)
        return JSONResponse({"done": done.done, "said": done.said}, 200 if done.done else 409)

    async def _stop(self, source: Source, cluster: Cluster, job: str) -> Done:
        opened = await self._service.reader().connections.open(source)
        async with opened.acting() as transport:
            api = JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri or ""))
            stopped = await api.stop(job)
        self._service.reader().outdate(source, cluster)
        return Done(True, f"Job {job} was told to stop." if stopped else f"Job {job} had ended already.")

    async def _delete(self, source: Source, cluster: Cluster, user: str, force: bool) -> Done:
        by = f"{user} on the page Ray clusters"
        why = f"{user} deletes it" + (" although it is in use" if force else "")

        def judge(seen: Cluster, activity: Activity) -> str | None:
            if seen.state is ClusterState.STOPPING:
                return None
            return why if force or not activity.busy else None

        opened = await self._service.reader().connections.open(source)
        async with opened.acting() as transport:
            # As it is now: the name may be that of a younger cluster than the one that was looked at.
            now = await ClustersApi(transport).get(parse_cluster_name(cluster.name))
            if now.create_time != cluster.create_time:
                return Done(False, "It is another cluster of the same name by now; look again.")
            store = LeaseStore(transport, source.lease_uri) if source.lease_uri else None
            if force and store is not None:
                await store.change(parse_cluster_name(now.name), lambda lease: _taken(lease, by, why))
            outcome = await GuardedDelete(transport, store, by).delete_if_unused(now, judge)
        self._service.reader().outdate(source, cluster)
        if outcome.deleted:
            return Done(True, f"Cluster {cluster.cluster_id} is being deleted.")
        reason = outcome.why or "; ".join(outcome.activity.reasons) or "it is being deleted already"
        return Done(False, f"Cluster {cluster.cluster_id} was not deleted: {reason}.")


def _note(audit: Audit, late: concurrent.futures.Future[Done]) -> None:
    audit.outcome("cut off by the end of the API server" if late.cancelled() else late.result().said)


def _taken(lease: Lease, by: str, why: str) -> Lease:
    """The lease closed, whoever holds it: in one step, so that nobody can take it again in between."""
    now = time.time()
    for owner in list(lease.holders):
        lease = lease.release(owner, now)
    return lease.close(by, why, now, CLOSING_SECONDS)


async def _with_outcome(work: Any) -> Done:
    try:
        found: Done = await work
    except VertexRayError as error:
        return Done(False, str(error))
    except Exception as error:  # noqa: BLE001 - of whatever kind, the user has to learn of it
        return Done(False, f"{type(error).__name__}: {error}")
    return found


def _whose(row: ClusterRow, force: bool) -> str:
    dag = f"DAG {row.owner.dag_id}" if row.owner else "all DAGs: who created the cluster is not known"
    if not force:
        return dag
    if not row.facts.users_known:
        return "all DAGs: who uses the cluster can not be read"
    return f"{dag}, and every DAG that uses the cluster"
