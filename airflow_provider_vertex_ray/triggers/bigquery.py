"""Waiting for a BigQuery step: a job, which may leave staging tables when it is killed."""

from __future__ import annotations

from typing import Any

from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger


class VertexRayBigQueryTrigger(VertexRayJobTrigger):
    """Waits as ``VertexRayJobTrigger`` does.

    :param staging: Where a killed job's tables are: ``dataset``, ``owner`` and ``project``.
    :param arguments: As for ``VertexRayJobTrigger``.
    """

    def __init__(self, *, staging: dict[str, Any], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.arguments["staging"] = staging

    async def killed(self) -> None:
        """Stop the job, wait until it has ended, then delete what it left."""
        await super().killed()
        if not self.arguments["stop_on_kill"]:
            return
        from asgiref.sync import sync_to_async

        await sync_to_async(self._drop)()

    def _drop(self) -> None:
        from airflow_provider_vertex_ray.hooks.bigquery import VertexRayBigQueryHook

        staging = self.arguments["staging"]
        hook = VertexRayBigQueryHook(
            self.arguments["gcp_conn_id"], self.arguments["impersonation_chain"], staging["project"]
        )
        hook.drop_staging(staging["dataset"], staging["owner"])
