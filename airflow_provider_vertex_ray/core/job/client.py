"""Client of Ray's Jobs API on a cluster's dashboard: submit, upload, get, list, stop, delete.

Source: Ray 2.47.1, python/ray/dashboard/modules/job, and experiments with it (docs/service-facts.md).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from airflow_provider_vertex_ray.core.http.decoding import Blank
from airflow_provider_vertex_ray.core.job.answers import (
    ActorAnswer,
    DeletedAnswer,
    JobAnswer,
    MetadataAnswer,
    NodesAnswer,
    RayletAnswer,
    StateAnswer,
    StoppedAnswer,
    SubmittedAnswer,
    UsageAnswer,
    VersionAnswer,
)
from airflow_provider_vertex_ray.core.job.dashboard_errors import dashboard_error
from airflow_provider_vertex_ray.core.job.listing import JobListing, Listed
from airflow_provider_vertex_ray.core.job.log_client import LogsApi
from airflow_provider_vertex_ray.core.job.packages import Package
from airflow_provider_vertex_ray.core.job.state import OWNER_KEY, Job, JobStatus
from airflow_provider_vertex_ray.errors import (
    CredentialsError,
    InvalidRequestError,
    JobNotFoundError,
    NotAuthorisedError,
    PackageTooLargeError,
    RequestTooLargeError,
    ServiceUnavailableError,
    SubmissionIdTakenError,
    UnreadableAnswerError,
    VertexRayError,
)

T = TypeVar("T")

log = logging.getLogger(__name__)

SUBMIT_ATTEMPTS = 6
"""Attempts of a submission whose answers are lost, or that is refused."""

UPLOAD_TIMEOUT = 1800.0
"""Seconds for the upload of one package."""

RISKY_UPLOAD_BYTES = 32 << 20
"""Size of a package above which a failed upload may be due to a proxy that limits requests to 32 MB and 30 s."""

REQUEST_KEY = "vertex_ray_request"
"""Key of the request id in a job's metadata, which identifies the job of a submission whose answer was lost."""

JOB_ACTOR = "_ray_internal_job_actor_"
"""Prefix, before the submission id, of the name of the actor that runs a job's driver (JOB_ACTOR_NAME_TEMPLATE)."""


@dataclass(frozen=True)
class JobRequest:
    """A job to submit.

    :param entrypoint: the shell command
    :param submission_id: the id, chosen by the caller so that a repeated submission finds the first one
    :param runtime_env: Ray's runtime environment; must be JSON-serialisable
    :param metadata: strings that are stored with the job
    :param num_cpus: CPUs reserved for the driver; None runs it on the head
    :param num_gpus: GPUs reserved for the driver
    :param memory: bytes of memory reserved for the driver
    :param resources: custom resources reserved for the driver
    """

    entrypoint: str
    submission_id: str
    runtime_env: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None
    resources: dict[str, float] | None = None

    def body(self) -> dict[str, Any]:
        """Return the JSON of the request, without None, because the server rejects some nulls."""
        optional = {
            "entrypoint_num_cpus": self.num_cpus,
            "entrypoint_num_gpus": self.num_gpus,
            "entrypoint_memory": self.memory,
            "entrypoint_resources": self.resources,
        }
        return {
            "entrypoint": self.entrypoint,
            "submission_id": self.submission_id,
            "runtime_env": self.runtime_env,
            "metadata": self.metadata,
            **{key: value for key, value in optional.items() if value is not None},
        }


def _mib(package: Package) -> str:
    return f"{package.size / 2**20:.1f} MiB"


