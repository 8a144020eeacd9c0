"""Harmless looks at what exists in a project: which of the package's assumptions hold on the real service.

Nothing is created, changed or submitted. docs/never-tried.md says what each finding tells.
"""

from __future__ import annotations

import asyncio
import time

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.state import USABLE_STATES, Cluster
from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.preflight.report import Finding, Status
from airflow_provider_vertex_ray.errors import JobNotFoundError, VertexRayError

__all__ = ["LIVE", "MOST_CLUSTERS", "live_findings"]

LIVE = "live"
"""Name of the check."""

MOST_CLUSTERS = 5
"""Clusters whose dashboards are asked, at most."""

HANDSHAKE = 15.0
"""Seconds within which a websocket must open."""

_NO_JOB = "vertex-ray-live-check-no-such-job"


async def live_findings(transport: Transport, project: str, location: str) -> list[Finding]:
    """List the clusters of a region, and ask the dashboards of those that are usable.

    :param transport: the connection
    :param project: id or number of the project
    :param location: the region
    """
    began = time.monotonic()
    try:
        clusters = await ClustersApi(transport).list_all(project, location)
    except VertexRayError as error:
        return [Finding(LIVE, Status.FAIL, location, f"the clusters could not be listed: {error}")]
    found = [
        Finding(
            LIVE,
            Status.PASS,
            location,
            f"{len(clusters)} persistent resources listed in {time.monotonic() - began:.1f} s: {_counted(clusters)}",
        )
    ]
    usable = [cluster for cluster in clusters if cluster.is_ray and cluster.state in USABLE_STATES]
    if not usable:
        found.append(Finding(LIVE, Status.COULD_NOT_CHECK, "dashboard", "no Ray cluster is RUNNING or UPDATING"))
    for cluster in usable[:MOST_CLUSTERS]:
        found += await _dashboard(transport, cluster)
    return found


async def _dashboard(transport: Transport, cluster: Cluster) -> list[Finding]:
    uri = cluster.dashboard_uri or ""
    address = transport.addresses.dashboard(uri)
    api = JobsApi(transport, address)
    subject = f"dashboard of {cluster.cluster_id}"
    if not transport.addresses.token_may_go_to(address):
        remedy = f"[vertex_ray] dashboard_hosts = {uri.partition('/')[0]}"
        return [Finding(LIVE, Status.FAIL, subject, f"{uri} is not a host that may receive the token", remedy)]
    began = time.monotonic()
    problem = await api.not_ready()
    if problem is not None:
        return [Finding(LIVE, Status.FAIL, subject, f"{cluster.state.value}, but not ready: {problem}")]
    found = [
        Finding(LIVE, Status.PASS, subject, f"{cluster.state.value}; answered in {time.monotonic() - began:.1f} s")
    ]
    began = time.monotonic()
    try:
        jobs = await api.list_all(drivers=True)
        text = f"{len(jobs)} jobs and drivers listed in {time.monotonic() - began:.1f} s"
        found.append(Finding(LIVE, Status.PASS, f"jobs of {cluster.cluster_id}", text))
    except VertexRayError as error:
        found.append(Finding(LIVE, Status.FAIL, f"jobs of {cluster.cluster_id}", error.message))
    found.append(await _websocket(api, cluster))
    return found


async def _websocket(api: JobsApi, cluster: Cluster) -> Finding:
    """Tell whether a websocket reaches Ray: it answers 404 to a job that does not exist, or opens and closes it."""
    subject = f"websockets of {cluster.cluster_id}"

    async def open_one() -> None:
        async with api.tail(_NO_JOB) as frames:
            async for _ in frames:
                break

    try:
        await within(HANDSHAKE, open_one())
    except JobNotFoundError:
        return Finding(LIVE, Status.PASS, subject, "the request for one reaches Ray, which has no such job")
    except (VertexRayError, asyncio.TimeoutError) as error:
        text = error.message if isinstance(error, VertexRayError) else f"no answer within {HANDSHAKE:.0f} s"
        return Finding(LIVE, Status.WARN, subject, f"they do not pass, so logs are read without them: {text}")
    return Finding(LIVE, Status.PASS, subject, "they pass")


def _counted(clusters: list[Cluster]) -> str:
    states = [cluster.state.value for cluster in clusters]
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "none"
