"""Trigger that waits for a BigQuery step: a job that may leave staging tables behind when it is killed."""

from __future__ import annotations

from typing import Any

from airflow_provider_vertex_ray.core.threads import in_airflow_thread
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger


class VertexRayBigQueryTrigger(VertexRayJobTrigger):
    """Wait for the end of a job, and delete its staging tables if the task is killed.

    :param staging: where the staging tables are: ``dataset``, and ``project``, which is billed.
    :param arguments: arguments of ``VertexRayJobTrigger``.
    """

    def __init__(self, *, staging: dict[str, Any], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.arguments["staging"] = staging

    async def killed(self) -> None:
        """Stop the job, wait until it has ended, then delete its staging tables."""
        await super().killed()
        if not self.arguments["stop_on_kill"]:
            return
        await in_airflow_thread(self._drop)

    def _drop(self) -> None:
        from airflow_provider_vertex_ray.hooks.bigquery import VertexRayBigQueryHook

        staging = self.arguments["staging"]
        hook = VertexRayBigQueryHook(
            self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"], staging["project"]
        )
        hook.drop_staging(staging["dataset"], [self.submission_id])
