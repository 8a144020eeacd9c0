"""Reading the statuses of many jobs: by one request for all, or one for each of the last ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.errors import JobNotFoundError, VertexRayError
from airflow_provider_vertex_ray.triggers.job_cluster import waited_out

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.client import JobsApi

FEW = 4
"""Number of active jobs up to which each is requested by its ID, instead of the list of all jobs of the cluster."""


class Statuses(NamedTuple):
    """What the cluster says of some jobs, by their submission IDs; it does not know the others.

    :param jobs: the jobs.
    :param unreadable: those whose status cannot be read, and why.
    """

    jobs: Mapping[str, Job]
    unreadable: Mapping[str, VertexRayError]


async def read_statuses(api: JobsApi, active: list[str], waiting: list[str], *, whole: bool) -> Statuses:
    """Read the statuses of jobs. One that cannot be read does not hide the others.

    :param api: Jobs API of the cluster.
    :param active: IDs of the jobs to read.
    :param waiting: IDs of jobs to read as well if that costs nothing.
    :param whole: whether to read the list of all jobs in any case.
    :raises VertexRayError: no status can be read.
    """
    if not whole and len(active) <= FEW:
        jobs: dict[str, Job] = {}
        unreadable: dict[str, VertexRayError] = {}
        for submission_id in active:
            try:
                jobs[submission_id] = await api.get(submission_id, attempts=1)
            except JobNotFoundError:
                continue
            except VertexRayError as error:
                if not waited_out(error):
                    raise
                unreadable[submission_id] = error
        if len(unreadable) < len(active) or not active:
            return Statuses(jobs, unreadable)
        # Only the list tells whether it is the cluster that cannot be read, or these jobs.
    found = await api.list_ids([*active, *waiting])
    return Statuses(found.jobs, found.unreadable)


class UnreadableJobs:
    """Since when the statuses of single jobs cannot be read, although those of others can.

    :param lost_timeout: seconds after which such a job counts as lost.
    """

    def __init__(self, lost_timeout: float) -> None:
        self._lost_timeout = lost_timeout
        self._since: dict[int, float] = {}

    def lost(self, found: Mapping[int, VertexRayError]) -> dict[int, str]:
        """Note which jobs cannot be read now.

        :param found: their places, and why they cannot.
        :return: the errors of those that are lost.
        """
        now = time.time()
        self._since = {place: self._since.get(place, now) for place in found}
        return {
            place: f"is lost: for {now - since:.0f} s its status could not be read. Last error: {found[place].message}"
            for place, since in self._since.items()
            if now - since > self._lost_timeout
        }
