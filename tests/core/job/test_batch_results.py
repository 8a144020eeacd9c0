"""The ends of many jobs: read back as they were written, and never too large once the jobs have run."""

from __future__ import annotations

import functools
import random
from dataclasses import replace

import pytest

from airflow_provider_vertex_ray.core.job.batch import LONGEST_RESULTS, MOST_JOBS, Batch, check_keys
from airflow_provider_vertex_ray.core.job.batch_results import (
    LEFT_OUT,
    NOT_RUN,
    Outcome,
    ResultsSize,
    failure_of,
    pack_outcomes,
    unpack_outcomes,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError, NotStorableError

BEGIN = 1_790_000_000_000
PREFIX = "af-" + "x" * 60 + "-0123456789abcdef"
NUMBERED = Batch(PREFIX, tuple(map(str, range(MOST_JOBS))))


def _ended(noise: random.Random, count: int, start: int = 3_600_000, duration: int = 600_000) -> list[Outcome]:
    """Jobs that succeeded, as they were started one after another."""
    starts = sorted(BEGIN + noise.randrange(start) for _ in range(count))
    return [Outcome(1, "SUCCEEDED", 0, begin, begin + noise.randrange(duration)) for begin in starts]


def _text(noise: random.Random, length: int) -> str:
    return f"{noise.getrandbits(4 * length):0{length}x}"


def test_ends_are_read_back_as_they_were_written() -> None:
    outcomes = [
        Outcome(1, "SUCCEEDED", 0, BEGIN + 50, BEGIN + 70, {"n": [1, None]}),
        Outcome(3, "FAILED", 137, BEGIN, BEGIN + 10, None, "failed: out of memory"),
        Outcome(1, "STOPPED", None, None, BEGIN + 99, None, "was stopped"),
        Outcome(2, "SUCCEEDED", 0, BEGIN + 9, None, False),
        Outcome(0, NOT_RUN, error="was not run"),
    ]
    for keys in (("0", "1", "2", "3", "4"), ("a", "b", "c", "d", "e")):
        batch = Batch(PREFIX, keys)
        assert unpack_outcomes(pack_outcomes(batch, outcomes)) == (batch, outcomes)
        assert unpack_outcomes(pack_outcomes(batch, [outcomes[4]] * 5)) == (batch, [outcomes[4]] * 5)


def test_largest_batch_without_results_has_all_times() -> None:
    outcomes = _ended(random.Random(1), MOST_JOBS)
    text = pack_outcomes(NUMBERED, outcomes)
    assert len(text) < LONGEST_RESULTS * 2 / 3
    assert unpack_outcomes(text) == (NUMBERED, outcomes)


@functools.cache
def _longest_keys(count: int) -> tuple[str, ...]:
    """The longest keys of so many jobs that are accepted."""
    noise = random.Random(2)
    digits = [f"{place:x}.{_text(noise, 63)}" for place in range(count)]
    keys: tuple[str, ...] = ()
    shortest, longest = 4, 63
    while shortest <= longest:
        length = (shortest + longest) // 2
        try:
            keys, shortest = check_keys([each[:length] for each in digits]), length + 1
        except InvalidArgumentError:
            longest = length - 1
    assert keys
    return keys


@pytest.mark.parametrize("count", [1_500, MOST_JOBS])
@pytest.mark.parametrize("failed", [0.0, 0.5, 1.0])
def test_no_accepted_batch_is_too_large_whatever_becomes_of_its_jobs(count: int, failed: float) -> None:
    """As after many retries, with jobs of several days, when each of them fails in its own way."""
    noise = random.Random(3)
    batch = Batch(PREFIX, _longest_keys(count))
    outcomes = []
    for place in range(count):
        begin = BEGIN + noise.randrange(10**9)
        outcome = Outcome(noise.randrange(1, 10), "SUCCEEDED", 0, begin, begin + noise.randrange(10**8))
        # Each of them occurs in any case.
        if failed and (place == 0 or noise.random() < failed):
            status = noise.choice(["FAILED", "STOPPED", "LOST", "UNKNOWN", "RUNNING"])
            outcome = replace(outcome, status=status, exit_code=noise.randrange(256), error=_text(noise, 300))
        outcomes.append(outcome)
    text = pack_outcomes(batch, outcomes)
    assert len(text) <= LONGEST_RESULTS
    again, found = unpack_outcomes(text)
    assert again == batch
    told = [(each.attempt, each.status, each.exit_code, each.succeeded) for each in found]
    assert told == [(each.attempt, each.status, each.exit_code, each.succeeded) for each in outcomes]
    error = failure_of(again, found, "", "cluster")
    assert (error is None) is (failed == 0)


def test_what_is_known_of_failed_jobs_is_left_out_last() -> None:
    noise = random.Random(4)
    succeeded = [replace(each, result=_text(noise, 40)) for each in _ended(noise, 3_900, 10**9, 10**8)]
    failed = [
        Outcome(1, "FAILED", noise.randrange(1, 256), BEGIN + noise.randrange(10**9), BEGIN + 10**9, None, "failed: oh")
        for _ in range(100)
    ]
    noise.shuffle(outcomes := [*succeeded, *failed])
    batch = Batch(PREFIX, _longest_keys(MOST_JOBS))
    _, found = unpack_outcomes(pack_outcomes(batch, outcomes))
    assert [each for each in found if not each.succeeded] == [each for each in outcomes if not each.succeeded]
    assert {(each.start_time, each.result) for each in found if each.succeeded} == {(None, None)}


def test_error_that_is_left_out_is_not_forgotten() -> None:
    noise = random.Random(5)
    outcomes = [replace(each, error=_text(noise, 300)) for each in _ended(noise, MOST_JOBS)]
    _, found = unpack_outcomes(pack_outcomes(NUMBERED, outcomes))
    assert {each.error for each in found} == {LEFT_OUT}
    assert not any(each.succeeded for each in found)


def test_times_make_room_for_results() -> None:
    noise = random.Random(6)
    outcomes = [replace(each, result=_text(noise, 9)) for each in _ended(noise, MOST_JOBS, 10**9, 10**8)]
    _, found = unpack_outcomes(pack_outcomes(NUMBERED, outcomes))
    assert [each.result for each in found] == [each.result for each in outcomes]


def test_results_that_are_too_large_are_an_error_only_if_no_job_failed() -> None:
    noise = random.Random(7)
    outcomes = [replace(each, result=_text(noise, 200)) for each in _ended(noise, 1_000)]
    batch = Batch(PREFIX, tuple(map(str, range(1_000))))
    with pytest.raises(NotStorableError, match=r"The results of the 1000 jobs have 1\d\d,\d{3} characters"):
        pack_outcomes(batch, outcomes)
    outcomes[500] = Outcome(1, "FAILED", 1, BEGIN, BEGIN + 5, None, "failed: oh")
    _, found = unpack_outcomes(pack_outcomes(batch, outcomes))
    assert [place for place, each in enumerate(found) if not each.succeeded] == [500]


def test_results_that_fit_are_kept_however_many_they_are() -> None:
    size = ResultsSize()
    results = [{"rows": 1_000 + place, "path": f"gs://bucket/day/part-{place:05}.parquet"} for place in range(4_000)]
    assert all(map(size.add, results))
    assert size.add(None)
    outcomes = [replace(each, result=result) for each, result in zip(_ended(random.Random(8), 4_000), results)]  # noqa: B905
    _, found = unpack_outcomes(pack_outcomes(NUMBERED, outcomes, size))
    assert [each.result for each in found] == results


@pytest.mark.parametrize(("text", "most"), [("noise", 10), ("zeros", 300)])
def test_results_that_cannot_fit_are_dropped_while_they_are_read(text: str, most: int) -> None:
    noise = random.Random(9)
    size = ResultsSize()
    kept = sum(size.add(_text(noise, 40_000) if text == "noise" else "0" * 40_000) for _ in range(1_000))
    assert 1 < kept < most
    outcomes = _ended(noise, 1_000)
    batch = Batch(PREFIX, tuple(map(str, range(1_000))))
    with pytest.raises(NotStorableError, match="more than 49,152 characters"):
        pack_outcomes(batch, outcomes, size)
    # Results that are there by chance are not taken for all of them.
    outcomes[0] = replace(outcomes[0], result="first")
    outcomes[1] = replace(outcomes[1], status="FAILED", error="failed: oh")
    _, found = unpack_outcomes(pack_outcomes(batch, outcomes, size))
    assert [each.result for each in found] == [None] * 1_000
