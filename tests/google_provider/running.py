"""Operators run without an Airflow around them."""

from __future__ import annotations

from typing import Any


class TaskInstance:
    """Remembers what is pushed; all that these operators ask of one."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any, **_: Any) -> None:
        self.pushed[key] = value


def run(operator: Any) -> tuple[Any, dict[str, Any]]:
    """Execute an operator, and return its result and what it has pushed."""
    task_instance = TaskInstance()
    result = operator.execute({"ti": task_instance, "task_instance": task_instance, "task": operator})
    return result, task_instance.pushed
