"""The plan of a task that runs many jobs: read back as it was written, and small."""

from __future__ import annotations

from airflow_provider_vertex_ray.core.job.batch import Batch, BatchPlan, JobRow
from airflow_provider_vertex_ray.core.job.state import Try

COUNT = 4_000


def _plan(**more: object) -> BatchPlan:
    given = {
        "batch": Batch("af-dag-submit-0123456789abcdef", tuple(map(str, range(COUNT)))),
        "this": Try("0123456789abcdef", 2, "2026-01-01/2", "ti"),
        "attempts": (1,) * COUNT,
        "rows": {},
        "metadata": {"team": "tea"},
        **more,
    }
    return BatchPlan(**given)  # type: ignore[arg-type]


def test_plan_is_read_back_as_it_was_written() -> None:
    rows = {place: JobRow(f"echo {place}", {"pip": ["emoji"]}, {}, (1, None, None, None)) for place in (7, 10)}
    plan = _plan(
        attempts=tuple(1 + place % 3 for place in range(COUNT)),
        adopted=frozenset({1, 2, 3, 8, 100, 101}),
        todo=(0, 5, 6, 7, 10),
        sent=3,
        rows=rows,
    )
    assert BatchPlan.of(plan.packed()) == plan


def test_adopted_jobs_and_later_attempts_add_nearly_nothing_to_the_plan() -> None:
    bare = len(_plan().packed())
    adopted = _plan(adopted=frozenset(range(COUNT - 10)), attempts=(2,) * COUNT)
    assert len(adopted.packed()) < bare + 100
