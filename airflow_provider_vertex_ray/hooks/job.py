"""Jobs on a cluster, through an Airflow connection."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from airflow_provider_vertex_ray.api.clusters import ClustersApi
from airflow_provider_vertex_ray.api.jobs import JobRequest, JobsApi
from airflow_provider_vertex_ray.api.packages import pack
from airflow_provider_vertex_ray.cluster_state import Cluster, ClusterState
from airflow_provider_vertex_ray.errors import ClusterFailedError, DashboardNotReadyError
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRayBaseHook, run_sync
from airflow_provider_vertex_ray.job_state import Job


class VertexRayJobAsyncHook(VertexRayBaseAsyncHook):
    """Jobs, for an event loop. ``cluster_id`` is an id or a full ``projects/…/persistentResources/…`` name."""

    @contextlib.asynccontextmanager
    async def jobs(self, cluster_id: str, dashboard_uri: str | None = None) -> AsyncIterator[JobsApi]:
        """The Jobs API of a cluster.

        :param dashboard_uri: Its ``RAY_DASHBOARD_URI`` where that is known, which saves asking for it.
        :raises ClusterFailedError: The cluster is in ERROR.
        :raises NotARayClusterError: It has no Ray.
        :raises DashboardNotReadyError: It has no dashboard yet.
        """
        async with self.session() as (transport, project):
            if dashboard_uri is None:
                cluster = await ClustersApi(transport).get(self.cluster_name(cluster_id, project))
                dashboard_uri = usable_dashboard(cluster)
            yield JobsApi(transport, transport.addresses.dashboard(dashboard_uri))

    async def submit_job(self, cluster_id: str, request: JobRequest) -> bool:
        """Submit a job.

        :return: False when the cluster had a job of that submission id before.
        """
        async with self.jobs(cluster_id) as api:
            return await api.submit(request)

    async def upload_working_dir(self, cluster_id: str, folder: str, excludes: Sequence[str] = ()) -> str:
        """Send a local folder to the cluster, once for each content.

        :return: The URI for ``runtime_env["working_dir"]``.
        :raises SpecError: There is no such folder.
        :raises PackageTooLargeError: It is larger than Ray takes.
        """
        with tempfile.TemporaryDirectory(prefix="vertex-ray-") as scratch:
            package = await asyncio.to_thread(pack, folder, Path(scratch) / "package.zip", excludes=excludes)
            async with self.jobs(cluster_id) as api:
                sent = await api.upload(package)
        self.log.info(
            "working_dir %s: %s (%.2f MiB) %s",
            folder,
            package.name,
            package.size / 2**20,
            "sent" if sent else "was on the cluster already",
        )
        return package.uri

    async def get_job(self, cluster_id: str, submission_id: str) -> Job:
        """Read one job.

        :raises JobNotFoundError: The cluster knows none of that id.
        """
        async with self.jobs(cluster_id) as api:
            return await api.get(submission_id)

    async def list_jobs(self, cluster_id: str) -> list[Job]:
        """All jobs of the cluster; not for polling."""
        async with self.jobs(cluster_id) as api:
            return await api.list_all()

    async def stop_job(self, cluster_id: str, submission_id: str) -> bool:
        """Ask a job to stop.

        :return: False when it had ended before.
        :raises JobNotFoundError: The cluster knows none of that id.
        """
        async with self.jobs(cluster_id) as api:
            return await api.stop(submission_id)

    async def delete_job(self, cluster_id: str, submission_id: str) -> None:
        """Forget an ended job and its id."""
        async with self.jobs(cluster_id) as api:
            await api.delete(submission_id)

    async def get_job_logs(self, cluster_id: str, submission_id: str, *, max_bytes: int = 8 << 20) -> str:
        """A job's output so far, cut after ``max_bytes``."""
        async with self.jobs(cluster_id) as api:
            return await api.logs(submission_id, max_bytes=max_bytes)

    async def tail_job_logs(self, cluster_id: str, submission_id: str) -> AsyncIterator[str]:
        """A job's output from its beginning, as it comes, until this one connection ends."""
        async with self.jobs(cluster_id) as api, api.tail(submission_id) as frames:
            async for text in frames:
                yield text


def usable_dashboard(cluster: Cluster) -> str:
    """The address of the cluster's dashboard.

    :raises ClusterFailedError: The cluster is in ERROR (or the closer type of its reason).
    :raises NotARayClusterError: It has no Ray.
    :raises DashboardNotReadyError: It is not up, so it has none yet.
    """
    cluster.require_ray()
    if cluster.state is ClusterState.ERROR:
        raise cluster.failure()
    if cluster.state is ClusterState.STOPPING:
        raise ClusterFailedError(f"Cluster {cluster.cluster_id} is being deleted.", {"cluster": cluster.name})
    if not cluster.dashboard_uri:
        raise DashboardNotReadyError(
            f"Cluster {cluster.cluster_id} is {cluster.state.value} and has no dashboard yet.",
            {"cluster": cluster.name},
        )
    return cluster.dashboard_uri


class VertexRayJobHook(VertexRayBaseHook):
    """Jobs, from synchronous code: the calls of ``VertexRayJobAsyncHook``, each waited for."""

    def _async(self) -> VertexRayJobAsyncHook:
        return VertexRayJobAsyncHook(
            self.gcp_conn_id, self.impersonation_chain, self.default_project_id, self.default_location
        )

    def submit_job(self, cluster_id: str, request: JobRequest) -> bool:
        """Submit a job; see ``VertexRayJobAsyncHook.submit_job``."""
        return run_sync(lambda: self._async().submit_job(cluster_id, request))

    def upload_working_dir(self, cluster_id: str, folder: str, excludes: Sequence[str] = ()) -> str:
        """Send a local folder; see ``VertexRayJobAsyncHook.upload_working_dir``."""
        return run_sync(lambda: self._async().upload_working_dir(cluster_id, folder, excludes))

    def get_job(self, cluster_id: str, submission_id: str) -> Job:
        """Read one job; see ``VertexRayJobAsyncHook.get_job``."""
        return run_sync(lambda: self._async().get_job(cluster_id, submission_id))

    def list_jobs(self, cluster_id: str) -> list[Job]:
        """All jobs; see ``VertexRayJobAsyncHook.list_jobs``."""
        return run_sync(lambda: self._async().list_jobs(cluster_id))

    def stop_job(self, cluster_id: str, submission_id: str) -> bool:
        """Stop a job; see ``VertexRayJobAsyncHook.stop_job``."""
        return run_sync(lambda: self._async().stop_job(cluster_id, submission_id))

    def delete_job(self, cluster_id: str, submission_id: str) -> None:
        """Forget an ended job; see ``VertexRayJobAsyncHook.delete_job``."""
        return run_sync(lambda: self._async().delete_job(cluster_id, submission_id))

    def get_job_logs(self, cluster_id: str, submission_id: str, *, max_bytes: int = 8 << 20) -> str:
        """A job's output; see ``VertexRayJobAsyncHook.get_job_logs``."""
        return run_sync(lambda: self._async().get_job_logs(cluster_id, submission_id, max_bytes=max_bytes))
