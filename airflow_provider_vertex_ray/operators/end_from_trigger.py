"""Decide whether a deferred task ends in the triggerer, or in a worker that resumes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_vertex_ray.core.checks import check_flag
from airflow_provider_vertex_ray.triggers.task_end import TaskEnd

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

TRIED_FROM = (3, 3, 1)
"""First version of Airflow on which tasks end in the triggerer by default: on older ones only a success is tested. This
version also retries a task which fails there (https://github.com/apache/airflow/pull/71163)."""

NAMES_MAPPED_EARLY_FROM = (3, 2)
"""First version of Airflow that renders ``map_index_template`` before the task is executed."""

DEFAULT_XCOM = "BaseXCom"
"""Name of the class that stores XComs by default, in different modules of 2.11 and 3.x."""


def check_end_from_trigger(value: Any) -> None:
    """Validate the ``end_from_trigger`` argument.

    :raises InvalidArgumentError: it is not True, False or None.
    """
    if value is not None:
        check_flag("end_from_trigger", value)


def task_end(
    task: Any,
    context: Context,
    wanted: bool | None,
    *,
    failures: bool = True,
    skip_on_exit_code: tuple[int, ...] = (),
    link_facts: dict[str, str | None] | None = None,
) -> dict[str, Any] | None:
    """Return how a task ends in the triggerer, for its trigger; None if a worker ends it.

    Unless the user wants a worker, or Airflow is older than ``TRIED_FROM``, a reason for it is logged.

    :param task: operator or sensor that is about to defer
    :param context: Airflow's context
    :param wanted: the ``end_from_trigger`` argument; None for where nothing is lost
    :param failures: whether the task may end as failed in the triggerer, too
    :param skip_on_exit_code: exit codes of the driver with which the task is skipped
    :param link_facts: facts for the links that lack the address of the dashboard; None if nothing is missing
    """
    if wanted is False or (wanted is None and _version() < TRIED_FROM):
        return None
    reason = _needs_worker(task, context)
    unserved = None if reason else _not_served(task)
    if reason or (unserved and not wanted):
        task.log.info("A worker ends this task, and not its trigger: %s", reason or unserved)
        return None
    if unserved:
        task.log.warning("This task ends in the triggerer, because end_from_trigger is True, although %s", unserved)
    return TaskEnd(
        returns=task.deferred_result,
        push=bool(task.do_xcom_push),
        multiple_outputs=bool(getattr(task, "multiple_outputs", False)),
        failures=failures and _version() >= TRIED_FROM and not _failure_needs_worker(task),
        skips=not getattr(task, "on_skipped_callback", None),
        skip_on_exit_code=skip_on_exit_code,
        link_facts=link_facts,
    ).to_json()


def _needs_worker(task: Any, context: Context) -> str | None:
    """Return the reason for which the result would be wrong without a worker."""
    kind = type(task)
    finishes = next(each for each in kind.__mro__ if "execute_complete" in each.__dict__)
    if "deferred_result" not in finishes.__dict__:
        return f"{finishes.__name__} finishes its tasks with code of its own"
    if getattr(task, "_post_execute_hook", None) or kind.post_execute is not BaseOperator.post_execute:
        return "it has a post_execute"
    if getattr(task, "returns_dag_result", False):
        return "its result is the result of the DAG"
    map_index = getattr(context["ti"], "map_index", -1)
    mapped = map_index is not None and map_index >= 0
    if not mapped and task.has_dag() and next(task.iter_mapped_dependants(), None) is not None:
        return "another task is expanded over its result"
    if mapped and getattr(task, "map_index_template", None) and _version() < NAMES_MAPPED_EARLY_FROM:
        return "this version of Airflow renders map_index_template in a worker, at the end"
    return None


def _not_served(task: Any) -> str | None:
    """Return what Airflow would not do for a task that ends in the triggerer."""
    if task.outlets:
        return "a worker records the events of its outlets"
    if task.on_success_callback:
        return "a worker calls its on_success_callback"
    backend = conf.get("core", "xcom_backend", fallback=DEFAULT_XCOM)
    if backend.rsplit(".", 1)[-1] != DEFAULT_XCOM:
        return f"a worker is the place for the XCom back-end {backend}"
    listeners = _listeners()
    if listeners:
        return f"a worker notifies the listener {listeners[0]}"
    return None


def _failure_needs_worker(task: Any) -> bool:
    """Tell whether Airflow would not do everything for a task that fails in the triggerer.

    There, its callbacks are called without the exception, emails are not sent, retry policies are not asked, and a DAG
    that should fail fast does not.
    """
    dag = task.get_dag() if task.has_dag() else None
    return bool(
        task.on_failure_callback
        or task.on_retry_callback
        or (task.email and (task.email_on_failure or task.email_on_retry))
        or getattr(task, "retry_policy", None)
        or getattr(dag, "fail_fast", False)
        or getattr(dag, "fail_stop", False)
    )


def _listeners() -> list[str]:
    """Return the names of the listeners, such as OpenLineage's, for the ends of tasks."""
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:
        from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment]
    hook = get_listener_manager().hook
    found = []
    for name in ("on_task_instance_success", "on_task_instance_failed", "on_task_instance_skipped"):
        if (caller := getattr(hook, name, None)) is not None:
            found += [str(each.plugin_name) for each in caller.get_hookimpls()]
    return found


def _version() -> tuple[int, ...]:
    from airflow import __version__

    return tuple(int(part) for part in re.findall(r"\d+", __version__)[:3])
