"""The end of a deferred create that is killed: its cluster is deleted, as far as the service allows that in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.triggers.airflow_task import DEFERRED
from airflow_provider_vertex_ray.triggers.base import KILL_SECONDS

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.triggers.base import WaitTrigger
    from airflow_provider_vertex_ray.triggers.cluster_deletion import ClusterDeletion

KILL_INTERVAL = 2.0
"""Seconds between two requests."""

ENDED = frozenset({"failed", "success", "skipped", "upstream_failed", "removed"})
"""States of a task after which no attempt follows.

A task that is cleared or retried goes on with its cluster, which must not be deleted under it. One whose
``execution_timeout`` has passed is first resumed in a worker, only to fail there, so its state is awaited.
"""

CONTINUED = frozenset({DEFERRED, "up_for_retry", "up_for_reschedule"})
"""States in which an attempt goes on with the cluster, or will."""

REMEDY = (
    "It incurs charges from RUNNING until it is deleted: by a VertexRayDeleteClusterOperator, in the Google Cloud "
    "console, or by a VertexRayDeleteIdleClustersOperator"
)


async def _handed_over(trigger: WaitTrigger) -> bool:
    """Whether the task has succeeded by itself: then it has stored where the dashboard is, and others use the cluster.

    A triggerer that hung while another one went on with its triggers is told to cancel them, as after a kill. A user
    who marks the task as success stores nothing. What cannot be read counts as handed over.
    """
    from airflow_provider_vertex_ray.links.base import LINK_KEY
    from airflow_provider_vertex_ray.triggers.airflow_task import stored_xcom

    try:
        facts = await stored_xcom(getattr(trigger, "task_instance", None), LINK_KEY)
    except Exception:
        trigger.log.warning("Could not read whether the task has handed its cluster over", exc_info=True)
        return True
    return isinstance(facts, dict) and bool(facts.get("dashboard_uri"))


async def delete_after_kill(trigger: WaitTrigger, deletions: Sequence[ClusterDeletion]) -> None:
    """Request the deletion of a killed task's clusters until the service accepts it, or the time is over.

    :param trigger: trigger of the task.
    :param deletions: the deletions, of which none has begun.
    """
    from airflow_provider_vertex_ray.hooks.calls.cluster import ClusterCalls
    from airflow_provider_vertex_ray.triggers.airflow_task import task_state

    ti: Any = getattr(trigger, "task_instance", None)
    hook = ClusterCalls(trigger.arguments["gcp_conn_id"], trigger.arguments["impersonation_chain"])
    state: str | None = None
    handed_over = False
    failures: dict[str, str] = {}

    def pending() -> list[ClusterDeletion]:
        return [each for each in deletions if not (each.accepted or each.kept)]

    async def step() -> None:
        for each in pending():
            try:
                await each.step(hook)
            except VertexRayError as error:
                failures[each.cluster_name] = error.message

    async def work() -> None:
        nonlocal state, handed_over
        async with hook.session():
            # Read again each time: a user may clear the task that was killed a moment ago.
            while (state := await task_state(ti)) not in CONTINUED:
                if state == "success" and (handed_over := await _handed_over(trigger)):
                    return
                if state in ENDED:
                    await step()
                    if not pending():
                        return
                await asyncio.sleep(KILL_INTERVAL)

    names = ", ".join(each.cluster_id for each in deletions)
    trigger.log.info("The task was killed; deleting cluster %s", names)
    with contextlib.suppress(asyncio.TimeoutError):
        await within(KILL_SECONDS, work())
    if handed_over:
        trigger.log.info("The task has succeeded, so cluster %s is kept", names)
        return
    if state not in ENDED:
        trigger.log.warning(
            "The task is %s; if an attempt follows, it goes on with cluster %s, which is not deleted. %s",
            state or "cleared",
            names,
            REMEDY,
        )
        return
    for each in pending():
        why = each.refusal or failures.get(each.cluster_name) or f"no answer within {KILL_SECONDS:.0f} s"
        trigger.log.error(
            "Could not delete cluster %s of the killed task: %s. %s", each.cluster_name, why.rstrip("."), REMEDY
        )
