"""Wait for a Ray job with the Google provider's operator. Run by ``requests_per_job`` in a process of its own."""

from __future__ import annotations

import sys
from typing import Any

from airflow.providers.google.cloud.operators.ray import RaySubmitJobOperator


class _TaskInstance:
    def xcom_push(self, key: str, value: Any, **_: Any) -> None:
        """Ignore what the operator stores for its link."""


def main(address: str, entrypoint: str) -> None:
    """Submit a job to the dashboard at ``address`` and wait for its end."""
    operator = RaySubmitJobOperator(
        task_id="peer", cluster_address=address, entrypoint=entrypoint, wait_for_job_done=True
    )
    task_instance = _TaskInstance()
    context: Any = {"ti": task_instance, "task_instance": task_instance, "task": operator}
    operator.execute(context)


if __name__ == "__main__":
    main(*sys.argv[1:])
