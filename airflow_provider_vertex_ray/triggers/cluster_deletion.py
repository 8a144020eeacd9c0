"""Deletion of clusters, step by step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    OperationTimeoutError,
    PreconditionError,
    VertexRayError,
)

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

    Request = Callable[[ClusterCalls], Awaitable[str | None]]

CLEAN_UP_TIMEOUT = 6 * 3600.0
"""Seconds within which a cluster whose creation failed must be deleted; the service first ends PROVISIONING.

PROVISIONING was seen to last 2 h 17 min (docs/service-facts.md), and the cluster bills once it is RUNNING."""

CLEAN_UP_IN_WORKER = 600.0
"""Seconds of the clean-up that a task without ``deferrable`` waits in the worker; the triggerer does the rest."""

LATEST_CREATION = 300.0
"""Seconds after which a cluster's creation is later than a task's start, whatever the clocks of the two say."""


async def operation_failure(hook: ClusterCalls, operation: str | None) -> VertexRayError | None:
    """Return the error of a long-running operation, if it has failed.

    :param hook: the hook.
    :param operation: name of the operation; None if it is unknown.
    """
    if operation is None:
        return None
    try:
        found = await hook.get_operation(operation)
    except ClusterNotFoundError:
        return None
    error = found.get("error")
    if not found.get("done") or not error:
        return None
    return outcome_error(str(error.get("message", "")), error.get("code"))


class ClusterDeletion:
    """Delete one cluster, and find out when it is gone.

    Vertex AI rejects the request while the cluster is PROVISIONING, so it is repeated until the service accepts it. The
    cluster is read by its name, because a cluster whose creation failed may not be listed.

    That may take hours, after which the service gives the id of a deleted cluster to whoever asks for it. So another
    cluster of the same name counts as none: one with another ``create_time`` than the first one that was read, and what
    the parameters exclude.

    :param cluster_name: full resource name of the cluster.
    :param log: the task's log.
    :param request: sends the request and returns its operation, where more is to be done than that.
    :param created: ``create_time`` of the cluster, if it is known; empty if there was none.
    :param began: Unix time at which the task was told to delete the cluster, which therefore existed then.
    :param labels: labels that the cluster has, such as that of its owner.
    """

    def __init__(
        self,
        cluster_name: str,
        log: Any,
        request: Request | None = None,
        *,
        created: str | None = None,
        began: float | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.cluster_name = cluster_name
        self.cluster_id = cluster_name.rsplit("/", 1)[-1]
        self.existed = False
        self.gone = created == ""
        self.kept = ""
        self._log = log
        self._request = request
        self._created = created
        self._began = began
        self._labels = dict(labels or {})
        self._accepted = False
        self._operation: str | None = None
        self._refusal = ""

    @property
    def accepted(self) -> bool:
        """Tell whether the cluster is gone, or is being deleted."""
        return self._accepted or self.gone

    @property
    def refusal(self) -> str:
        """Return the last reason for which the service did not delete the cluster; empty for none."""
        return self._refusal

    async def step(self, hook: ClusterCalls) -> bool:
        """Check whether the cluster exists, and request its deletion until that is accepted.

        :return: whether it no longer exists.
        :raises VertexRayError: the deletion failed, or its state could not be read.
        """
        if self.gone:
            return True
        cluster = await self._read(hook)
        return True if cluster is None else await self._delete(hook, cluster)

    async def _read(self, hook: ClusterCalls) -> Cluster | None:
        """Return the cluster; None if it no longer exists."""
        try:
            cluster = await hook.get_cluster(self.cluster_name)
        except ClusterNotFoundError:
            self._log.info("Cluster %s is deleted", self.cluster_id)
            self.gone = True
            return None
        if self._is_another(cluster):
            self._log.info(
                "Cluster %s no longer exists; the one of the same id, created %s, is not this task's to delete",
                self.cluster_id,
                cluster.create_time,
            )
            self.gone = True
            return None
        self.existed = True
        return cluster

    def _is_another(self, cluster: Cluster) -> bool:
        """Tell whether a cluster is not the one to delete, but has its name."""
        if self._labels.items() - cluster.labels.items():
            return True
        if self._created is None:
            if self._began is not None and (cluster.created or 0.0) > self._began + LATEST_CREATION:
                return True
            self._created = cluster.create_time
        return None not in (self._created, cluster.create_time) and self._created != cluster.create_time

    async def _delete(self, hook: ClusterCalls, cluster: Cluster) -> bool:
        """Take the next step of the deletion of a cluster that exists; return whether it has ended."""
        if cluster.state is ClusterState.STOPPING:
            self._accepted = True
        if self._accepted:
            failure = await operation_failure(hook, self._operation)
            if failure is None:
                return False
            # It was read before its operation: what has ended the one may have ended the other.
            if await self._read(hook) is None:
                return True
            raise failure
        try:
            request = self._request
            self._operation = await (request(hook) if request else hook.delete_cluster(self.cluster_name))
            self._accepted = True
            self._log.info("Waiting for cluster %s to be deleted", self.cluster_id)
        except PreconditionError as error:
            if str(error) != self._refusal:
                self._refusal = str(error)
                self._log.info("Vertex AI rejected the deletion of cluster %s; retrying: %s", self.cluster_id, error)
        return False

    def timed_out(self) -> OperationTimeoutError:
        """Return the error for a deadline that has passed; it tells whether the service ever accepted the deletion."""
        if self._accepted:
            progress = "its deletion continues"
        elif self._refusal:
            progress = f"Vertex AI rejected its deletion: {self._refusal}"
        else:
            progress = "its deletion could not be requested"
        return OperationTimeoutError(
            f"Timed out waiting for cluster {self.cluster_id} to be deleted; {progress.rstrip('.')}. "
            "It may still incur charges.",
            {"cluster": self.cluster_name},
        )


class Leftovers:
    """Clusters of failed attempts, deleted while something else is waited for.

    :param cluster_names: full resource names.
    :param log: the task's log.
    :param labels: labels that all of them have.
    """

    def __init__(self, cluster_names: Iterable[str], log: Any, labels: Mapping[str, str] | None = None) -> None:
        self._log = log
        self._labels = labels
        self._deletions: dict[str, ClusterDeletion] = {}
        self._failed: set[str] = set()
        for name in cluster_names:
            self.add(name)

    def add(self, cluster_name: str) -> None:
        """Delete another cluster, too."""
        if cluster_name not in self._deletions:
            self._deletions[cluster_name] = ClusterDeletion(cluster_name, self._log, labels=self._labels)

    @property
    def remaining(self) -> list[str]:
        """Return the full names of the clusters that are not known to be gone."""
        return [name for name, deletion in self._deletions.items() if not deletion.gone]

    async def step(self, hook: ClusterCalls) -> None:
        """Take the next step of each deletion; a failure is logged only, as the wait is for something else."""
        for name in self.remaining:
            try:
                await self._deletions[name].step(hook)
            except VertexRayError as error:
                if name not in self._failed:
                    self._failed.add(name)
                    self._log.warning("Could not delete cluster %s yet: %s", name, error)
