"""The list of all jobs, of any size: complete, in bounded memory, and without blocking the event loop."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import resource
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job import listing
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.listing import LONGEST_LISTED_MESSAGE
from airflow_provider_vertex_ray.errors import UnreadableAnswerError
from tests.support.raw_service import http, raw_service
from tests.support.server import QUICK, FakeTokens

T = TypeVar("T")

MIB = 1 << 20
SMALL = b'{"submission_id":"j","status":"SUCCEEDED","metadata":{},"runtime_env":{}},'


def job(name: str, status: str = "SUCCEEDED", **more: Any) -> dict[str, Any]:
    return {"type": "SUBMISSION", "submission_id": name, "status": status, "metadata": None, **more}


def many(size: int) -> bytes:
    """A list of this many bytes of small jobs."""
    return b"[" + SMALL * (size // len(SMALL)) + SMALL[:-1] + b"]"


async def asked(answer: bytes, call: str, *arguments: Any) -> Any:
    async with (
        raw_service(lambda request: answer) as service,
        Transport(FakeTokens(), Addresses(service.host), retry=QUICK) as transport,
    ):
        return await getattr(JobsApi(transport, f"http://{service.host}"), call)(*arguments)


async def test_all_and_newest_and_those_in_use() -> None:
    jobs = [
        job("old", end_time=10, start_time=1),
        job("active", "RUNNING", start_time=2, end_time=None),
        job("last", "FAILED", end_time=30, start_time=3, message="x" * 20_000),
        {"type": "DRIVER", "job_id": "01", "status": "RUNNING", "start_time": 4},
        job("odd", "QUEUED", start_time=5),
        job("new", end_time=20, start_time=6),
    ]
    answer = http(200, jobs)
    found = await asked(answer, "list_all")
    assert [each.submission_id for each in found] == ["old", "active", "last", "odd", "new"]
    assert len(found[2].message) == LONGEST_LISTED_MESSAGE + 1
    assert [each.submission_id for each in await asked(answer, "newest", 4)] == ["odd", "01", "active", "new"]
    assert [each.submission_id for each in await asked(answer, "in_use")] == ["active", "01", "odd", "last"]
    assert await asked(http(200, []), "in_use") == []


@pytest.mark.parametrize("at_once", [1, 7, 64 * 1024])
async def test_token_that_a_dashboard_sends_back_is_in_no_job(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    token = "ya29.a-token-of-usual-length"

    async def get(self: FakeTokens) -> str:
        return token

    monkeypatch.setattr(FakeTokens, "get", get)
    monkeypatch.setattr(listing, "SLICE", at_once)
    odd = job(f"id of {token}", message=f"Bearer {token}", entrypoint=f"curl -H 'Authorization: Bearer {token}'")
    (found,) = await asked(http(200, [odd]), "list_all")
    assert token not in repr(found)
    assert found.submission_id == "id of ***"


async def test_too_many_jobs_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_LISTED", 10)
    with pytest.raises(UnreadableAnswerError, match="more than 10 jobs"):
        await asked(http(200, [job(str(number)) for number in range(11)]), "list_all")


async def test_only_some_of_very_many_active_jobs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_ACTIVE", 10)
    assert len(await asked(http(200, [job(str(number), "RUNNING") for number in range(100)]), "in_use")) == 10


# Entries of other jobs that cannot be decoded.
ODD: dict[str, Callable[[], bytes]] = {
    "long": lambda: json.dumps(job("other", message='x\\"{[' * (MIB // 3))).encode(),
    "id at the end": lambda: json.dumps({"message": "x" * 3 * MIB, "submission_id": "other"}).encode(),
    "many parts": lambda: b'{"submission_id":"other","a":[' + b"[]," * (MIB // 8) + b"[]]}",
    "deep": lambda: b'{"submission_id":"other","a":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "of another shape": lambda: json.dumps(job("other", start_time="soon")).encode(),
    "without id": lambda: json.dumps({"type": "DRIVER", "submission_id": None, "message": "x" * 2 * MIB}).encode(),
    "quoting ours": lambda: json.dumps(
        job("other", entrypoint='"submission_id":"mine-1"', deep={"submission_id": "mine-1"}, message="x" * 2 * MIB)
    ).encode(),
}


@pytest.mark.parametrize("odd", ODD)
async def test_odd_entry_of_another_job_hides_none_of_ours(odd: str) -> None:
    ours = [json.dumps(job(name)).encode() for name in ("mine-0", "mine-1", "mine-2")]
    answer = http(200, b"[" + b", ".join([ours[0], ODD[odd](), ours[1], ODD[odd](), ours[2]]) + b"]")
    found = await asked(answer, "list_ids", ["mine-0", "mine-1", "mine-2", "none"])
    assert (sorted(found.jobs), found.unreadable) == (["mine-0", "mine-1", "mine-2"], {})
    assert len(await asked(answer, "list_task", "owner", "mine-")) == 3


@pytest.mark.parametrize("odd", [name for name in ODD if name not in ("without id", "quoting ours")])
async def test_odd_entry_of_ours_is_named(odd: str) -> None:
    answer = http(200, b"[" + json.dumps(job("other-2")).encode() + b"," + ODD[odd]() + b"]")
    found = await asked(answer, "list_ids", ["other", "other-2"])
    assert (sorted(found.jobs), sorted(found.unreadable)) == (["other-2"], ["other"])
    assert "The entry of Ray job other in the list of jobs could not be read" in found.unreadable["other"].message
    with pytest.raises(UnreadableAnswerError, match="The entry of Ray job other "):
        await asked(answer, "list_task", "owner", "oth")


async def test_list_that_ends_within_an_odd_entry_is_unreadable() -> None:
    answer = http(200, b'[{"submission_id":"other","message":"' + b"x" * 2 * MIB)
    with pytest.raises(UnreadableAnswerError, match="incomplete"):
        await asked(answer, "list_ids", ["mine"])


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def watched(work: Awaitable[T]) -> tuple[T | BaseException, float, int]:
    """The outcome, the longest round of the loop in seconds of this thread's CPU, and the growth of the memory."""
    task = asyncio.ensure_future(work)
    before = peak = resident()
    longest, last = 0.0, time.thread_time()
    while not task.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
        peak = max(peak, resident())
    return task.exception() or task.result(), longest, peak - before


