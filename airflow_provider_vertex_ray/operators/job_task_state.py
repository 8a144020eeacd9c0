"""Record of a task's job in the task state store of Airflow 3.3, which outlives the tries of the task.

The store adds to what the submission ID tells. Without a store, or if it fails, the submission ID alone is safe.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.core.job.state import Record

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

STORE_KEY = "vertex_ray_job"


def remembered(context: Context) -> Record | None:
    """Return the record that an earlier try, or this one, has stored; None without one."""
    store = context.get("task_state_store")
    try:
        return None if store is None else Record.of(store.get(STORE_KEY))
    except Exception:
        log.warning(
            "Could not read Airflow's task state store; finding the job by its submission ID alone", exc_info=True
        )
        return None


def remember(context: Context, record: Record) -> None:
    """Store the record, before anything is submitted."""
    store = context.get("task_state_store")
    try:
        if store is not None:
            store.set(STORE_KEY, record.to_json())
    except Exception:
        log.warning(
            "Could not write Airflow's task state store; later tries find the job by its submission ID alone",
            exc_info=True,
        )


def forget(context: Context) -> None:
    """Delete the record, once the task has succeeded."""
    store = context.get("task_state_store")
    try:
        if store is not None:
            store.delete(STORE_KEY)
    except Exception:
        log.warning("Could not delete the record of the job from Airflow's task state store", exc_info=True)
