"""Where work goes whose shared cluster is gone, or about to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_vertex_ray.api.clusters import ClustersApi
from airflow_provider_vertex_ray.api.transport import Transport
from airflow_provider_vertex_ray.cluster_name import ClusterName, parse_cluster_name
from airflow_provider_vertex_ray.cluster_spec import ClusterSpec
from airflow_provider_vertex_ray.cluster_state import Cluster
from airflow_provider_vertex_ray.errors import ClusterNotFoundError
from airflow_provider_vertex_ray.generations import SHARED_LABEL, newest_first, shared_name_of


@dataclass(frozen=True)
class Successor:
    """What a shared cluster's next generation is to be.

    :param shared_name: Its name.
    :param spec: ``ClusterSpec.to_dict()`` of the generation before.
    :param project: Project.
    :param location: Region.
    """

    shared_name: str
    spec: dict[str, Any]
    project: str
    location: str


async def successor_of(transport: Transport, name: ClusterName) -> Successor | None:
    """What takes the place of a cluster; None for one that is not shared, or of which nothing is left to tell.

    :param name: The cluster, which may be gone.
    """
    api = ClustersApi(transport)
    cluster: Cluster | None
    try:
        cluster = await api.get(name)
    except ClusterNotFoundError:
        # Only its id says what it was; a generation that is there still has the labels and the spec.
        shared = shared_name_of(name.cluster_id)
        generations = newest_first(await api.list_all(name.project, name.location), shared) if shared else []
        cluster = generations[0][1] if generations else None
    if cluster is None or not cluster.labels.get(SHARED_LABEL):
        return None
    spec = ClusterSpec.from_persistent_resource(cluster.resource)
    found = parse_cluster_name(cluster.name)
    return Successor(cluster.labels[SHARED_LABEL], spec.to_dict(), found.project, found.location)
