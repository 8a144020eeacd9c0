"""The states of other tasks of the same run, on each Airflow line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

NOT_WELL = frozenset({"failed", "upstream_failed"})
"""States of a task that did not come to a good end."""


def states_of(context: Context, task_ids: Iterable[str]) -> dict[str, str | None]:
    """State of each instance of these tasks, by a readable name: ``task``, or ``task[3]`` for a mapped one."""
    wanted = set(task_ids)
    ti: Any = context["ti"]
    ask = getattr(ti, "get_task_states", None)
    if ask is None:
        # Airflow 2: a task may read the database.
        found = context["dag_run"].get_task_instances()  # type: ignore[attr-defined]
        return {
            each.task_id if each.map_index < 0 else f"{each.task_id}[{each.map_index}]": each.state and str(each.state)
            for each in found
            if each.task_id in wanted
        }
    answer = ask(dag_id=ti.dag_id, task_ids=sorted(wanted), run_ids=[ti.run_id])
    return {str(name): state and str(state) for name, state in (answer.get(ti.run_id) or {}).items()}
