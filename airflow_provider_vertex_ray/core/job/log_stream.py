"""The lines of a job's output as an asynchronous iterator, from the first one until the job has ended."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator

from airflow_provider_vertex_ray.core.deadlines import set_within
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.log_follower import JobLog
from airflow_provider_vertex_ray.core.job.log_pace import read_pause


async def lines_of(api: JobsApi, submission_id: str) -> AsyncGenerator[str, None]:
    """Yield each line of a job's output once, until the job has ended; websockets are not needed.

    Lines that the caller has not yet taken are kept in memory.

    :param api: Jobs API of the cluster
    :param submission_id: the job
    :raises JobNotFoundError: the cluster has no job with that id
    """
    waiting: deque[str] = deque()
    arrived = asyncio.Event()

    def take(line: str) -> None:
        waiting.append(line)
        arrived.set()

    output = JobLog(api, submission_id, take, tidy=False)
    following = asyncio.create_task(_follow(api, submission_id, output))
    following.add_done_callback(lambda _: arrived.set())
    try:
        while True:
            ended = following.done()
            while waiting:
                yield waiting.popleft()
            if ended:
                break
            await arrived.wait()
            arrived.clear()
        # Raises what ended it.
        await following
    finally:
        following.cancel()
        await asyncio.wait({following})
        await output.cancel()


async def _follow(api: JobsApi, submission_id: str, output: JobLog) -> None:
    """Follow the output until the job has ended and all of it is read."""
    job = await api.get(submission_id)
    output.node_id = job.node_id
    output.start()
    begin = time.monotonic()
    while not job.status.is_terminal:
        new = await set_within(output.news, read_pause(time.monotonic() - begin, False, 1))
        output.news.clear()
        if new:
            # What prints all the time must not be asked about all the time.
            await asyncio.sleep(read_pause(time.monotonic() - begin, True, 1))
        job = await api.get(submission_id)
        output.node_id = job.node_id
    await output.finish()
