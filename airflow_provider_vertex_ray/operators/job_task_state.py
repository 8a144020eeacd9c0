"""What a task keeps about its job in the task state store of Airflow 3.3, over its tries.

The store is a help beyond what the job's id can say. Where there is none, or it fails, the id alone is safe.
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
    """What an earlier try, or this one, has kept."""
    store = context.get("task_state_store")
    try:
        return None if store is None else Record.of(store.get(STORE_KEY))
    except Exception:
        log.warning("Airflow's task state store can not be read; going by the job's id alone", exc_info=True)
        return None


def remember(context: Context, record: Record) -> None:
    """Keep it, before anything is submitted."""
    store = context.get("task_state_store")
    try:
        if store is not None:
            store.set(STORE_KEY, record.to_json())
    except Exception:
        log.warning("Airflow's task state store can not be written; going by the job's id alone", exc_info=True)


def forget(context: Context) -> None:
    """The task has succeeded."""
    store = context.get("task_state_store")
    try:
        if store is not None:
            store.delete(STORE_KEY)
    except Exception:
        log.warning("Airflow's task state store can not be written", exc_info=True)
