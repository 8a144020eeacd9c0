"""Where the bars of the timeline go, whatever the jobs' times are."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.plugins.page.timeline import MOST_BARS, MOST_LANES, timeline
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


@example([job(f"{place}", "SUCCEEDED", **times) for place, times in enumerate(CROWDED)], NOW)
@given(_jobs(LATELY) | _jobs(ANY_TIME | LATELY), st.just(NOW) | st.floats(1.0, 4e9))
def test_bars_never_overlap_and_stay_inside(jobs: list[Job], now: float) -> None:
    found = timeline(jobs, {"a": "head", "b": "worker 1"}, now)
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
    assert found.shown + found.left_out == sum(1 for each in jobs if each.start_time)
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
    assert found.left_out == 1
    alone = timeline([old], {}, NOW)
    assert alone is not None
    assert alone.shown == 1


def test_excess_jobs_are_counted() -> None:
    jobs = [job(f"job-{place}") for place in range(MOST_BARS + 50)]
    found = timeline(jobs, {}, NOW)
    assert found is not None
    assert found.shown == MOST_LANES
    assert found.left_out == MOST_BARS + 50 - MOST_LANES
