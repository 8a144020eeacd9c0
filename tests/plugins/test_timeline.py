"""Where the bars of the timeline go, whatever the jobs' times are."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.plugins.page.timeline import COLUMN_HEIGHT, MOST_BARS, MOST_GROUPS, timeline
from tests.plugins.builders import NOW, job

ANY_TIME = st.integers(-(10**13), 4 * 10**12)
LATELY = st.integers(int((NOW - 1000) * 1000), int((NOW + 100) * 1000))


# Two that follow each other, and one that overlaps the older one only: the newer one leaves it room, the lane does not.
CROWDED = [
    {"start_time": int((NOW - begin) * 1000), "end_time": int((NOW - end) * 1000)}
    for begin, end in ((10, 0), (50, 40), (60, 45))
]


def _jobs(moments: st.SearchStrategy[int]) -> st.SearchStrategy[list[Job]]:
    one = st.builds(
        Job,
        submission_id=st.text(max_size=3),
        status=st.sampled_from(JobStatus),
        start_time=moments | st.none(),
        end_time=moments | st.none(),
        node_id=st.sampled_from(["a", "b", "c", None]),
    )
    return st.lists(one, max_size=40)


PERIODS = st.none() | st.tuples(st.integers(0, 10**12), st.integers(1, 10**9)).map(lambda at: (at[0], at[0] + at[1]))


@example([job(f"{place}", "SUCCEEDED", **times) for place, times in enumerate(CROWDED)], NOW, None)
@example([job(f"{place}", "SUCCEEDED", **CROWDED[0]) for place in range(40)], NOW, (NOW - 2, NOW - 1))
@given(_jobs(LATELY) | _jobs(ANY_TIME | LATELY), st.just(NOW) | st.floats(1.0, 4e9), PERIODS)
def test_bars_never_overlap_and_every_job_is_represented(
    jobs: list[Job], now: float, period: tuple[float, float] | None
) -> None:
    found = timeline(jobs, {"a": "head", "b": "worker 1"}, now, period)
    if found is None:
        assert not any(each.start_time for each in jobs)
        return
    lanes: dict[float, list[tuple[float, float]]] = {}
    for group in found.groups:
        for bar in group.bars:
            assert 0 <= bar.x <= 100
            assert bar.x + bar.width <= 100.001
            assert group.y <= bar.y
            assert bar.y + 10.0 <= group.y + group.height <= found.height
            lanes.setdefault(bar.y, []).append((bar.x, bar.x + bar.width))
    for taken in lanes.values():
        taken.sort()
        assert all(end <= following for (_, end), (following, _) in pairwise(taken))
    for group in found.groups:
        assert group.count == len(group.bars) + sum(column.count for column in group.columns)
        for column in group.columns:
            assert column.x >= 0
            assert column.x + column.width <= 100.001
            top = min(y for _, y, _ in column.parts)
            assert group.y < top
            assert all(height >= 2 and y + height <= group.y + group.height for _, y, height in column.parts)
            assert sum(height for _, _, height in column.parts) <= COLUMN_HEIGHT + 0.1
    assert found.shown + found.earlier + found.later + found.waiting == len(jobs)
    assert all(0 <= x <= 100 for x, _ in found.ticks)


def test_jobs_are_grouped_by_node_and_running_ones_end_now() -> None:
    jobs = [
        job("runs", node_id="h"),
        job("ended", "SUCCEEDED", end_time=int((NOW - 50) * 1000), node_id="w"),
        job("waits", "PENDING"),
        job("lost", "FAILED", end_time=int((NOW - 90) * 1000), node_id="gone"),
        job("not begun", "PENDING", start_time=None),
    ]
    found = timeline(jobs, {"h": "head", "w": "worker 1"}, NOW)
    assert found is not None
    by_label = {group.label: group for group in found.groups}
    assert set(by_label) == {"head", "worker 1", "no node yet", "a removed node"}
    (runs,) = by_label["head"].bars
    assert runs.open
    assert (runs.x, runs.x + runs.width) == (0, 100)
    (ended,) = by_label["worker 1"].bars
    assert not ended.open
    assert abs(ended.width - 50) < 0.01
    assert by_label["no node yet"].bars[0].open


def test_timeline_is_limited_to_the_last_day() -> None:
    old = job("old", "SUCCEEDED", start_time=int((NOW - 9e6) * 1000), end_time=int((NOW - 8.9e6) * 1000))
    long = job("long", start_time=int((NOW - 9e6) * 1000), node_id="h")
    found = timeline([old, long, job("new")], {}, NOW)
    assert found is not None
    assert found.end - found.start == 86_400
    cut = {bar.job.submission_id: bar.cut for group in found.groups for bar in group.bars}
    assert cut == {"long": True, "new": False}
    assert (found.earlier, found.later, found.waiting) == (1, 0, 0)
    alone = timeline([old], {}, NOW)
    assert alone is not None
    assert alone.shown == 1


def _burst(count: int, **more: object) -> list[Job]:
    """Jobs of two seconds each, all within a minute."""
    jobs = []
    for place in range(count):
        begin = int((NOW - 600 + 60 * place / count) * 1000)
        status = "FAILED" if place % 10 == 3 else "SUCCEEDED"
        times = {"start_time": begin, "end_time": begin + 2_000}
        jobs.append(job(f"job-{place}", status, **{"node_id": "h", **times, **more}))
    return jobs


def test_short_jobs_that_have_no_bar_are_counted_in_columns() -> None:
    long = job("long", "SUCCEEDED", node_id="h", start_time=int((NOW - 3600) * 1000), end_time=int((NOW - 900) * 1000))
    found = timeline([*_burst(400), long, job("runs", node_id="h")], {"h": "head"}, NOW)
    assert found is not None
    (group,) = found.groups
    assert {bar.job.submission_id for bar in group.bars} == {"long", "runs"}
    assert sum(column.count for column in group.columns) == 400
    assert found.shown == 402
    column = max(group.columns, key=lambda each: each.count)
    assert "failed" in column.summary
    # What a column counts is there when its part of the period is chosen.
    begin, end = map(float, column.period.split("-"))
    chosen = timeline([*_burst(400), long], {"h": "head"}, NOW, (begin, end))
    assert chosen is not None
    assert chosen.shown >= column.count
    # A few of them have bars of their own.
    begin = int(NOW - 570)
    closer = timeline(_burst(400), {"h": "head"}, NOW, (begin, begin + 3))
    assert closer is not None
    assert closer.groups[0].bars
    assert len(closer.groups[0].columns) <= 3
    assert closer.shown <= MOST_BARS


def test_jobs_at_one_moment_are_all_counted() -> None:
    same = {"start_time": int((NOW - 30) * 1000), "end_time": int((NOW - 29) * 1000)}
    found = timeline([job(f"job-{place}", "SUCCEEDED", **same) for place in range(900)], {}, NOW)
    assert found is not None
    assert found.shown == 900
    (group,) = found.groups
    assert [column.count + len(group.bars) for column in group.columns] == [900]


def test_many_nodes_share_the_last_group() -> None:
    jobs = [job(f"job-{node}-{place}", node_id=f"n{node}") for node in range(60) for place in range(1 + (node == 7))]
    found = timeline(jobs, {f"n{node}": f"worker {node}" for node in range(60)}, NOW)
    assert found is not None
    assert len(found.groups) == MOST_GROUPS
    assert found.groups[-1].label == f"{60 - MOST_GROUPS + 1} other nodes"
    assert "worker 7" in {group.label for group in found.groups}
    assert found.shown == 61


def test_chosen_period_says_what_lies_outside() -> None:
    jobs = [
        job("before", "SUCCEEDED", end_time=int((NOW - 90) * 1000)),
        job("in", start_time=int((NOW - 45) * 1000), node_id="h"),
        job("after", start_time=int((NOW - 5) * 1000)),
        job("waits", "PENDING", start_time=None),
    ]
    found = timeline(jobs, {"h": "head"}, NOW, (NOW - 60, NOW - 30))
    assert found is not None
    assert (found.shown, found.earlier, found.later, found.waiting) == (1, 1, 1, 1)
    (bar,) = found.groups[0].bars
    assert bar.cut
    assert (bar.x, bar.x + bar.width) == (50.0, 100.0)
