"""Read a trigger's own task from Airflow, and store data for the next triggerer, on Airflow 2.11 and 3.x."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from airflow_provider_vertex_ray.core.threads import in_airflow_thread

log = logging.getLogger(__name__)

DEFERRED = "deferred"
"""State of a task instance that still waits for its trigger."""

LOG_POSITION_KEY = "vertex_ray_log"
"""XCom key of the log position. XCom is the only store that a trigger can write on every Airflow version."""


def _ids(ti: Any) -> dict[str, Any]:
    map_index = getattr(ti, "map_index", -1)
    return {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": -1 if map_index is None else map_index,
    }


_asked: list[asyncio.Task[None]] = []


def ask_ahead(ti: Any) -> None:
    """Send this process's first request to Airflow now, in the background.

    For the first request, a triggerer of Airflow 3 sets up its Execution API client, which takes seconds that are not
    available when a user kills the task.
    """
    if not _asked:
        _asked.append(asyncio.create_task(_ask_ahead(ti)))


async def _ask_ahead(ti: Any) -> None:
    begun = time.monotonic()
    try:
        await task_state(ti)
    except Exception:
        log.warning("Airflow does not answer this triggerer; a killed task will not be cleaned up", exc_info=True)
    else:
        # It would be in the log of the task whose trigger happens to be the first one here.
        log.debug("Airflow answers this process's triggers: it took %.1f s", time.monotonic() - begun)


async def task_state(ti: Any) -> str | None:
    """Return the current state of the task instance; None if it has none (it was cleared) or no longer exists.

    :raises Exception: Airflow could not be reached.
    """
    return await in_airflow_thread(lambda: _task_state(_ids(ti)))


def _task_state(ids: dict[str, Any]) -> str | None:
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:
        return _task_state_in_database(ids)
    mapped = ids["map_index"] >= 0
    found = RuntimeTaskInstance.get_task_states(
        dag_id=ids["dag_id"],
        task_ids=[ids["task_id"]],
        run_ids=[ids["run_id"]],
        map_index=ids["map_index"] if mapped else None,
    ).get(ids["run_id"], {})
    # Airflow lists a mapped task's state under a name with the map index.
    state = found.get(f"{ids['task_id']}_{ids['map_index']}") if mapped else found.get(ids["task_id"])
    return None if state is None else str(getattr(state, "value", state))


def _task_state_in_database(ids: dict[str, Any]) -> str | None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        state = session.query(TaskInstance.state).filter_by(**ids).scalar()
    return None if state is None else str(getattr(state, "value", state))


async def keep_log_position(ti: Any, submission_id: str, position: int) -> None:
    """Store how many characters of the job's output were copied to the task's log."""
    value = {"submission_id": submission_id, "position": position}
    await in_airflow_thread(lambda: _xcom().set(key=LOG_POSITION_KEY, value=value, **_ids(ti)))


async def kept_log_position(ti: Any, submission_id: str) -> int:
    """Return how many characters of the job's output an earlier triggerer has copied; 0 for none."""
    value = await stored_xcom(ti, LOG_POSITION_KEY)
    if not isinstance(value, dict) or value.get("submission_id") != submission_id:
        return 0
    position = value.get("position")
    return position if isinstance(position, int) and position > 0 else 0


async def stored_xcom(ti: Any, key: str) -> Any:
    """Return an XCom of the task; None if there is none.

    :raises Exception: Airflow could not be reached.
    """
    return await in_airflow_thread(lambda: _xcom().get_one(key=key, **_ids(ti)))


async def push_xcom(ti: Any, key: str, value: Any) -> None:
    """Store an XCom of the task, as a worker does."""
    await in_airflow_thread(lambda: _xcom().set(key=key, value=value, **_ids(ti)))


def _xcom() -> Any:
    from airflow.providers.common.compat.sdk import XCom

    return XCom
