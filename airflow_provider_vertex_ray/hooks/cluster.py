"""Clusters, through an Airflow connection."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.job.capacity import check_shrink, shrinks
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook, VertexRayBaseHook, run_sync


class VertexRayClusterAsyncHook(VertexRayBaseAsyncHook):
    """Clusters, for an event loop. ``cluster_id`` is an id or a full ``projects/…/persistentResources/…`` name."""

    async def create_cluster(
        self, cluster_id: str, spec: ClusterSpec | dict[str, Any], labels: dict[str, str] | None = None
    ) -> str | None:
        """Start the creation of a cluster; it bills from RUNNING on, until it is deleted.

        :param spec: What it should look like.
        :param labels: Labels besides the spec's own.
        :return: The operation's name; None when the answer was lost but the cluster is there.
        :raises InvalidArgumentError: The spec or the id is wrong; nothing was started.
        :raises ClusterExistsError: The id is in use.
        :raises NameNotReusableError: The id was deleted a short time ago.
        """
        spec = ClusterSpec.from_value(spec)
        spec.validate()
        async with self.session() as (transport, project):
            name = self.cluster_name(cluster_id, project)
            body = spec.with_labels(labels or {}).to_persistent_resource(name.location)
            return await ClustersApi(transport).create(name, body)

    async def get_cluster(self, cluster_id: str) -> Cluster:
        """Read one cluster.

        :raises ClusterNotFoundError: There is none of that name.
        """
        async with self.session() as (transport, project):
            return await ClustersApi(transport).get(self.cluster_name(cluster_id, project))

    async def list_clusters(self, labels: dict[str, str] | None = None) -> list[Cluster]:
        """The Ray clusters of the hook's project and location.

        :param labels: Only clusters that carry all of these.
        """
        async with self.session() as (transport, project):
            project = validate_project(project)
            location = validate_location(self._location)
            found = await ClustersApi(transport).list_all(project, location)
        wanted = (labels or {}).items()
        return [cluster for cluster in found if cluster.is_ray and wanted <= cluster.labels.items()]

    async def resize_cluster(self, cluster_id: str, replicas: dict[str, int], *, force: bool = False) -> str | None:
        """Start a change of the numbers of nodes.

        :param replicas: New replica count by pool id. The head's pool counts its head.
        :param force: Whether nodes may go that running jobs need.
        :return: The operation's name; None when the cluster has these counts already.
        :raises InvalidArgumentError: An unknown pool, an autoscaling pool, or a count that the service can not do.
        :raises ClusterInUseError: Less would be left than what running jobs use.
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

    async def replicas_for(self, cluster_id: str, total_nodes: int) -> dict[str, int]:
        """The replica counts with which a cluster has so many nodes in all, the head included.

        :raises InvalidArgumentError: It has no pool of workers that can be resized, or several.
        """
        cluster = (await self.get_cluster(cluster_id)).require_ray()
        open_pools = [pool for pool in cluster.pools if not pool.autoscaling]
        # The head's pool is only resized where it is the only one, because its workers are of the head's kind.
        pools = [pool for pool in open_pools if pool.pool_id != cluster.head_pool_id] or open_pools
        if len(pools) != 1:
            names = ", ".join(pool.pool_id for pool in pools) or "none"
            rule = f"name the pools in replicas instead; those that can be resized: {names}"
            raise InvalidArgumentError("total_nodes", total_nodes, rule)
        others = cluster.node_count - pools[0].replicas
        return {pools[0].pool_id: total_nodes - others}

    async def delete_cluster(self, cluster_id: str) -> str | None:
        """Start the deletion of a cluster.

        :return: The operation's name; None when there is no such cluster.
        :raises PreconditionError: It is PROVISIONING: the service refuses.
        """
        async with self.session() as (transport, project):
            return await ClustersApi(transport).delete(self.cluster_name(cluster_id, project))

    async def get_operation(self, operation: str) -> dict[str, Any]:
        """Read a long-running operation by its full name."""
        location = operation.split("/locations/", 1)[1].split("/", 1)[0]
        async with self.session() as (transport, _):
            return await ClustersApi(transport).operation(location, operation)

    async def dashboard_answers(self, cluster: Cluster) -> bool:
        """Whether the cluster's Jobs API answers.

        :raises NotAuthorisedError: It answers, but not to these credentials.
        """
        if not cluster.dashboard_uri:
            return False
        async with self.session() as (transport, _):
            return await JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri)).is_ready()

    async def live_nodes(self, cluster: Cluster) -> int:
        """How many nodes Ray itself counts as alive, the head included."""
        async with self.session() as (transport, _):
            uri = cluster.require_ray().dashboard_uri or ""
            nodes = await JobsApi(transport, transport.addresses.dashboard(uri)).nodes()
        return sum(1 for node in nodes if (node.get("raylet") or {}).get("state") == "ALIVE")


