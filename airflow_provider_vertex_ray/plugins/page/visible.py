"""Jobs and leases as a user may see them: what belongs to a DAG that they may not read has no name. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from airflow_provider_vertex_ray.core.job.secret_mask import SecretMask
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.core.sharing.lease import Holder, Lease
from airflow_provider_vertex_ray.plugins.page.owners import Owner, owner_of_job

HIDDEN_JOB = "of a DAG that you may not read"
HIDDEN_HOLDER = "a run of a DAG that you may not read"

MayRead = Callable[[str], bool]


@dataclass(frozen=True)
class VisibleJob:
    """A job as a user may see it.

    :param job: the job without its names if it is hidden, and without the values of its environment variables.
    :param owner: the task instance that submitted the job; None if it is unknown or hidden.
    :param hidden: whether the job belongs to a DAG that the user may not read.
    """

    job: Job
    owner: Owner | None
    hidden: bool = False


def visible_jobs(jobs: Iterable[Job], may_read: MayRead) -> list[VisibleJob]:
    """Return the jobs as a user may see them."""
    found = []
    for job in jobs:
        owner = owner_of_job(job)
        if owner is not None and not may_read(owner.dag_id):
            bare = replace(job, submission_id=HIDDEN_JOB, entrypoint="", message="", metadata={}, hidden=())
            found.append(VisibleJob(bare, None, True))
            continue
        hide = SecretMask(job.hidden)
        shown = replace(job, entrypoint=hide(job.entrypoint), message=hide(job.message))
        found.append(VisibleJob(shown, owner))
    return found


def dag_of_holder(holder: Holder) -> str | None:
    """Return the DAG in the name of a holder, which is ``<dag_id>/<run_id>`` by default; None for other names."""
    dag_id, slash, _ = holder.owner.partition("/")
    return dag_id if slash and dag_id else None


def visible_lease(lease: Lease | None, may_read: MayRead) -> Lease | None:
    """Return the lease as a user may see it."""
    if lease is None:
        return None
    holders = {}
    for place, holder in enumerate(lease.holders.values()):
        dag_id = dag_of_holder(holder)
        hidden = dag_id is not None and not may_read(dag_id)
        holders[f"{place} {holder.owner}"] = replace(holder, owner=HIDDEN_HOLDER) if hidden else holder
    return replace(lease, holders=holders)
