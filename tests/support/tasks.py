"""Operators run as Airflow runs them, without its database: rendered, executed, deferred, resumed, killed."""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator, TaskDeferred
from airflow.triggers.base import BaseTrigger


class TaskInstance:
    """As much of a task instance as the operators look at."""

    def __init__(
        self,
        task_id: str = "task",
        *,
        dag_id: str = "dag",
        run_id: str = "run-1",
        map_index: int = -1,
        try_number: int = 1,
        max_tries: int = 0,
        ti_id: str = "",
    ) -> None:
        self.try_number, self.max_tries, self.id = try_number, max_tries, ti_id
        self.dag_id, self.run_id, self.task_id, self.map_index = dag_id, run_id, task_id, map_index
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))


def context_of(operator: BaseOperator, ti: TaskInstance | None = None, **more: Any) -> Any:
    """A task's context, with ``more`` for its templates."""
    return {"ti": ti or TaskInstance(operator.task_id), **more}


def round_trip(trigger: BaseTrigger) -> BaseTrigger:
    """The trigger as the triggerer makes it from what was stored."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    again: BaseTrigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    return again


async def first_event(trigger: BaseTrigger) -> dict[str, Any]:
    """The payload of the trigger's first event, as it is stored."""
    async for event in trigger.run():
        return dict(json.loads(json.dumps(event.payload)))
    raise AssertionError("the trigger ended without an event")


def may_run_tasks() -> None:
    """For threads: Airflow 2.11 notes who calls ``execute`` per thread, and prepares only the one that imports it."""
    guard = getattr(importlib.import_module("airflow.models.baseoperator"), "ExecutorSafeguard", None)
    if guard is not None:
        guard._sentinel.callers = {}


def run_task(operator: BaseOperator, context: Any = None) -> Any:
    """Run a task to its end. After a deferral a new operator goes on, which knows nothing but the event."""
    context = context or context_of(operator)
    fresh = copy.deepcopy(operator)
    operator.render_template_fields(context)
    try:
        return operator.execute(context)
    except TaskDeferred as deferral:
        waiting = deferral
    while True:
        event = asyncio.run(first_event(round_trip(waiting.trigger)))
        resumed = copy.deepcopy(fresh)
        resumed.render_template_fields(context)
        try:
            return getattr(resumed, waiting.method_name)(context, event=event, **(waiting.kwargs or {}))
        except TaskDeferred as deferral:
            waiting = deferral


def deferral_of(operator: BaseOperator, context: Any = None) -> TaskDeferred:
    """What the task defers with."""
    context = context or context_of(operator)
    operator.render_template_fields(context)
    try:
        result = operator.execute(context)
    except TaskDeferred as deferral:
        return deferral
    raise AssertionError(f"{operator.task_id} did not defer but returned {result!r}")
