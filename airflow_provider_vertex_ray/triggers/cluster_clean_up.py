"""Trigger that cleans up after a failed create."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.polling import TRANSIENT_ERRORS, Backoff, poll_until
from airflow_provider_vertex_ray.errors import OperationTimeoutError, VertexRayError
from airflow_provider_vertex_ray.triggers.base import WaitTrigger
from airflow_provider_vertex_ray.triggers.cluster_deletion import ClusterDeletion
from airflow_provider_vertex_ray.triggers.kill_deletion import delete_after_kill
from airflow_provider_vertex_ray.triggers.shared_deletion import SharedDeletion

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls


class VertexRayClusterCleanUpTrigger(WaitTrigger):
    """Delete the clusters of a failed create, and wait until they are gone.

    The result contains ``deleted``, and ``kept`` with the reason for each shared cluster that others use.

    :param cluster_names: full resource names of the clusters.
    :param labels: labels that all of them have, such as that of their owner.
    :param shared: for clusters that others may use: ``lease_uri``, ``by``, the name of the one who deletes, and
        ``silent``, the full name of the cluster whose dashboard never answered, if there is one. None for clusters of
        the task's own.
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
        labels: dict[str, str] | None = None,
        shared: dict[str, Any] | None = None,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        poll_interval: float = 15.0,
        deadline: float | None = None,
        passthrough: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            cluster_names=list(cluster_names),
            labels=labels,
            shared=shared,
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

    async def killed(self) -> None:
        """Delete the clusters, as far as the service allows that in the seconds that a kill leaves."""
        await delete_after_kill(self, [self._deletion(name) for name in self.arguments["cluster_names"]])

    async def wait(self) -> dict[str, Any]:
        """Delete all clusters; a failure with one of them does not stop the others."""
        from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls

        self._deletions = [self._deletion(name) for name in self.arguments["cluster_names"]]
        hook = ClusterCalls(self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"])
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

    def _deletion(self, name: str) -> ClusterDeletion:
        labels, shared = self.arguments["labels"], self.arguments["shared"]
        if shared is None:
            return ClusterDeletion(name, self.log, labels=labels)
        silent = name == shared.get("silent")
        lease_uri, by = shared["lease_uri"], shared["by"]
        return SharedDeletion(name, self.log, lease_uri=lease_uri, by=by, silent=silent, labels=labels)

    async def _look(self, hook: ClusterCalls) -> dict[str, Any] | None:
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
        return {
            "deleted": [deletion.cluster_id for deletion in self._deletions if deletion.gone],
            "kept": {deletion.cluster_id: deletion.kept for deletion in self._deletions if deletion.kept},
        }

    def _open(self) -> list[ClusterDeletion]:
        return [
            each
            for each in self._deletions
            if not each.gone and not each.kept and each.cluster_name not in self._failures
        ]

    def _timed_out(self) -> VertexRayError:
        errors = [deletion.timed_out() for deletion in self._open()]
        if len(errors) == 1:
            return errors[0]
        return OperationTimeoutError(
            " ".join(error.message for error in errors), {"clusters": [error.details["cluster"] for error in errors]}
        )
