"""Calls for Ray jobs on Vertex AI."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.job.client import JobRequest, JobsApi
from airflow_provider_vertex_ray.core.job.log_stream import lines_of
from airflow_provider_vertex_ray.core.job.packages import (
    SAID_FROM,
    Package,
    Progress,
    pack,
    pack_all,
    read_conda,
)
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    DashboardNotReadyError,
    JobNotFoundError,
    JobRunningError,
    ServiceUnavailableError,
)
from airflow_provider_vertex_ray.hooks.calls.base import BaseCalls


class JobCalls(BaseCalls):
    """Manage Ray jobs from asynchronous code.

    ``cluster_id`` is an id, or a full resource name (``projects/…/locations/…/persistentResources/…``).
    """

    @contextlib.asynccontextmanager
    async def jobs(self, cluster_id: str | ClusterName, dashboard_uri: str | None = None) -> AsyncIterator[JobsApi]:
        """Open the Jobs API of a cluster.

        :param cluster_id: id or full resource name.
        :param dashboard_uri: the cluster's ``RAY_DASHBOARD_URI``, if it is known, which saves a request.
        :raises ClusterFailedError: the cluster is in ERROR, or is being deleted.
        :raises NotARayClusterError: the persistent resource is not a Ray cluster.
        :raises DashboardNotReadyError: the cluster has no dashboard yet.
        """
        async with self.session() as (transport, project):
            if dashboard_uri is None:
                cluster = await ClustersApi(transport).get(self.cluster_name(cluster_id, project))
                dashboard_uri = usable_dashboard(cluster)
            yield JobsApi(transport, transport.addresses.dashboard(dashboard_uri))

    async def submit_job(self, cluster_id: str | ClusterName, request: JobRequest) -> bool:
        """Submit a job.

        :param cluster_id: id or full resource name.
        :param request: the job.
        :return: True if the job was submitted; False if the cluster already had a job with that submission id.
        """
        async with self.jobs(cluster_id) as api:
            return await api.submit(request)

    async def upload_working_dir(self, cluster_id: str | ClusterName, folder: str, excludes: Sequence[str] = ()) -> str:
        """Upload a local folder to the cluster, unless the cluster already has one with the same content.

        This is for jobs that you submit yourself; the operators use ``prepare_environment``.

        :param cluster_id: id or full resource name.
        :param folder: path of the folder.
        :param excludes: patterns, as in ``.gitignore``, of what to leave out.
        :return: the URI for ``runtime_env["working_dir"]``.
        :raises InvalidArgumentError: the folder does not exist.
        :raises PackageTooLargeError: the folder is larger than Ray accepts.
        """
        with tempfile.TemporaryDirectory(prefix="vertex-ray-") as scratch:
            package = await asyncio.to_thread(pack, folder, Path(scratch) / "package.zip", excludes=excludes)
            async with self.jobs(cluster_id) as api:
                await _send(api, self.log.info, package, "working_dir", folder)
        return package.uri

    async def prepare_environment(
        self, cluster_id: str | ClusterName, environment: dict[str, Any], job_key: str, dashboard_uri: str | None = None
    ) -> dict[str, Any]:
        """Upload the local code of a runtime environment to the cluster, before the job that uses it.

        A package above ``SMALL_PACKAGE_BYTES`` is uploaded once for each content. A smaller ``working_dir`` or wheel,
        which takes no time, is uploaded under a name of the job's own (see ``Package.for_job``).

        :param cluster_id: id or full resource name.
        :param environment: the runtime environment, as ``runtime_environment`` returns it.
        :param job_key: a text that is unique among the cluster's jobs, such as the submission id.
        :param dashboard_uri: the cluster's ``RAY_DASHBOARD_URI``, if it is known, which saves a request.
        :return: the environment to submit: with URIs instead of paths, and without ``excludes``.
        :raises InvalidArgumentError: a folder or file does not exist or cannot be packed; nothing was uploaded.
        :raises PackageTooLargeError: a package is larger than Ray accepts; nothing was uploaded.
        """
        ready = {key: value for key, value in environment.items() if key != "excludes"}
        with tempfile.TemporaryDirectory(prefix="vertex-ray-") as scratch:
            ready.update(await asyncio.to_thread(read_conda, environment))
            packages = await asyncio.to_thread(pack_all, environment, Path(scratch), job_key)
            if not packages:
                return ready
            async with self.jobs(cluster_id, dashboard_uri) as api:
                for place, (field, path, package) in packages.items():
                    await _send(api, self.log.info, package, field, path)
                    if place is None:
                        ready["working_dir"] = package.uri
                    else:
                        ready["py_modules"] = [
                            package.uri if at == place else item for at, item in enumerate(ready["py_modules"])
                        ]
        return ready

    async def get_job(self, cluster_id: str | ClusterName, submission_id: str) -> Job:
        """Return a job.

        :param cluster_id: id or full resource name.
        :param submission_id: submission id of the job.
        :raises JobNotFoundError: the cluster has no job with that id.
        """
        async with self.jobs(cluster_id) as api:
            return await api.get(submission_id)

    async def list_jobs(self, cluster_id: str | ClusterName) -> list[Job]:
        """Return all jobs of a cluster. Not meant for polling.

        :param cluster_id: id or full resource name.
        """
        async with self.jobs(cluster_id) as api:
            return await api.list_all()

    async def stop_job(self, cluster_id: str | ClusterName, submission_id: str) -> bool:
        """Request that a job stops.

        :param cluster_id: id or full resource name.
        :param submission_id: submission id of the job.
        :return: True if the request was sent to a running job; False if the job had already ended.
        :raises JobNotFoundError: the cluster has no job with that id.
        """
        async with self.jobs(cluster_id) as api:
            return await api.stop(submission_id)

    async def delete_job(self, cluster_id: str | ClusterName, submission_id: str) -> bool:
        """Delete an ended job, so that its submission id can be reused.

        :param cluster_id: id or full resource name.
        :param submission_id: submission id of the job.
        :return: True if the job was deleted; False if the cluster has no job with that id.
        :raises JobRunningError: the job has not ended; it was not changed.
        """
        async with self.jobs(cluster_id) as api:
            return await delete_ended(api, submission_id)

    async def get_job_logs(self, cluster_id: str | ClusterName, submission_id: str, *, max_bytes: int = 8 << 20) -> str:
        """Return a job's output so far.

        :param cluster_id: id or full resource name.
        :param submission_id: submission id of the job.
        :param max_bytes: size after which the output is cut off; default: 8 MiB.
        """
        async with self.jobs(cluster_id) as api:
            return await api.logs(submission_id, max_bytes=max_bytes)

    async def tail_job_logs(self, cluster_id: str | ClusterName, submission_id: str) -> AsyncIterator[str]:
        """Yield a job's output from its start, line by line as it arrives, until the job has ended.

        Websockets, which probably do not pass the service's proxy, are used where they do, and not needed.

        :param cluster_id: id or full resource name.
        :param submission_id: submission id of the job.
        :raises JobNotFoundError: the cluster has no job with that id.
        """
        async with self.jobs(cluster_id) as api, contextlib.aclosing(lines_of(api, submission_id)) as lines:
            async for line in lines:
                yield line


async def _send(api: JobsApi, notify: Callable[..., None], package: Package, field: str, path: str) -> None:
    progress = Progress(f"{field} {path}", package.size, notify)
    if await api.upload(package, progress):
        how = "uploaded" + (f", {progress.rate(package.size)}" if package.size > SAID_FROM else "")
    else:
        how = "already on the cluster"
    notify("%s %s: %s (%.2f MiB), %s", field, path, package.name, package.size / 2**20, how)


async def delete_ended(api: JobsApi, submission_id: str) -> bool:
    """Delete an ended job, so that its submission id can be reused.

    :return: True if the job was deleted; False if the cluster has no job with that id.
    :raises JobRunningError: the job has not ended; it was not changed.
    """
    job = await api.find(submission_id)
    if job is None:
        return False
    if job.status.is_terminal:
        try:
            await api.delete(submission_id)
        except (JobNotFoundError, ServiceUnavailableError):
            # The job may be deleted, and only the response lost.
            if await api.find(submission_id) is not None:
                raise
        return True
    raise JobRunningError(
        f"Ray job {submission_id} is {job.status.value}; only a job that has ended can be deleted.",
        {"submission_id": submission_id, "status": job.status.value},
    )


def usable_dashboard(cluster: Cluster) -> str:
    """Return the address of the cluster's dashboard.

    :raises ClusterFailedError: the cluster is in ERROR (or a subtype for the reason), or is being deleted.
    :raises NotARayClusterError: the persistent resource is not a Ray cluster.
    :raises DashboardNotReadyError: the cluster has no dashboard yet.
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
