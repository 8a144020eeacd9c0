"""Ray's Jobs API on a cluster's dashboard: submit, upload, get, list, stop, delete, tail.

Source: Ray 2.47.1, python/ray/dashboard/modules/job, and what was tried against it (docs/service-facts.md).
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.log_lines import LogAnswer
from airflow_provider_vertex_ray.core.job.packages import Package
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    JobNotFoundError,
    NotAuthorisedError,
    ServiceError,
    ServiceUnavailableError,
    SubmissionIdTakenError,
    VertexRayError,
)

log = logging.getLogger(__name__)

SUBMIT_ATTEMPTS = 6
UPLOAD_TIMEOUT = 1800.0

REQUEST_KEY = "vertex_ray_request"
"""Key in a job's metadata with an id of the submit, by which a submit whose answer was lost knows its job."""

JOB_ACTOR = "_ray_internal_job_actor_"
"""Name of the actor that runs a job's driver, before the submission id (Ray's JOB_ACTOR_NAME_TEMPLATE)."""

DUPLICATE = re.compile(r"submission_id \S+ already exists")
"""Ray answers 500 to a submission id that is in use; only the traceback's text tells it from a failure."""


@dataclass(frozen=True)
class JobRequest:
    """What is submitted.

    :param entrypoint: The shell command.
    :param submission_id: The id, chosen by us so that a repeat finds the first one.
    :param runtime_env: Ray's runtime environment, JSON-able.
    :param metadata: Strings kept with the job.
    :param num_cpus: CPUs reserved for the driver; None runs it on the head.
    :param num_gpus: GPUs reserved for the driver.
    :param memory: Bytes reserved for the driver.
    :param resources: Other resources reserved for the driver.
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
        """The request's JSON; what is None stays out, because the server refuses some nulls."""
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


def dashboard_error(status: int, text: str) -> VertexRayError:
    """The typed error for an answer of a dashboard (or of the proxy before it)."""
    said = _last_line(text)
    details = {"http_status": status}
    if status in (401, 403):
        return NotAuthorisedError(f"The cluster's dashboard answered {status}: {said}", details)
    if status == 404:
        return JobNotFoundError(f"The cluster's dashboard answered 404: {said}", details)
    if status in (400, 405, 413, 422):
        return InvalidRequestError(f"The cluster's dashboard refused the request ({status}): {said}", details)
    if DUPLICATE.search(text):
        return SubmissionIdTakenError(f"The cluster's dashboard answered {status}: {said}", details)
    return ServiceUnavailableError(f"The cluster's dashboard answered {status}: {said}", details)


def _log_text(answer: str) -> str:
    """The value of ``{"logs": "…"}``, also of an answer that was cut within it."""
    log_answer = LogAnswer()
    text = log_answer.feed(answer.encode())
    if not log_answer.started:
        raise ServiceError(f"This is no job's log: {answer[:200]!r}")
    return text


async def _log_pieces(pieces: AsyncIterator[bytes], url: str) -> AsyncIterator[str]:
    answer = LogAnswer()
    async for piece in pieces:
        if text := answer.feed(piece):
            yield text
    if not answer.complete:
        raise ServiceUnavailableError(f"{url} gave only a part of its answer.")


def _last_line(text: str) -> str:
    """Ray puts a whole traceback into the body, or one within another: its last line with words is the reason."""
    lines = [line.strip() for line in text.replace("\\n", "\n").splitlines() if re.search(r"\w", line)]
    return lines[-1][:500] if lines else "(empty answer)"


