"""The region of a shared cluster, if several may be used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.core.cluster.state import GONE_STATES, Cluster, ClusterState
from airflow_provider_vertex_ray.core.sharing.generations import newest_first
from airflow_provider_vertex_ray.errors import QuotaExceededError, StockoutError

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.cluster.client import ClustersApi

__all__ = ["CAPACITY_ERRORS", "choose_location"]

CAPACITY_ERRORS = (QuotaExceededError, StockoutError)
"""Errors that another region may not have."""


async def choose_location(
    api: ClustersApi, project: str, locations: Sequence[str], shared_name: str, exhausted: Collection[str]
) -> str:
    """Return the region in which new work uses, or creates, a shared cluster.

    The first region with a live generation comes before any without one, so that everyone ends up on the same cluster.
    A region whose newest generation failed for lack of capacity is passed over while that generation exists.

    :param api: the control plane
    :param project: project of the clusters
    :param locations: the regions, in the order of preference
    :param shared_name: name of the shared cluster
    :param exhausted: regions in which the caller itself met a lack of capacity
    """
    if len(locations) == 1:
        return locations[0]
    empty: list[str] = []
    for location in locations:
        clusters = [cluster for cluster in await api.list_all(project, location) if cluster.is_ray]
        generations = [cluster for _, cluster in newest_first(clusters, shared_name)]
        if any(cluster.state not in GONE_STATES for cluster in generations):
            return location
        if location not in exhausted and not (generations and _lacked_capacity(generations[0])):
            empty.append(location)
    remaining = [location for location in locations if location not in exhausted]
    return [*empty, *remaining, *locations][0]


def _lacked_capacity(cluster: Cluster) -> bool:
    return cluster.state is ClusterState.ERROR and isinstance(cluster.failure(), CAPACITY_ERRORS)
