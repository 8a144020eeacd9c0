"""Deletion of clusters, step by step, and the trigger that cleans up after a failed create."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.cluster.state import ClusterState
from airflow_provider_vertex_ray.core.http.service_errors import outcome_error
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    OperationTimeoutError,
    PreconditionError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers.base import WaitTrigger
from airflow_provider_vertex_ray.triggers.polling import TRANSIENT_ERRORS, Backoff, poll_until

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook

    Request = Callable[[VertexRayClusterAsyncHook], Awaitable[str | None]]

CLEAN_UP_TIMEOUT = 6 * 3600.0
"""Seconds within which a cluster whose creation failed must be deleted; the service first ends PROVISIONING.

PROVISIONING was seen to last 2 h 17 min (docs/service-facts.md), and the cluster bills once it is RUNNING."""

CLEAN_UP_IN_WORKER = 600.0
"""Seconds of the clean-up that a task without ``deferrable`` waits in the worker; the triggerer does the rest."""


async def operation_failure(hook: VertexRayClusterAsyncHook, operation: str | None) -> VertexRayError | None:
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

    :param cluster_name: full resource name of the cluster.
    :param log: the task's log.
    :param request: sends the request and returns its operation, where more is to be done than that.
    """

    def __init__(self, cluster_name: str, log: Any, request: Request | None = None) -> None:
        self.cluster_name = cluster_name
        self.cluster_id = cluster_name.rsplit("/", 1)[-1]
        self.existed = False
        self.gone = False
        self._log = log
        self._request = request
        self._accepted = False
        self._operation: str | None = None
        self._refusal = ""

    async def step(self, hook: VertexRayClusterAsyncHook) -> bool:
        """Check whether the cluster exists, and request its deletion until that is accepted.

        :return: whether it no longer exists.
        :raises VertexRayError: the deletion failed, or its state could not be read.
        """
        try:
            cluster = await hook.get_cluster(self.cluster_name)
        except ClusterNotFoundError:
            if not self.gone:
                self._log.info("Cluster %s is deleted", self.cluster_id)
            self.gone = True
            return True
        self.existed = True
        if cluster.state is ClusterState.STOPPING:
            self._accepted = True
        if self._accepted:
            failure = await operation_failure(hook, self._operation)
            if failure is not None:
                raise failure
            return False
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
    """

    def __init__(self, cluster_names: Iterable[str], log: Any) -> None:
        self._log = log
        self._deletions = {name: ClusterDeletion(name, log) for name in cluster_names}
        self._failed: set[str] = set()

    def add(self, cluster_name: str) -> None:
        """Delete another cluster, too."""
        self._deletions.setdefault(cluster_name, ClusterDeletion(cluster_name, self._log))

    @property
    def remaining(self) -> list[str]:
        """Return the full names of the clusters that are not known to be gone."""
        return [name for name, deletion in self._deletions.items() if not deletion.gone]

    async def step(self, hook: VertexRayClusterAsyncHook) -> None:
        """Take the next step of each deletion; a failure is logged only, as the wait is for something else."""
        for name in self.remaining:
            try:
                await self._deletions[name].step(hook)
            except VertexRayError as error:
                if name not in self._failed:
                    self._failed.add(name)
                    self._log.warning("Could not delete cluster %s yet: %s", name, error)


class VertexRayClusterCleanUpTrigger(WaitTrigger):
    """Delete the clusters of a failed create, and wait until they are gone; the result contains ``deleted``.

    :param cluster_names: full resource names of the clusters.
    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param poll_interval: seconds between two polls at most; the first ones follow each other faster.
    :param deadline: Unix time at which the wait fails; None for no limit.
    :param passthrough: JSON that is returned in the event unchanged.
    :raises OperationTimeoutError: not all clusters were deleted before the deadline.
    :raises NotAuthorisedError: the account may not delete clusters.
    :raises ServiceError: a deletion failed for another reason.
    """

    def __init__(
        self,
        *,
        cluster_names: Sequence[str],
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        poll_interval: float = 15.0,
        deadline: float | None = None,
        passthrough: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            cluster_names=list(cluster_names),
            gcp_conn_id=gcp_conn_id,
            impersonation_chain=impersonation_chain,
            poll_interval=poll_interval,
            deadline=deadline,
            passthrough=passthrough,
        )
        self._deadline = deadline
        self._backoff = Backoff(poll_interval)
        self._failures: dict[str, VertexRayError] = {}
        self._deletions: list[ClusterDeletion] = []

    async def wait(self) -> dict[str, Any]:
        """Delete all clusters; a failure with one of them does not stop the others."""
        from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook

        self._deletions = [ClusterDeletion(name, self.log) for name in self.arguments["cluster_names"]]
        hook = VertexRayClusterAsyncHook(self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"])
        async with hook.session():
            result = await poll_until(
                lambda: self._look(hook),
                backoff=self._backoff,
                deadline=self._deadline,
                timed_out=self._timed_out,
                on_unreadable=self.on_unreadable,
            )
        for failure in self._failures.values():
            raise failure
        return result

    async def _look(self, hook: VertexRayClusterAsyncHook) -> dict[str, Any] | None:
        unread: VertexRayError | None = None
        for deletion in self._open():
            try:
                await deletion.step(hook)
            except TRANSIENT_ERRORS as error:
                unread = error
            except VertexRayError as error:
                self._failures[deletion.cluster_name] = error
        if unread is not None:
            raise unread
        if self._open():
            return None
        return {"deleted": [deletion.cluster_id for deletion in self._deletions if deletion.gone]}

    def _open(self) -> list[ClusterDeletion]:
        return [each for each in self._deletions if not each.gone and each.cluster_name not in self._failures]

    def _timed_out(self) -> VertexRayError:
        errors = [deletion.timed_out() for deletion in self._open()]
        if len(errors) == 1:
            return errors[0]
        return OperationTimeoutError(
            " ".join(error.message for error in errors), {"clusters": [error.details["cluster"] for error in errors]}
        )
