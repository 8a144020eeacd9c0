"""Calls for Ray clusters on Vertex AI."""

from __future__ import annotations

from typing import Any

from airflow_provider_vertex_ray.core.checks import is_whole
from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName, validate_location, validate_project
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.job.capacity import check_shrink, shrinks
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.errors import InvalidArgumentError, UnreadableAnswerError
from airflow_provider_vertex_ray.hooks.calls.base import BaseCalls


class ClusterCalls(BaseCalls):
    """Manage Ray clusters from asynchronous code.

    ``cluster_id`` is an id, or a full resource name (``projects/…/locations/…/persistentResources/…``).
    """

    async def create_cluster(
        self, cluster_id: str | ClusterName, spec: ClusterSpec | dict[str, Any], labels: dict[str, str] | None = None
    ) -> str | None:
        """Start the creation of a cluster, which incurs charges from RUNNING until it is deleted.

        :param cluster_id: id or full resource name of the new cluster.
        :param spec: specification of the cluster.
        :param labels: labels in addition to those in the spec.
        :return: name of the long-running operation; None if the response was lost, but the cluster exists.
        :raises InvalidArgumentError: the spec or the id is invalid; no request was made.
        :raises ClusterExistsError: a cluster with this id exists.
        :raises NameNotReusableError: a cluster with this id was deleted recently.
        """
        spec = ClusterSpec.from_value(spec)
        spec.validate()
        async with self.session() as (transport, project):
            name = self.cluster_name(cluster_id, project)
            body = spec.with_labels(labels or {}).to_persistent_resource(name.location)
            return await ClustersApi(transport).create(name, body)

    async def get_cluster(self, cluster_id: str | ClusterName) -> Cluster:
        """Return a cluster.

        :param cluster_id: id or full resource name.
        :raises ClusterNotFoundError: the cluster does not exist.
        """
        async with self.session() as (transport, project):
            return await ClustersApi(transport).get(self.cluster_name(cluster_id, project))

    async def list_clusters(self, labels: dict[str, str] | None = None) -> list[Cluster]:
        """Return the Ray clusters in the hook's project and region.

        :param labels: return only clusters that have all of these labels.
        """
        async with self.session() as (transport, project):
            project = validate_project(project)
            location = validate_location(self._location)
            found = await ClustersApi(transport).list_all(project, location)
        wanted = (labels or {}).items()
        return [cluster for cluster in found if cluster.is_ray and wanted <= cluster.labels.items()]

    async def resize_cluster(
        self, cluster_id: str | ClusterName, replicas: dict[str, int], *, force: bool = False
    ) -> str | None:
        """Start a change of the replica counts.

        :param cluster_id: id or full resource name.
        :param replicas: new replica count by pool id. The count of the head's pool includes the head.
        :param force: whether to remove nodes even if running jobs need them.
        :return: name of the long-running operation; None if the cluster already has these counts.
        :raises InvalidArgumentError: a pool does not exist or autoscales, or a count is out of range.
        :raises ClusterInUseError: the remaining nodes would not suffice for the running jobs, or their use cannot be
            read.
        :raises UnreadableAnswerError: the service does not say how many nodes a pool has.
        """
        async with self.session() as (transport, project):
            name = self.cluster_name(cluster_id, project)
            api = ClustersApi(transport)
            cluster = (await api.get(name)).require_ray()
            check_replicas(cluster, replicas)
            if all(pool.replicas == replicas.get(pool.pool_id, pool.replicas) for pool in cluster.pools):
                return None
            if not force and shrinks(cluster, replicas):
                dashboard = transport.addresses.dashboard(cluster.dashboard_uri or "")
                await check_shrink(JobsApi(transport, dashboard), cluster, replicas)
            pools = [
                {**pool, "replicaCount": str(replicas.get(str(pool.get("id")), pool.get("replicaCount")))}
                if "replicaCount" in pool
                else pool
                for pool in cluster.resource.get("resourcePools") or []
            ]
            return await api.resize(name, pools)

    async def replicas_for(self, cluster_id: str | ClusterName, total_nodes: int) -> dict[str, int]:
        """Return the replica counts with which a cluster has a given number of nodes.

        :param cluster_id: id or full resource name.
        :param total_nodes: number of nodes, including the head.
        :return: replica count by pool id, for ``resize_cluster``.
        :raises InvalidArgumentError: the cluster has no worker pool that can be resized, or several.
        """
        cluster = (await self.get_cluster(cluster_id)).require_ray()
        open_pools = [pool for pool in cluster.pools if not pool.autoscaling]
        # The head's pool is resized only if it is the only one: its workers have the head's machine type.
        pools = [pool for pool in open_pools if pool.pool_id != cluster.head_pool_id] or open_pools
        if len(pools) != 1:
            names = ", ".join(pool.pool_id for pool in pools) or "none"
            rule = f"Set the pools in replicas instead; pools that can be resized: {names}."
            raise InvalidArgumentError("total_nodes", total_nodes, rule)
        others = cluster.node_count - pools[0].replicas
        return {pools[0].pool_id: total_nodes - others}

    async def delete_cluster(self, cluster_id: str | ClusterName) -> str | None:
        """Start the deletion of a cluster.

        :param cluster_id: id or full resource name.
        :return: name of the long-running operation; None if the cluster does not exist.
        :raises PreconditionError: the cluster is PROVISIONING, so Vertex AI rejects the deletion.
        """
        async with self.session() as (transport, project):
            return await ClustersApi(transport).delete(self.cluster_name(cluster_id, project))

    async def get_operation(self, operation: str) -> dict[str, Any]:
        """Return a long-running operation.

        :param operation: full name of the operation.
        :raises UnreadableAnswerError: the name has no location.
        """
        location = operation.partition("/locations/")[2].partition("/")[0]
        if not location:
            raise UnreadableAnswerError(f"The service named an operation {operation!r}, which has no location.")
        async with self.session() as (transport, _):
            return await ClustersApi(transport).operation(location, operation)

    async def dashboard_problem(self, cluster: Cluster) -> str | None:
        """Return why the dashboard of a cluster does not serve the Jobs API yet; None if it does.

        :param cluster: the cluster, as ``get_cluster`` returns it.
        """
        if not cluster.dashboard_uri:
            return "The cluster has no dashboard address."
        async with self.session() as (transport, _):
            return await JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri)).not_ready()

    async def live_nodes(self, cluster: Cluster) -> int:
        """Return the number of nodes that Ray reports as alive, including the head.

        :param cluster: the cluster, as ``get_cluster`` returns it.
        """
        async with self.session() as (transport, _):
            uri = cluster.require_ray().dashboard_uri or ""
            nodes = await JobsApi(transport, transport.addresses.dashboard(uri)).nodes()
        return sum(1 for node in nodes if node.state == "ALIVE")


