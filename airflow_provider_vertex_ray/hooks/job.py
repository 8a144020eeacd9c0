"""Jobs on a cluster, through an Airflow connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.job.client import JobRequest, JobsApi
from airflow_provider_vertex_ray.core.job.packages import SAID_FROM, Package, Progress, pack, pack_module, ready_zip
from airflow_provider_vertex_ray.core.job.runtime_env import CONDA_FILES, is_local
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    DashboardNotReadyError,
    InvalidArgumentError,
    JobNotFoundError,
    JobRunningError,
    ServiceUnavailableError,
)
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRayBaseHook, run_sync


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
        """Send a local folder to the cluster, unless it has one of that content.

        For jobs of your own; those of a task go through ``prepare_environment``.

        :return: The URI for ``runtime_env["working_dir"]``.
        :raises InvalidArgumentError: There is no such folder.
        :raises PackageTooLargeError: It is larger than Ray takes.
        """
        with tempfile.TemporaryDirectory(prefix="vertex-ray-") as scratch:
            package = await asyncio.to_thread(pack, folder, Path(scratch) / "package.zip", excludes=excludes)
            async with self.jobs(cluster_id) as api:
                await _send(api, self.log.info, package, "working_dir", folder)
        return package.uri

    async def prepare_environment(
        self, cluster_id: str, environment: dict[str, Any], job_key: str, dashboard_uri: str | None = None
    ) -> dict[str, Any]:
        """Send the local code of a runtime environment to the cluster, before the job that uses it.

        A package above ``SMALL_PACKAGE_BYTES`` is sent once for each content; a smaller working_dir or wheel, which
        takes no time, under a name of the job's own (see ``Package.for_job``).

        :param environment: What ``runtime_environment`` gave.
        :param job_key: Something that no other job on the cluster has, such as its submission id.
        :param dashboard_uri: The cluster's ``RAY_DASHBOARD_URI`` where that is known, which saves asking for it.
        :return: The environment to submit: URIs in place of paths, and no ``excludes``.
        :raises InvalidArgumentError: A folder or file is not there or can not be packed; nothing was sent.
        :raises PackageTooLargeError: One is larger than Ray takes; nothing was sent.
        """
        ready = {key: value for key, value in environment.items() if key != "excludes"}
        with tempfile.TemporaryDirectory(prefix="vertex-ray-") as scratch:
            ready.update(await asyncio.to_thread(_read_conda, environment))
            packages = await asyncio.to_thread(_pack_all, environment, Path(scratch), job_key)
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

    async def delete_job(self, cluster_id: str, submission_id: str) -> bool:
        """Forget an ended job and its id.

        :return: False when the cluster knows none of that id.
        :raises JobRunningError: It has not ended; it is left as it is.
        """
        async with self.jobs(cluster_id) as api:
            return await delete_ended(api, submission_id)

    async def get_job_logs(self, cluster_id: str, submission_id: str, *, max_bytes: int = 8 << 20) -> str:
        """A job's output so far, cut after ``max_bytes``."""
        async with self.jobs(cluster_id) as api:
            return await api.logs(submission_id, max_bytes=max_bytes)

    async def tail_job_logs(self, cluster_id: str, submission_id: str) -> AsyncIterator[str]:
        """A job's output from its beginning, as it comes, until this one connection ends."""
        async with self.jobs(cluster_id) as api, api.tail(submission_id) as frames:
            async for text in frames:
                yield text


def _pack_all(environment: dict[str, Any], scratch: Path, job_key: str) -> dict[int | None, tuple[str, str, Package]]:
    """All local code as packages, by place in ``py_modules``, None for the ``working_dir``; with field and path."""
    excludes = environment.get("excludes") or ()
    found: dict[int | None, tuple[str, str, Package]] = {}
    folder = environment.get("working_dir")
    if folder and is_local(folder):
        whole = Path(folder).suffix == ".zip" and not Path(folder).expanduser().is_dir()
        package = ready_zip(folder) if whole else pack(folder, scratch / "working_dir.zip", excludes=excludes)
        found[None] = ("working_dir", folder, package.for_job(job_key))
    for place, module in enumerate(environment.get("py_modules") or ()):
        if is_local(module):
            field = f"py_modules[{place}]"
            package = pack_module(module, scratch / f"{place}.zip", excludes=excludes, field=field)
            # Unlike a working_dir, a zip of py_modules is unpacked once on each node, whoever comes first.
            found[place] = (field, module, package.for_job(job_key) if package.name.endswith(".whl") else package)
    return found