def gzipped(content: bytes) -> bytes:
    return http(200, gzip.compress(content, 1), "Content-Encoding: gzip")


# Made when they are needed: to compress them takes long.
BOMBS: dict[str, Callable[[], bytes]] = {
    "8 MiB of jobs": lambda: http(200, many(8 * MIB)),
    "gzip of 16 MiB of jobs": lambda: gzipped(many(16 * MIB)),
    "gzip of 64 MiB of blanks": lambda: gzipped(b"[" + b" " * (64 * MIB)),
    "one job of 4 MiB": lambda: http(200, [job("j", message="x" * (4 * MIB))]),
    "lists in a job": lambda: http(200, b'[{"a":[' + b"[]," * (2 * MIB) + b"[]]}]"),
    "backslashes": lambda: http(200, b'[{"message":"' + b"\\n" * (2 * MIB)),
}
LONG = ("gzip of 16 MiB of jobs", "gzip of 64 MiB of blanks")


@pytest.mark.parametrize(
    ("bomb", "call"),
    [
        # Both read a list in the same way; each of these lists takes seconds.
        pytest.param(bomb, call, marks=[pytest.mark.soak] if bomb in LONG and call == "newest" else [])
        for bomb in BOMBS
        for call in ("in_use", "newest", "get")
    ],
)
async def test_big_answer_blocks_neither_the_loop_nor_the_memory(bomb: str, call: str) -> None:
    answer = BOMBS[bomb]()
    arguments = {"in_use": (), "newest": (100,), "get": ("j",)}[call]
    # A full collection visits all of Airflow, which takes longer than what is measured here.
    gc.disable()
    try:
        found, longest, growth = await watched(asked(answer, call, *arguments))
    finally:
        gc.enable()
    assert isinstance(found, list | UnreadableAnswerError), found
    # On a busy machine the collector alone takes some of it; without a bound these answers took seconds.
    assert longest < 1.0
    assert growth < 100 * MIB
    if isinstance(found, list):
        assert {each.submission_id for each in found} == {"j"}
        assert json.dumps([each.summary() for each in found])