def check_replicas(cluster: Cluster, replicas: dict[str, int]) -> None:
    """Validate that the service accepts a resize, and that jobs can run afterwards.

    :param cluster: the cluster.
    :param replicas: new replica count by pool id.
    :raises InvalidArgumentError: a pool does not exist or autoscales, a count is out of range, or no worker remains.
    :raises UnreadableAnswerError: the service does not say how many nodes a pool has, so it may become smaller.
    """
    pools = {pool.pool_id: pool for pool in cluster.pools}
    for pool_id, count in replicas.items():
        field = f"replicas[{pool_id!r}]"
        if pool_id not in pools:
            raise InvalidArgumentError(field, count, f"Use a pool of cluster {cluster.cluster_id}: {', '.join(pools)}.")
        if pools[pool_id].autoscaling:
            raise InvalidArgumentError(field, count, "The pool autoscales, so it cannot be resized.")
        if not is_whole(count) or not 1 <= count <= 1000:
            raise InvalidArgumentError(field, count, "Use a whole number from 1 to 1000.")
        if pools[pool_id].replicas < 1:
            raise UnreadableAnswerError(f"The service does not say how many nodes pool {pool_id} has.")
    total = sum(replicas.get(pool.pool_id, pool.replicas) for pool in cluster.pools)
    if total < 2:
        raise InvalidArgumentError(
            "replicas", replicas, "Keep at least one worker: the head has 0 logical CPUs, so jobs would hang."
        )