async def _send(api: JobsApi, notify: Callable[..., None], package: Package, field: str, path: str) -> None:
    progress = Progress(f"{field} {path}", package.size, notify)
    if await api.upload(package, progress):
        how = "sent" + (f", {progress.rate(package.size)}" if package.size > SAID_FROM else "")
    else:
        how = "was on the cluster already"
    notify("%s %s: %s (%.2f MiB) %s", field, path, package.name, package.size / 2**20, how)


def _read_conda(environment: dict[str, Any]) -> dict[str, Any]:
    """What a local conda file says, as Ray's own client sends it."""
    path = environment.get("conda")
    if not isinstance(path, str) or Path(path).suffix not in CONDA_FILES:
        return {}
    import yaml

    field, rule = "runtime_env['conda']", "give the name of an environment, a dict, or a local YAML file"
    try:
        found = yaml.safe_load(Path(path).expanduser().read_text("utf-8"))
        json.dumps(found)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise InvalidArgumentError(field, path, f"{rule}: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArgumentError(field, path, rule)
    return {"conda": found}


async def delete_ended(api: JobsApi, submission_id: str) -> bool:
    """Forget a job that has ended, and its id.

    :return: False when the cluster knows no such job.
    :raises JobRunningError: It has not ended; it is left as it is.
    """
    job = await api.find(submission_id)
    if job is None:
        return False
    if job.status.is_terminal:
        try:
            await api.delete(submission_id)
        except (JobNotFoundError, ServiceUnavailableError):
            # The answer may be what was lost.
            if await api.find(submission_id) is not None:
                raise
        return True
    raise JobRunningError(
        f"Ray job {submission_id} is {job.status.value}; only a job that has ended can be deleted.",
        {"submission_id": submission_id, "status": job.status.value},
    )


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

    def prepare_environment(
        self, cluster_id: str, environment: dict[str, Any], job_key: str, dashboard_uri: str | None = None
    ) -> dict[str, Any]:
        """Send the local code of a runtime environment; see ``VertexRayJobAsyncHook.prepare_environment``."""
        return run_sync(lambda: self._async().prepare_environment(cluster_id, environment, job_key, dashboard_uri))

    def get_job(self, cluster_id: str, submission_id: str) -> Job:
        """Read one job; see ``VertexRayJobAsyncHook.get_job``."""
        return run_sync(lambda: self._async().get_job(cluster_id, submission_id))

    def list_jobs(self, cluster_id: str) -> list[Job]:
        """All jobs; see ``VertexRayJobAsyncHook.list_jobs``."""
        return run_sync(lambda: self._async().list_jobs(cluster_id))

    def stop_job(self, cluster_id: str, submission_id: str) -> bool:
        """Stop a job; see ``VertexRayJobAsyncHook.stop_job``."""
        return run_sync(lambda: self._async().stop_job(cluster_id, submission_id))

    def delete_job(self, cluster_id: str, submission_id: str) -> bool:
        """Forget an ended job; see ``VertexRayJobAsyncHook.delete_job``."""
        return run_sync(lambda: self._async().delete_job(cluster_id, submission_id))

    def get_job_logs(self, cluster_id: str, submission_id: str, *, max_bytes: int = 8 << 20) -> str:
        """A job's output; see ``VertexRayJobAsyncHook.get_job_logs``."""
        return run_sync(lambda: self._async().get_job_logs(cluster_id, submission_id, max_bytes=max_bytes))
