"""Reading what tells whether a cluster is in use."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_vertex_ray.activity import Activity, activity_of
from airflow_provider_vertex_ray.api.jobs import JobsApi
from airflow_provider_vertex_ray.api.leases import LeaseStore
from airflow_provider_vertex_ray.api.transport import Transport
from airflow_provider_vertex_ray.cluster_name import parse_cluster_name
from airflow_provider_vertex_ray.cluster_state import Cluster, ClusterState
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.job_state import Job
from airflow_provider_vertex_ray.lease import Lease


async def read_activity(transport: Transport, cluster: Cluster, store: LeaseStore | None, now: float) -> Activity:
    """Ask the cluster for its jobs, and the store for its lease; what can not be read counts as use.

    :param store: Where leases are kept; None: activity on the cluster alone decides.
    :param now: Unix time.
    """
    jobs = await _jobs(transport, cluster)
    lease: Lease | str | None = None
    if store is not None:
        try:
            lease, _ = await store.read(parse_cluster_name(cluster.name))
        except VertexRayError as error:
            lease = error.message
    return activity_of(cluster, jobs, lease, now)


async def _jobs(transport: Transport, cluster: Cluster) -> Sequence[Job] | str:
    if cluster.state is ClusterState.ERROR:
        return ()
    if not cluster.dashboard_uri:
        return "it has no dashboard"
    try:
        api = JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri))
        return await api.list_all(drivers=True)
    except VertexRayError as error:
        return error.message
    except (ValueError, TypeError, AttributeError) as error:
        # An answer that was cut, or is of somebody else.
        return f"its answer makes no sense: {error!r}"