class JobsApi:
    """The Jobs API of one cluster.

    :param dashboard: Its base URL, from ``Addresses.dashboard``.
    """

    def __init__(self, transport: Transport, dashboard: str) -> None:
        self._transport = transport
        self._base = dashboard

    async def submit(self, request: JobRequest) -> bool:
        """Submit a job; when it returns, the cluster has exactly one job of that id.

        A try whose answer was lost is followed by a look, not by another submit. A word in the metadata that is new
        with each call tells whether the job that is found is this call's.

        :return: False when a job of that id was there before this call.
        :raises InvalidRequestError: The cluster refuses the request.
        """
        failures = 0
        request_id = secrets.token_hex(8)
        body = request.body()
        body["metadata"] = {**request.metadata, REQUEST_KEY: request_id}
        while True:
            try:
                await self._transport.request(
                    "POST",
                    f"{self._base}/api/jobs/",
                    body=body,
                    error_from=dashboard_error,
                    repeatable=False,
                    # The first submit after a cluster's start waits for the head's agent.
                    timeout=120,
                )
                return True
            except SubmissionIdTakenError:
                # After a lost answer it may well be the job that this very call submitted.
                return failures > 0 and (await self.get(request.submission_id)).metadata.get(REQUEST_KEY) == request_id
            except ServiceUnavailableError:
                failures += 1
                found = await self._find_now(request.submission_id)
                if found is not None:
                    return found.metadata.get(REQUEST_KEY) == request_id
                if failures >= SUBMIT_ATTEMPTS:
                    raise
                await self._transport.back_off(failures)

    async def _find_now(self, submission_id: str) -> Job | None:
        """As ``find``; None also while the cluster can not be asked."""
        try:
            return await self.find(submission_id)
        except ServiceUnavailableError:
            return None

    async def get(self, submission_id: str, *, attempts: int | None = None) -> Job:
        """Read one job.

        :raises JobNotFoundError: The cluster knows none of that id.
        """
        answer = await self._transport.request(
            "GET", self._url(submission_id), error_from=dashboard_error, attempts=attempts, timeout=90
        )
        return Job.from_api(answer.json())

    async def find(self, submission_id: str) -> Job | None:
        """Read one job; None when the cluster knows none of that id."""
        try:
            return await self.get(submission_id)
        except JobNotFoundError:
            return None

    async def list_all(self, *, drivers: bool = False) -> list[Job]:
        """All jobs of the cluster. The answer is not paged and slow with thousands of jobs: never poll it.

        :param drivers: Whether with the programs that are connected without having been submitted.
        """
        answer = await self._transport.request("GET", f"{self._base}/api/jobs/", error_from=dashboard_error)
        found = [Job.from_api(item) for item in answer.json()]
        return [job for job in found if drivers or not job.is_driver]

    async def stop(self, submission_id: str) -> bool:
        """Ask a job to stop (SIGTERM, later SIGKILL, to its driver).

        :return: False when it had ended before.
        """
        answer = await self._transport.request("POST", f"{self._url(submission_id)}/stop", error_from=dashboard_error)
        stopped = bool(answer.json().get("stopped"))
        if stopped:
            await self._give_up_pending(submission_id)
        return stopped

    async def _give_up_pending(self, submission_id: str) -> None:
        """End a job that waits for a place: Ray says that it was stopped, and lets it wait on for up to 15 minutes.

        Best effort: the actor that waits is what Ray's dashboard can end. Where this is refused, the job still ends as
        soon as it gets its place.
        """
        try:
            if (await self.get(submission_id, attempts=1)).status is not JobStatus.PENDING:
                return
            for actor in await self.state("actors", name=f"{JOB_ACTOR}{submission_id}"):
                await self._transport.request(
                    "GET",
                    f"{self._base}/api/actors/kill?actor_id={actor['actor_id']}&force_kill=true&no_restart=true",
                    error_from=dashboard_error,
                    attempts=2,
                )
        except VertexRayError as error:
            log.debug("The waiting driver of %s was not ended: %s", submission_id, error)

    async def state(self, kind: str, *, detail: bool = False, **filters: str) -> list[dict[str, Any]]:
        """What Ray's state API lists.

        :param kind: ``nodes``, ``actors`` or ``tasks``.
        :param detail: Whether with all fields.
        :param filters: Fields and the values that they must have.
        """
        query = [("detail", "1")] if detail else []
        for field_name, value in filters.items():
            query += [("filter_keys", field_name), ("filter_predicates", "="), ("filter_values", value)]
        answer = await self._transport.request(
            "GET", f"{self._base}/api/v0/{kind}?{urlencode(query)}", error_from=dashboard_error, attempts=2
        )
        return list(((answer.json().get("data") or {}).get("result") or {}).get("result") or [])

    async def delete(self, submission_id: str) -> None:
        """Forget an ended job and its id; Ray refuses while it is not terminal."""
        await self._transport.request("DELETE", self._url(submission_id), error_from=dashboard_error, repeatable=False)

    async def logs(self, submission_id: str, *, max_bytes: int = 8 << 20) -> str:
        """A job's output so far, cut after ``max_bytes``."""
        answer = await self._transport.request(
            "GET", f"{self._url(submission_id)}/logs", error_from=dashboard_error, max_bytes=max_bytes * 2
        )
        return _log_text(answer.text)[:max_bytes]

    @contextlib.asynccontextmanager
    async def log_so_far(self, submission_id: str) -> AsyncIterator[AsyncIterator[str]]:
        """A job's output from its beginning to what is written by now, in pieces; one try.

        Ray's head has all of it in its memory meanwhile.

        :raises ServiceUnavailableError: No answer, or (while it is read) only a part of it.
        :raises JobNotFoundError: The cluster knows no such job.
        """
        url = f"{self._url(submission_id)}/logs"
        async with self._transport.stream(url, error_from=dashboard_error) as pieces:
            yield _log_pieces(pieces, url)

    @contextlib.asynccontextmanager
    async def tail(self, submission_id: str) -> AsyncIterator[AsyncIterator[str]]:
        """A job's output from its beginning, as it comes, until this one connection ends.

        The end of it says nothing about the job, whatever the close code: ask ``get``.

        :raises ServiceUnavailableError: No connection.
        """
        import aiohttp

        url = "ws" + self._url(submission_id).removeprefix("http") + "/logs/tail"
        async with self._transport.websocket(url, error_from=dashboard_error) as connection:
            yield (frame.data async for frame in connection if frame.type is aiohttp.WSMsgType.TEXT)

    async def upload(self, package: Package, progress: Callable[[int], None] | None = None) -> bool:
        """Send a package unless the cluster has it; the look keeps it there for ten more minutes.

        :param progress: Is told the number of bytes that are sent, from another thread.
        :return: Whether it was sent.
        """
        url = f"{self._base}/api/packages/gcs/{quote(package.name)}"
        try:
            await self._transport.request("GET", url, error_from=dashboard_error)
            return False
        except JobNotFoundError:
            pass
        await self._transport.request(
            "PUT",
            url,
            data=lambda: package.open(progress),
            error_from=dashboard_error,
            timeout=UPLOAD_TIMEOUT,
        )
        return True

    async def is_ready(self) -> bool:
        """Whether the dashboard serves the Jobs API; one cheap try.

        :raises NotAuthorisedError: It answers, but not to these credentials.
        """
        try:
            await self._transport.request(
                "GET", f"{self._base}/api/version", error_from=dashboard_error, attempts=1, timeout=15
            )
        except (ServiceUnavailableError, JobNotFoundError, InvalidRequestError):
            return False
        return True

    async def versions(self) -> tuple[str | None, str | None]:
        """Ray's and Python's version on the head, such as ``("2.47.1", "3.11.9")``; None each where it does not say."""
        try:
            answer = await self._transport.request(
                "GET", f"{self._base}/api/v0/cluster_metadata", error_from=dashboard_error
            )
        except (JobNotFoundError, InvalidRequestError):
            return None, None
        said = answer.json().get("data") or {}
        return said.get("rayVersion"), said.get("pythonVersion")

    async def nodes(self) -> list[dict[str, Any]]:
        """Ray's own list of nodes (``raylet.state`` is ALIVE or DEAD)."""
        answer = await self._transport.request("GET", f"{self._base}/nodes?view=summary", error_from=dashboard_error)
        return list((answer.json().get("data") or {}).get("summary") or [])

    async def usage(self) -> dict[str, tuple[float, float]]:
        """Ray's own count of what is used and what there is of each resource; empty where it does not say.

        It is what Ray's autoscaler last reported, some seconds ago.
        """
        answer = await self._transport.request("GET", f"{self._base}/api/cluster_status", error_from=dashboard_error)
        status = (answer.json().get("data") or {}).get("clusterStatus") or {}
        found = (status.get("loadMetricsReport") or {}).get("usage") or {}
        return {str(name): (float(used), float(total)) for name, (used, total) in found.items()}

    def _url(self, submission_id: str) -> str:
        return f"{self._base}/api/jobs/{quote(submission_id, safe='')}"