def check_replicas(cluster: Cluster, replicas: dict[str, int]) -> None:
    """Refuse a resize that the service would refuse, or that leaves a cluster on which jobs hang.

    :raises InvalidArgumentError: Names the pool, the count and the rule.
    """
    pools = {pool.pool_id: pool for pool in cluster.pools}
    for pool_id, count in replicas.items():
        field = f"replicas[{pool_id!r}]"
        if pool_id not in pools:
            raise InvalidArgumentError(field, count, f"cluster {cluster.cluster_id} has the pools {', '.join(pools)}")
        if pools[pool_id].autoscaling:
            raise InvalidArgumentError(field, count, "the pool autoscales; the service changes its size itself")
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 1000:
            raise InvalidArgumentError(field, count, "a pool has 1 to 1000 nodes")
    total = sum(replicas.get(pool.pool_id, pool.replicas) for pool in cluster.pools)
    if total < 2:
        raise InvalidArgumentError(
            "replicas", replicas, "the head alone would be left; it has 0 logical CPUs, so jobs would hang"
        )


class VertexRayClusterHook(VertexRayBaseHook):
    """Clusters, from synchronous code: the calls of ``VertexRayClusterAsyncHook``, each waited for."""

    def _async(self) -> VertexRayClusterAsyncHook:
        return VertexRayClusterAsyncHook(
            self.gcp_conn_id, self.impersonation_chain, self.default_project_id, self.default_location
        )

    def create_cluster(
        self, cluster_id: str, spec: ClusterSpec | dict[str, Any], labels: dict[str, str] | None = None
    ) -> str | None:
        """Start the creation of a cluster; see ``VertexRayClusterAsyncHook.create_cluster``."""
        return run_sync(lambda: self._async().create_cluster(cluster_id, spec, labels))

    def get_cluster(self, cluster_id: str) -> Cluster:
        """Read one cluster; see ``VertexRayClusterAsyncHook.get_cluster``."""
        return run_sync(lambda: self._async().get_cluster(cluster_id))

    def list_clusters(self, labels: dict[str, str] | None = None) -> list[Cluster]:
        """The Ray clusters; see ``VertexRayClusterAsyncHook.list_clusters``."""
        return run_sync(lambda: self._async().list_clusters(labels))

    def resize_cluster(self, cluster_id: str, replicas: dict[str, int], *, force: bool = False) -> str | None:
        """Start a resize; see ``VertexRayClusterAsyncHook.resize_cluster``."""
        return run_sync(lambda: self._async().resize_cluster(cluster_id, replicas, force=force))

    def replicas_for(self, cluster_id: str, total_nodes: int) -> dict[str, int]:
        """Replica counts for so many nodes in all; see ``VertexRayClusterAsyncHook.replicas_for``."""
        return run_sync(lambda: self._async().replicas_for(cluster_id, total_nodes))

    def delete_cluster(self, cluster_id: str) -> str | None:
        """Start the deletion; see ``VertexRayClusterAsyncHook.delete_cluster``."""
        return run_sync(lambda: self._async().delete_cluster(cluster_id))

    @contextlib.contextmanager
    def connect(
        self, cluster_id: str, *, namespace: str | None = None, runtime_env: dict[str, Any] | None = None
    ) -> Iterator[Any]:
        """Connect this process to a cluster through the Ray Client; gives the module ``ray``.

        This process must have the cluster's version of Ray and minor version of Python. It is disconnected at the end
        of the ``with`` block, also after an error in it.

        :param cluster_id: Id or full resource name.
        :param namespace: Ray's namespace; default: an anonymous one.
        :param runtime_env: Ray's runtime environment of the tasks and actors; Ray itself sends local folders.
        :raises RayClientVersionError: The versions differ; it says what to install.
        :raises RayClientConnectedError: Ray is connected in this process already.
        :raises DashboardNotReadyError: The cluster is not RUNNING.
        :raises ServiceUnavailableError: The cluster can not be reached from here.
        """
        from airflow_provider_vertex_ray.hooks.ray_client import connected, refuse_second

        refuse_second()
        options = {"namespace": namespace, "runtime_env": runtime_env}
        given = {key: value for key, value in options.items() if value is not None}
        with connected(self, self._async(), self.get_cluster(cluster_id), given) as ray:
            yield ray

    def get_operation(self, operation: str) -> dict[str, Any]:
        """Read a long-running operation; see ``VertexRayClusterAsyncHook.get_operation``."""
        return run_sync(lambda: self._async().get_operation(operation))

    def dashboard_answers(self, cluster: Cluster) -> bool:
        """Whether the Jobs API answers; see ``VertexRayClusterAsyncHook.dashboard_answers``."""
        return run_sync(lambda: self._async().dashboard_answers(cluster))

    def live_nodes(self, cluster: Cluster) -> int:
        """Nodes that Ray counts as alive; see ``VertexRayClusterAsyncHook.live_nodes``."""
        return run_sync(lambda: self._async().live_nodes(cluster))
