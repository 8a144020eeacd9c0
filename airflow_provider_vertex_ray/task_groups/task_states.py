"""States of the other tasks of a run, on each supported Airflow version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

FAILED_STATES = frozenset({"failed", "upstream_failed"})
"""States of a task that failed, or that did not run because of a failure."""


def states_of(context: Context, task_ids: Iterable[str]) -> dict[str, str | None]:
    """Return the state of each instance of the tasks, by name: ``task``, or ``task[3]`` for a mapped one.

    :param context: context of a task of the same run.
    :param task_ids: IDs of the tasks.
    """
    wanted = set(task_ids)
    ti: Any = context["ti"]
    ask = getattr(ti, "get_task_states", None)
    if ask is None:
        # Airflow 2, where a task can read the database.
        found = context["dag_run"].get_task_instances()  # type: ignore[attr-defined]
        return {
            each.task_id if each.map_index < 0 else f"{each.task_id}[{each.map_index}]": each.state and str(each.state)
            for each in found
            if each.task_id in wanted
        }
    answer = ask(dag_id=ti.dag_id, task_ids=sorted(wanted), run_ids=[ti.run_id])
    return {str(name): state and str(state) for name, state in (answer.get(ti.run_id) or {}).items()}
