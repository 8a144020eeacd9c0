"""The end of a deferred resize or deletion that is killed: the lease that it closed is opened again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.triggers.base import KILL_SECONDS
from airflow_provider_vertex_ray.triggers.kill_deletion import CONTINUED, ENDED, KILL_INTERVAL

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.triggers.base import WaitTrigger


async def _never() -> bool:
    return False


async def reopen_after_kill(
    trigger: WaitTrigger, lease: dict[str, Any] | None, going: Callable[[], Awaitable[bool]] = _never
) -> None:
    """Open the lease of a killed task's cluster to new holders, unless another attempt follows.

    Another attempt closes the lease with the same token, and must not find it open.

    :param trigger: trigger of the task.
    :param lease: ``uri``, ``cluster`` and ``token`` of the closing; None for no lease.
    :param going: tells whether the cluster is being deleted, or may be; its lease then stays closed.
    """
    if not lease:
        return
    from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
    from airflow_provider_vertex_ray.hooks.calls.lease import LeaseCalls
    from airflow_provider_vertex_ray.triggers.airflow_task import task_state

    ti: Any = getattr(trigger, "task_instance", None)
    hook = LeaseCalls(trigger.arguments["gcp_conn_id"], trigger.arguments["impersonation_chain"])
    problem = "no attempt is known to follow, nor that none does"

    async def reopen() -> None:
        if await going():
            trigger.log.info("The task was killed; cluster %s is being deleted, so its lease stays closed", cluster)
            return
        async with hook.store(lease["uri"]) as store:
            await store.reopen(parse_cluster_name(cluster), lease["token"])
        trigger.log.info("The task was killed; the lease of cluster %s is open again", cluster)

    async def work() -> None:
        nonlocal problem
        # Read again each time: a user may clear the task that was killed a moment ago.
        while (state := await task_state(ti)) not in CONTINUED:
            if state in ENDED:
                try:
                    return await reopen()
                except VertexRayError as error:
                    problem = error.message
            await asyncio.sleep(KILL_INTERVAL)

    cluster = lease["cluster"]
    try:
        await within(KILL_SECONDS, work())
    except asyncio.TimeoutError:
        trigger.log.warning(
            "Could not reopen the lease of %s within %.0f s; new jobs must wait until the closing expires: %s",
            cluster,
            KILL_SECONDS,
            problem,
        )
