"""Measure the processor time of status requests through the typed boundary, and through a bare HTTP session.

Both ask the same local server for the same job, one request after the other, alternating in rounds. The peer does what
any client must do: send the token, read the body, and parse it with ``json.loads``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

from benchmarks.report import Figure, print_figures

REQUESTS = 400
ROUNDS = 5
GOAL = 1.6
"""At most this many times the processor time of the peer, the server's part in both included."""

JOB = {
    "type": "SUBMISSION", "job_id": "01000000", "submission_id": "af-dag-task-0123456789abcdef", "status": "RUNNING",
    "entrypoint": "python -m train --epochs 10", "message": "Job is currently running.", "error_type": None,
    "start_time": 1_764_000_000_000, "end_time": None, "driver_exit_code": None, "driver_node_id": "a" * 56,
    "metadata": {f"key-{number}": "x" * 20 for number in range(6)},
    "runtime_env": {"working_dir": "gcs://_ray_pkg_0123.zip", "env_vars": {f"V{n}": "x" * 30 for n in range(10)}},
}  # fmt: skip


class _Tokens:
    quota_project = None

    async def get(self) -> str:
        return "ya29.benchmark-token"

    def refused(self, token: str) -> None:
        """Tokens are never refused here."""


async def _serve() -> tuple[asyncio.AbstractServer, str]:
    body = json.dumps(JOB).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    return server, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _seconds(ask: Callable[[], Awaitable[object]]) -> float:
    begun = time.process_time()
    for _ in range(REQUESTS):
        await ask()
    return (time.process_time() - begun) / REQUESTS


async def _measure() -> tuple[float, float]:
    import aiohttp

    from airflow_provider_vertex_ray.core.http.addresses import Addresses
    from airflow_provider_vertex_ray.core.http.transport import Transport
    from airflow_provider_vertex_ray.core.job.client import JobsApi

    server, host = await _serve()
    url = f"http://{host}/api/jobs/j"
    async with server, Transport(_Tokens(), Addresses(host)) as transport, aiohttp.ClientSession() as session:
        api = JobsApi(transport, f"http://{host}")

        async def bare() -> object:
            async with session.get(url, headers={"Authorization": "Bearer ya29.benchmark-token"}) as answer:
                return json.loads(await answer.read())["status"]

        async def ours() -> object:
            return (await api.get("j")).status

        pairs = [(await _seconds(ours), await _seconds(bare)) for _ in range(ROUNDS + 1)][1:]
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def run() -> list[Figure]:
    """Measure both, and take the minimum of each."""
    ours, bare = asyncio.run(_measure())
    micro = 1e6
    return [Figure("status request, CPU time", ours * micro, "µs", "bare aiohttp", bare * micro, GOAL)]


def main() -> int:
    """Measure and print the figures."""
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
