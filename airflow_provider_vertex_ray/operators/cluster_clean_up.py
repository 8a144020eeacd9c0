"""The end of a create that failed: what it made is deleted, then the task fails with the original reason."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.errors import (
    DashboardNotReadyError,
    OperationTimeoutError,
    VertexRayError,
    error_from_dict,
)
from airflow_provider_vertex_ray.operators.leases import lease_owner_of
from airflow_provider_vertex_ray.operators.owner_labels import owner_label
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster_clean_up import VertexRayClusterCleanUpTrigger
from airflow_provider_vertex_ray.triggers.cluster_deletion import CLEAN_UP_IN_WORKER, CLEAN_UP_TIMEOUT

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator

    Base = VertexRayBaseOperator
else:
    Base = object


class ClusterCleanUpMixin(Base):
    """Clean-up after a create that failed."""

    shared_name: str | None
    lease_uri: str | None
    delete_on_failure: bool
    deferrable: bool
    poll_interval: float

    def _clean_up(self, context: Context, error: VertexRayError, cluster_names: list[str]) -> dict[str, Any]:
        """Delete the clusters of the failed attempts, then raise the error."""
        if not self.delete_on_failure or not cluster_names:
            if isinstance(error, DashboardNotReadyError):
                # It is RUNNING, and whoever looks for a cluster of this name finds it again.
                text = f"{error.message.rstrip('.')}. The cluster was kept, and incurs charges until it is deleted."
                raise type(error)(text, error.details)
            raise error
        self.log.error("%s", error)
        self.log.info("Cleaning up partially created cluster %s", ", ".join(cluster_names))
        until = time.time() + CLEAN_UP_TIMEOUT
        deadline = until if self.deferrable else min(until, time.time() + CLEAN_UP_IN_WORKER)
        trigger = self._clean_up_trigger(context, cluster_names, deadline, error, until)
        return dict(self._wait(context, trigger, self.deferrable, "clean_up_complete"))

    def _clean_up_trigger(
        self, context: Context, cluster_names: list[str], deadline: float, error: VertexRayError, until: float
    ) -> VertexRayClusterCleanUpTrigger:
        known = {"error": error.to_dict(), "cluster_names": cluster_names, "until": until}
        # Other runs wait for a shared cluster too, and use it as soon as it is ready.
        shared = None
        if self.shared_name:
            silent = error.details.get("cluster") if isinstance(error, DashboardNotReadyError) else None
            shared = {"lease_uri": self.lease_uri, "by": lease_owner_of(context, None), "silent": silent}
        return VertexRayClusterCleanUpTrigger(
            cluster_names=cluster_names,
            labels=owner_label(context),
            shared=shared,
            poll_interval=self.poll_interval,
            deadline=deadline,
            passthrough=known,
            **self._connection_arguments(),
        )

    def clean_up_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Raise the reason for the failed creation, after the clean-up."""
        known = (event or {}).get("passthrough") or {}
        original = error_from_dict(known.get("error") or {})
        try:
            kept = result_of(event).get("kept") or {}
        except VertexRayError as left:
            until = known.get("until") or 0.0
            if isinstance(left, OperationTimeoutError) and time.time() < until:
                # The task waited in the worker so far, which is too expensive for what may take hours.
                self.log.info("%s\nContinuing the clean-up in the triggerer", left)
                trigger = self._clean_up_trigger(context, known.get("cluster_names") or [], until, original, until)
                self.defer(trigger=trigger, method_name="clean_up_complete")
            raise type(original)(f"{original.message} The clean-up failed: {left}", original.details) from left
        if kept:
            reasons = "; ".join(f"{cluster_id}: {why}" for cluster_id, why in kept.items())
            text = f"{original.message} The cluster was kept, because others may use it, and incurs charges: {reasons}."
            raise type(original)(text, original.details)
        raise original
