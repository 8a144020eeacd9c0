"""A cluster with a job keeps its nodes and lives on while its use cannot be read, whatever is answered instead."""

from __future__ import annotations

import random

import pytest

from tests.support.raw_service import RawService, Request, http
from tests.support.unreadable_answers import BUSY, DeletionFuzz, is_readable


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
async def test_no_unreadable_answer_deletes_or_shrinks_a_busy_cluster(service: RawService, count: int) -> None:
    fuzz = DeletionFuzz(random.Random(count), service)
    await fuzz.run(count)
    print(f"{fuzz.answers} answers that cannot be read: {len(fuzz.deleted)} deletions; {dict(fuzz.outcomes)}")
    assert fuzz.answers >= count
    assert fuzz.deleted == []
    # Each of the three asked for the use of this cluster, and was kept from acting by what it did not learn.
    assert fuzz.outcomes[f"reap: {BUSY} kept"] > 0
    assert fuzz.outcomes["ensure: success "] > 0
    assert fuzz.outcomes["resize: refused"] > 0


@pytest.mark.parametrize("action", ["reap", "ensure"])
async def test_the_same_cluster_without_a_job_is_deleted(service: RawService, action: str) -> None:
    class Readable(DeletionFuzz):
        def odd(self, request: Request) -> bytes | None:
            super().odd(request)
            return None

    fuzz = Readable(random.Random(1), service)
    fuzz.prepare()
    service.odd = fuzz.odd
    service.jobs[BUSY] = []
    await getattr(fuzz, action)()
    assert [each.partition(" ")[0] for each in fuzz.deleted] == ["DELETE"]


@pytest.mark.parametrize("missing", ["dashboard", "size"])
async def test_no_node_is_removed_when_the_service_leaves_something_out(service: RawService, missing: str) -> None:
    fuzz = DeletionFuzz(random.Random(1), service)
    fuzz.prepare()
    cluster = service.clusters[BUSY]
    del (cluster["resourceRuntime"]["accessUris"] if missing == "dashboard" else cluster["resourcePools"][1])[
        "RAY_DASHBOARD_URI" if missing == "dashboard" else "replicaCount"
    ]
    await fuzz.resize()
    assert service.sent("PATCH") == []
    expected = "refused" if missing == "dashboard" else "UnreadableAnswerError"
    assert fuzz.outcomes == {f"resize: {expected}": 1}


@pytest.mark.parametrize(
    ("answer", "readable"),
    [
        (http(200, []), True),
        (http(206, [{}]), True),
        (http(200, "[]x"), True),
        (http(200, {"name": "x"}), True),
        (http(200, {}), False),
        (http(200), False),
        (http(500, []), False),
        (http(200, "[{"), False),
    ],
)
def test_readable_answers_are_recognised(answer: bytes, readable: bool) -> None:
    assert is_readable(answer) is readable