class JobsApi(LogsApi):
    """Client of the Jobs API of one cluster.

    :param transport: the connection
    :param dashboard: base URL of the dashboard, from ``Addresses.dashboard``
    """

    @property
    def _listing(self) -> JobListing:
        return JobListing(self._transport, f"{self._base}/api/jobs/")

    async def submit(self, request: JobRequest) -> bool:
        """Submit a job; afterwards, the cluster has exactly one job with this id.

        If the answer to a submission is lost, the job is looked up instead of submitted again. An id in the metadata
        that is unique to each call tells whether an existing job comes from this call.

        :param request: the job
        :return: False if a job with this id already existed before this call
        :raises InvalidRequestError: the cluster rejects the request
        :raises NotAuthorisedError: the cluster, or the proxy in front of it, refuses each attempt
        :raises ServiceUnavailableError: the cluster could not be reached
        """
        failures = 0
        request_id = secrets.token_hex(8)
        body = request.body()
        body["metadata"] = {**request.metadata, REQUEST_KEY: request_id}
        while True:
            try:
                await self._transport.read(
                    SubmittedAnswer,
                    "POST",
                    f"{self._base}/api/jobs/",
                    body=body,
                    error_from=dashboard_error,
                    repeatable=False,
                    # The first submission after a cluster's start waits for the agent on the head.
                    timeout=120,
                )
                return True
            except SubmissionIdTakenError:
                # After a lost answer, it may be the job that this very call submitted.
                return failures > 0 and (await self.get(request.submission_id)).metadata.get(REQUEST_KEY) == request_id
            except CredentialsError:
                raise
            except (ServiceUnavailableError, NotAuthorisedError):
                # Permissions that were granted a moment ago, and proxies, refuse single requests for minutes.
                failures += 1
                found = await self._find_now(request.submission_id)
                if found is not None:
                    return found.metadata.get(REQUEST_KEY) == request_id
                if failures >= SUBMIT_ATTEMPTS:
                    raise
                await self._transport.back_off(failures)

    async def _find_now(self, submission_id: str) -> Job | None:
        """Return one job; None if it does not exist or the cluster cannot be reached.

        A refusal of the look-up says nothing about the submission.
        """
        try:
            return await self.find(submission_id)
        except (ServiceUnavailableError, NotAuthorisedError, InvalidRequestError):
            return None

    async def get(self, submission_id: str, *, attempts: int | None = None) -> Job:
        """Return one job.

        :param submission_id: the job
        :param attempts: attempts of the request; None for the default of the transport
        :raises JobNotFoundError: the job does not exist
        """
        answer = await self._transport.read(
            JobAnswer, "GET", self._url(submission_id), error_from=dashboard_error, attempts=attempts, timeout=90
        )
        return Job.of(answer)

    async def find(self, submission_id: str) -> Job | None:
        """Return one job; None if it does not exist."""
        try:
            return await self.get(submission_id)
        except JobNotFoundError:
            return None

    async def list_all(self, *, drivers: bool = False) -> list[Job]:
        """Return all jobs of the cluster, with the beginning of their messages.

        The answer is not paged and slow with thousands of jobs: never poll it.

        :param drivers: whether to include programs that connected to the cluster without being submitted
        :raises UnreadableAnswerError: the answer is not a list of jobs, or there are more than ``MOST_LISTED``
        """
        return await self._listing.all(drivers=drivers)

    async def list_ids(self, submission_ids: Collection[str]) -> Listed:
        """Return the jobs with some IDs, as far as they exist, by a single request for the list of all jobs.

        Cheaper than a request for each if they are many, and a large part of all jobs of the cluster.
        """
        wanted = frozenset(submission_ids)
        return await self._listing.some(lambda answer: answer.submission_id in wanted, wanted.__contains__)

    async def list_task(self, owner: str, prefix: str) -> list[Job]:
        """Return the jobs that a task instance has submitted, and those whose IDs begin as those that it submits.

        :param owner: its ``owner_key``
        :param prefix: beginning of the IDs
        :raises UnreadableAnswerError: the list cannot be read, or the entry of a job whose ID begins so
        """
        found = await self._listing.some(
            lambda answer: (
                (answer.metadata or {}).get(OWNER_KEY) == owner or (answer.submission_id or "").startswith(prefix)
            ),
            lambda submission_id: submission_id.startswith(prefix),
        )
        for error in found.unreadable.values():
            raise error
        return list(found.jobs.values())

    async def variables(self, submission_id: str) -> dict[str, str]:
        """Return the environment variables with which a job was submitted, secrets included.

        :raises JobNotFoundError: the job does not exist
        """
        answer = await self._transport.read(
            JobAnswer, "GET", self._url(submission_id), error_from=dashboard_error, timeout=90
        )
        found = answer.runtime_env.env_vars if answer.runtime_env else None
        return {str(name): str(value) for name, value in (found or {}).items()}

    async def has_package(self, uri: str) -> bool:
        """Tell whether the cluster has a package, and keep it there for ten more minutes.

        :param uri: its URI in a runtime environment, ``gcs://…``
        """
        url = f"{self._base}/api/packages/gcs/{quote(uri.removeprefix('gcs://'))}"
        try:
            await self._transport.read(Blank, "GET", url, error_from=dashboard_error)
        except JobNotFoundError:
            return False
        return True

    async def newest(self, most: int) -> list[Job]:
        """Return the active jobs and drivers of the cluster, then its newest ones, in all at most ``most``."""
        return await self._listing.newest(most)

    async def in_use(self) -> list[Job]:
        """Return the active jobs and drivers of the cluster, and the one that ended last.

        However many jobs the cluster has had, only these are kept in memory. Of more than ``MOST_ACTIVE`` active ones,
        the others are left out.

        :raises UnreadableAnswerError: the answer is not a list of jobs
        """
        return await self._listing.in_use()

    async def stop(self, submission_id: str, *, attempts: int | None = None) -> bool:
        """Request that a job stops: its driver gets a SIGTERM, and later a SIGKILL.

        :param submission_id: the job
        :param attempts: attempts of the request; None for the default of the transport
        :return: False if the job had already ended
        :raises JobNotFoundError: the job does not exist
        """
        answer = await self._transport.read(
            StoppedAnswer, "POST", f"{self._url(submission_id)}/stop", error_from=dashboard_error, attempts=attempts
        )
        if answer.stopped:
            await self._kill_pending_driver(submission_id)
        return answer.stopped

    async def _kill_pending_driver(self, submission_id: str) -> None:
        """Kill the driver of a job that waits for resources: Ray reports a stop, but lets it wait for up to 15 minutes.

        This is best effort, by killing the waiting actor through Ray's dashboard. If that fails, the job still ends as
        soon as its driver gets its resources.
        """
        try:
            if (await self.get(submission_id, attempts=1)).status is not JobStatus.PENDING:
                return
            for actor in await self.state(ActorAnswer, "actors", name=f"{JOB_ACTOR}{submission_id}"):
                await self._transport.request(
                    "GET",
                    f"{self._base}/api/actors/kill?actor_id={quote(actor.actor_id)}&force_kill=true&no_restart=true",
                    error_from=dashboard_error,
                    attempts=2,
                )
        except VertexRayError as error:
            log.debug("Could not kill the pending driver of Ray job %s: %s", submission_id, error)

    async def state(self, kind: type[T], resource: str, /, *, detail: bool = False, **filters: str) -> list[T]:
        """Return a list of Ray's state API.

        :param kind: model of an element
        :param resource: ``nodes``, ``actors`` or ``tasks``
        :param detail: whether to include all fields
        :param filters: required values, by field
        """
        query = [("detail", "1")] if detail else []
        for field_name, value in filters.items():
            query += [("filter_keys", field_name), ("filter_predicates", "="), ("filter_values", value)]
        url = f"{self._base}/api/v0/{resource}?{urlencode(query)}"
        answer: StateAnswer[T] = await self._transport.read(
            StateAnswer[kind],  # type: ignore[valid-type]
            "GET",
            url,
            error_from=dashboard_error,
            attempts=2,
        )
        return answer.data.result.result

    async def delete(self, submission_id: str) -> None:
        """Delete a job that has ended, and its id; Ray rejects this for an active job.

        :raises JobNotFoundError: the job does not exist
        """
        await self._transport.read(
            DeletedAnswer, "DELETE", self._url(submission_id), error_from=dashboard_error, repeatable=False
        )

    async def upload(self, package: Package, progress: Callable[[int], None] | None = None) -> bool:
        """Upload a package unless the cluster has it; the lookup keeps it on the cluster for ten more minutes.

        :param package: the package
        :param progress: receives the number of bytes sent so far, in another thread
        :return: whether it was uploaded
        :raises PackageTooLargeError: the dashboard, or the proxy in front of it, rejects a request of this size
        """
        if await self.has_package(package.uri):
            return False
        url = f"{self._base}/api/packages/gcs/{quote(package.name)}"
        try:
            await self._transport.read(
                Blank,
                "PUT",
                url,
                data=lambda: package.open(progress),
                error_from=dashboard_error,
                timeout=UPLOAD_TIMEOUT,
            )
        except RequestTooLargeError as error:
            raise PackageTooLargeError(f"Package {package.name} has {_mib(package)}. {error.message}") from error
        except ServiceUnavailableError as error:
            if package.size <= RISKY_UPLOAD_BYTES:
                raise
            raise ServiceUnavailableError(
                f"Could not upload package {package.name} of {_mib(package)}; the proxy in front of the dashboard may "
                f"limit requests to 32 MB and 30 s. If it fails again, upload the package to Cloud Storage as a zip "
                f"file and use its gs:// URI. {error.message}",
                error.details,
            ) from error
        return True

    async def not_ready(self) -> str | None:
        """Return why the dashboard does not serve the Jobs API yet, with a single cheap request; None if it does.

        Only Ray's own JSON counts. A login page, a redirect to one, an empty answer, and a 401 or 403, which follows a
        grant or a start for minutes, all come from the proxy in front of it.
        """
        try:
            await self._transport.read(
                VersionAnswer,
                "GET",
                f"{self._base}/api/version",
                error_from=dashboard_error,
                attempts=1,
                timeout=15,
            )
        except VertexRayError as error:
            return error.message
        return None

    async def versions(self) -> tuple[str | None, str | None]:
        """Return the Ray and Python versions on the head, such as ``("2.47.1", "3.11.9")``; None for an unknown one."""
        try:
            answer = await self._transport.read(
                MetadataAnswer, "GET", f"{self._base}/api/v0/cluster_metadata", error_from=dashboard_error, attempts=3
            )
        except (JobNotFoundError, InvalidRequestError, UnreadableAnswerError):
            return None, None
        return (answer.data.ray_version, answer.data.python_version) if answer.data else (None, None)

    async def nodes(self) -> list[RayletAnswer]:
        """Return the nodes of the cluster by Ray's own list, whose ``state`` is ALIVE or DEAD."""
        answer = await self._transport.read(
            NodesAnswer, "GET", f"{self._base}/nodes?view=summary", error_from=dashboard_error
        )
        return [node.raylet for node in answer.data.summary if node.raylet]

    async def usage(self) -> dict[str, tuple[float, float]]:
        """Return the used and total amounts of each resource by Ray's own count; empty if unknown.

        The figures are those that Ray's autoscaler last reported, a few seconds ago.
        """
        answer = await self._transport.read(
            UsageAnswer, "GET", f"{self._base}/api/cluster_status", error_from=dashboard_error
        )
        status = answer.data.cluster_status if answer.data else None
        report = status.load_metrics_report if status else None
        return (report.usage if report else None) or {}
