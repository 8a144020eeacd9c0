"""Measure how long large and hostile answers of a dashboard block the event loop, and the memory that they take.

The answers come from a server in a process of its own; a waiting task measures the time between two of its turns, which
is how long all other waits of the same triggerer would have had to wait. It is the time on the clock, because a thread
that decodes can hold the interpreter as well as the loop can; so it needs a machine that does nothing else. The
interpreter's full collections visit everything in the process, so they are switched off, as ``many_waits`` shows them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.report import Figure, print_figures

GOAL_STALL = 0.050
"""Seconds for which the loop may be blocked at most."""
GOAL_MEMORY = 100.0
"""MiB by which the process may grow at most."""

TICK = 0.002
MIB = 1 << 20
JOB = b'{"submission_id":"j","status":"SUCCEEDED","metadata":{},"runtime_env":{}},'


def answers() -> dict[str, tuple[bytes, str]]:
    """Return bodies with their encoding, by what they are."""
    jobs = b"[" + JOB * (16 * MIB // len(JOB)) + JOB[:-1] + b"]"
    return {
        "gzip of 16 MiB of jobs": (gzip.compress(jobs, 6), "gzip"),
        "8 MiB of jobs": (b"[" + JOB * (8 * MIB // len(JOB)) + JOB[:-1] + b"]", ""),
        "gzip of 100 MiB of jobs": (gzip.compress(b"[" + JOB * (100 * MIB // len(JOB)) + JOB[:-1] + b"]", 6), "gzip"),
        "gzip of 256 MiB of blanks": (gzip.compress(b"[" + b" " * (256 * MIB), 6), "gzip"),
        "a message of 4 MiB": (json.dumps([{"submission_id": "j", "message": "x" * (4 * MIB)}]).encode(), ""),
        "6 MiB of empty lists": (b'[{"a":[' + b"[]," * (2 * MIB) + b"[]]}]", ""),
        "200,000 levels": (b"[" * 200_000, ""),
        "4 MiB of escapes": (b'[{"message":"' + b"\\n" * (2 * MIB), ""),
    }


class _Tokens:
    quota_project: str | None = None

    async def get(self) -> str:
        return "ya29.benchmark-token"

    def refused(self, token: str) -> None:
        """Tokens are never refused here."""


def _serve(answer: bytes, address: Connection) -> None:
    """Give the answer to every request; runs in a process of its own."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(connection, "127.0.0.1", 0)
        address.send(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()

    asyncio.run(serve())


@contextlib.contextmanager
def _served(body: bytes, encoding: str) -> Iterator[str]:
    """Serve the answer from another process; yield the host."""
    more = f"Content-Encoding: {encoding}\r\n" if encoding else ""
    answer = f"HTTP/1.1 200 OK\r\n{more}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(answer, there), daemon=True)
    process.start()
    try:
        yield str(here.recv())
    finally:
        process.terminate()
        process.join()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def _ask(host: str) -> tuple[float, float]:
    """List all jobs in the three ways that waits and the reaper use; return the longest stall and the growth in MiB."""
    from airflow_provider_vertex_ray.core.http.addresses import Addresses
    from airflow_provider_vertex_ray.core.http.transport import RetryPolicy, Transport
    from airflow_provider_vertex_ray.core.job.client import JobsApi
    from airflow_provider_vertex_ray.errors import VertexRayError

    async def work() -> None:
        async with Transport(_Tokens(), Addresses(host), retry=RetryPolicy(1)) as transport:
            api = JobsApi(transport, f"http://{host}")
            for ask in (api.in_use(), api.newest(100), api.get("j")):
                try:
                    await ask
                except VertexRayError:
                    continue

    before = peak = _resident()
    longest = 0.0
    task = asyncio.create_task(work())
    while not task.done():
        begun = time.monotonic()
        await asyncio.sleep(TICK)
        longest = max(longest, time.monotonic() - begun - TICK)
        peak = max(peak, _resident())
    await task
    return longest, (peak - before) / MIB


def run() -> list[Figure]:
    """Measure each answer; return the worst of them."""
    found: dict[str, tuple[float, float]] = {}
    small = b"[" + JOB[:-1] + b"]"
    with _served(small, "") as host:
        # What the first request imports is not due to the answer.
        asyncio.run(_ask(host))
    gc.collect()
    gc.disable()
    try:
        for name, (body, encoding) in answers().items():
            with _served(body, encoding) as host:
                found[name] = stall, growth = asyncio.run(_ask(host))
            gc.collect()
            print(f"  {name}: longest turn of the loop {stall * 1000:.0f} ms, memory +{growth:.0f} MiB", flush=True)
    finally:
        gc.enable()
    stall, memory = (max(each[place] for each in found.values()) for place in (0, 1))
    return [
        Figure("longest turn of the loop, large answers", stall, "s", "goal", GOAL_STALL, 1.0),
        Figure("memory for large answers", memory, "MiB", "goal", GOAL_MEMORY, 1.0),
    ]


def main() -> int:
    """Measure and print the figures."""
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
