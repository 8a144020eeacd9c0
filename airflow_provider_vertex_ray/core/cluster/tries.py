"""Ids of a task's tries: a create goes on with another id while the service blocks the one that was asked for.

A deleted cluster's id is blocked for up to two hours (docs/service-facts.md). A retry after a failed create, whose
cluster was cleaned up, and a cleared task, whose cluster was deleted, would therefore fail with the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.state import GONE_STATES, Cluster, ClusterState
from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    ClusterNotFoundError,
    NameNotReusableError,
    NotAuthorisedError,
)

__all__ = ["REQUESTED_LABEL", "ClusterTries", "Started", "id_of_try", "tries_of"]

REQUESTED_LABEL = "vertex-ray-requested-id"
"""Label with the id that was asked for, on a cluster that has another one."""

LONGEST_ID = 63
"""Characters of an id, at most."""

MOST_IDS = 30
"""Ids that one create tries, at most; each of them was blocked by a cluster of the previous two hours."""


def id_of_try(cluster_id: str, number: int) -> str:
    """Return the id of the try with this number, counted from 1: ``etl``, ``etl-2``, ``etl-3``."""
    if number == 1:
        return cluster_id
    suffix = f"-{number}"
    return cluster_id[: LONGEST_ID - len(suffix)].rstrip("-") + suffix


def tries_of(cluster_id: str, clusters: Sequence[Cluster], labels: Mapping[str, str]) -> list[Cluster]:
    """Return those clusters that were created for an id, under that id or another, and have all of these labels.

    :param cluster_id: the id that was asked for
    :param clusters: clusters of one region
    :param labels: required labels
    """
    numbers = {id_of_try(cluster_id, number): number for number in range(1, MOST_IDS + 1)}
    found = [
        cluster
        for cluster in clusters
        if cluster.cluster_id in numbers
        and (cluster.cluster_id == cluster_id or cluster.labels.get(REQUESTED_LABEL) == cluster_id)
        and labels.items() <= cluster.labels.items()
    ]
    return sorted(found, key=lambda cluster: numbers[cluster.cluster_id])


@dataclass(frozen=True)
class Started:
    """A cluster whose creation was started.

    :param name: its name, whose id may differ from the one that was asked for
    :param operation: name of the long-running operation; None if it is unknown
    :param adopted: whether an earlier try of the same owner started it
    :param broken: full names of the owner's clusters in ERROR that were passed over
    """

    name: ClusterName
    operation: str | None = None
    adopted: bool = False
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterTries:
    """Starts the cluster of one owner, under the first id that is not blocked.

    :param api: the control plane
    :param spec: spec of the cluster
    :param labels: labels of the cluster, with the owner's
    :param owner_label: name of the label that identifies the owner
    :param notify: receives log lines for the user
    """

    api: ClustersApi
    spec: ClusterSpec
    labels: Mapping[str, str]
    owner_label: str
    notify: Callable[[str], None]

    async def find(self, names: Sequence[ClusterName]) -> Started | None:
        """Return the live cluster of an earlier try, in any of several regions; None if there is none."""
        owner = {self.owner_label: self.labels[self.owner_label]}
        for name in names:
            try:
                clusters = await self.api.list_all(name.project, name.location)
            except NotAuthorisedError:
                # A role without the permission to list suffices for a create.
                continue
            live = [each for each in tries_of(name.cluster_id, clusters, owner) if each.state not in GONE_STATES]
            if live:
                return Started(replace(name, cluster_id=live[-1].cluster_id), adopted=True)
        return None

    async def start(self, name: ClusterName) -> Started:
        """Create the cluster, or adopt the one that an earlier try created.

        :param name: the name that was asked for
        :raises ClusterExistsError: a cluster of somebody else has the id
        :raises NameNotReusableError: the service blocks every id that was tried
        """
        broken: list[str] = []
        refusal: NameNotReusableError | None = None
        for number in range(1, MOST_IDS + 1):
            tried = replace(name, cluster_id=id_of_try(name.cluster_id, number))
            labels = {**self.labels, **({REQUESTED_LABEL: name.cluster_id} if number > 1 else {})}
            body = self.spec.with_labels(labels).to_persistent_resource(name.location)
            try:
                operation = await self.api.create(tried, body)
            except NameNotReusableError as error:
                refusal = error
                self.notify(f"The id {tried.cluster_id} of a deleted cluster is still blocked; trying the next one")
            except ClusterExistsError as error:
                cluster = await self._find(tried)
                if cluster is None or cluster.state is ClusterState.STOPPING:
                    self.notify(f"Cluster {tried.cluster_id} is being deleted; trying the next id")
                elif cluster.labels.get(self.owner_label) != self.labels[self.owner_label]:
                    if number == 1:
                        raise _owned_by_another(cluster, error) from error
                elif cluster.state is ClusterState.ERROR:
                    self.notify(f"Cluster {tried.cluster_id} of an earlier attempt failed; trying the next id")
                    broken.append(cluster.name)
                else:
                    self.notify(f"Cluster {tried.full} was already started by an earlier attempt; waiting for it")
                    return Started(tried, adopted=True, broken=tuple(broken))
            else:
                return Started(tried, operation, broken=tuple(broken))
        raise refusal or NameNotReusableError(f"cluster_id={name.cluster_id!r}: none of {MOST_IDS} ids can be used.")

    async def _find(self, name: ClusterName) -> Cluster | None:
        try:
            return await self.api.get(name)
        except ClusterNotFoundError:
            return None


def _owned_by_another(cluster: Cluster, error: ClusterExistsError) -> ClusterExistsError:
    dag, task = cluster.labels.get("airflow-dag"), cluster.labels.get("airflow-task")
    by = f" by DAG {dag}, task {task}" if dag else ""
    return ClusterExistsError(
        f"cluster_id={cluster.cluster_id!r}: {error.message} It is {cluster.state.value}, created "
        f"{cluster.create_time}{by}.",
        error.details,
    )
