"""How the jobs of a task that runs many have ended: what its XCom holds of each, and the error of those that failed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_vertex_ray.core.job.batch import LONGEST_RESULTS, Batch, pack, unpack
from airflow_provider_vertex_ray.core.job.state import JobStatus
from airflow_provider_vertex_ray.errors import JobsFailedError, NotStorableError

LOST = "LOST"
"""Status of a job that the cluster no longer knows."""

REJECTED = "REJECTED"
"""Status of a job that the cluster did not accept."""

NOT_RUN = "NOT_RUN"
"""Status of a job that was not submitted, because another one had failed or the task was killed."""

LONGEST_ERROR = 300
"""Maximum length of a job's error in the results, in characters."""

SHORT_ERROR = 20
"""Maximum length of these errors where they would not fit into the trigger's event otherwise."""

LEFT_OUT = "left out; see the task's log"
"""Error of a job whose own does not fit into the trigger's event."""

HOPELESS = 4
"""How many times as large as the limit the compressed results may become while they are read: the measure is rough."""

MOST_RESULT_BYTES = 8 << 20
"""Maximum size of all results in bytes of JSON, before they are compressed: they are in the triggerer's memory."""

MOST_NAMED = 10
"""Number of failed jobs that the task's error names."""


@dataclass(frozen=True)
class Outcome:
    """The end of one job.

    :param attempt: its attempt; 0 if it was not submitted
    :param status: Ray's status, ``LOST``, ``REJECTED`` or ``NOT_RUN``
    :param exit_code: exit code of its driver, if it is known
    :param start_time: milliseconds since 1970, or None
    :param end_time: milliseconds since 1970, or None
    :param result: what it printed as its result
    :param error: why it has no result; empty if it succeeded
    """

    attempt: int
    status: str
    exit_code: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    result: Any = None
    error: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the job has succeeded, and its result is known."""
        return self.status == JobStatus.SUCCEEDED.value and not self.error

    def entry(self, batch: Batch, place: int) -> dict[str, Any]:
        """Return what the task's XCom holds of the job."""
        known = self.start_time is not None and self.end_time is not None
        return {
            "key": batch.keys[place],
            "submission_id": batch.job_id(place, self.attempt) if self.attempt else None,
            "status": self.status,
            "exit_code": self.exit_code,
            "start_time": self.start_time,
            "end_time": self.end_time,
            "duration_seconds": round((self.end_time - self.start_time) / 1000, 3) if known else None,  # type: ignore[operator]
            "result": self.result,
            "error": self.error or None,
        }


_Shorter = Callable[[Sequence[Outcome]], Sequence[Outcome]]


def pack_outcomes(batch: Batch, outcomes: Sequence[Outcome], results: ResultsSize | None = None) -> str:
    """Return the ends of all jobs as a text that fits into a trigger's event. Takes seconds for large results.

    If jobs failed, the results of the others may be left out, so that they do not hide that; then the times and errors.

    :param batch: the jobs, no more than ``check_keys`` allows
    :param outcomes: their ends
    :param results: size of their results, if it was measured
    :raises NotStorableError: all jobs succeeded, but their results are too large together
    """
    failed = not all(each.succeeded for each in outcomes)
    complete = results is None or not results.too_large
    if not failed:
        forms: tuple[_Shorter, ...] = (_with_all, _without_times) if complete else ()
    else:
        forms = (_with_all, _with_short_errors) if complete else ()
        forms += (_without_results, _with_times_of_failed, _bare)
    text = ""
    for shorter in forms:
        outcomes = shorter(outcomes)
        text = _packed(batch, outcomes)
        if len(text) <= LONGEST_RESULTS:
            return text
    size = f"{len(text):,}" if complete else f"more than {LONGEST_RESULTS:,}"
    raise NotStorableError(
        f"The results of the {len(outcomes)} jobs have {size} characters together when compressed; the limit is "
        f"{LONGEST_RESULTS:,}. Let the jobs write them to files, and print the files' paths.",
        {"path": "result"},
    )


class ResultsSize:
    """Size of the results that were read so far, so that what can never be stored does not fill the memory.

    They are compressed together, because results that are like each other take little room: the sum of their own sizes
    would refuse many that fit.
    """

    def __init__(self) -> None:
        self.too_large = False
        """Whether they cannot fit into a trigger's event."""
        self._compressor = zlib.compressobj(6)
        self._bytes = self._compressed = 0

    def add(self, result: Any) -> bool:
        """Add a result; return whether to keep it."""
        if result is None or self.too_large:
            return result is None
        data = json.dumps(result, separators=(",", ":")).encode()
        self._bytes += len(data)
        self._compressed += len(self._compressor.compress(data))
        # What is packed in the end is in another order, and compressed better.
        self.too_large = self._compressed > HOPELESS * LONGEST_RESULTS or self._bytes > MOST_RESULT_BYTES
        return not self.too_large


def _packed(batch: Batch, outcomes: Sequence[Outcome]) -> str:
    columns: dict[str, Any] = {
        "attempts": _coded([each.attempt for each in outcomes]),
        "statuses": _coded([each.status for each in outcomes]),
        "exit_codes": _coded([each.exit_code for each in outcomes]),
        "results": _sparse([each.result for each in outcomes]),
        "errors": _coded([each.error for each in outcomes]),
    }
    # Jobs start about in order, and each takes about as long as the others: the differences are small.
    starts, durations, last = [], [], 0
    for each in outcomes:
        start, end = each.start_time, each.end_time
        starts.append(None if start is None else start - last)
        last = last if start is None else start
        durations.append(None if end is None else end - last)
    columns |= {"starts": _sparse(starts), "durations": _sparse(durations)}
    # Apart from the keys, so that their sizes add up: that of the keys is checked before anything is submitted.
    return f"{pack(batch.short())} {pack(columns)}"


def unpack_outcomes(text: str) -> tuple[Batch, list[Outcome]]:
    """Return the jobs and their ends that ``pack_outcomes`` wrote."""
    stored, columns = map(unpack, text.split())
    batch = Batch.of(stored)
    count = len(batch.keys)
    coded = [_decoded(columns[name], count) for name in ("attempts", "statuses", "exit_codes", "errors")]
    sparse = [_from_sparse(columns[name], count) for name in ("starts", "durations", "results")]
    outcomes, last = [], 0
    for attempt, status, code, error, start, duration, result in zip(*coded, *sparse, strict=True):
        last += start or 0
        begin = None if start is None else last
        end = None if duration is None else last + duration
        outcomes.append(Outcome(attempt, status, code, begin, end, result, error))
    return batch, outcomes


def _coded(column: Sequence[Any]) -> list[Any]:
    """Return the different values of a column, and which of them each row has unless all have the same."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(column))}
    return [list(numbers), [numbers[value] for value in column] if len(numbers) > 1 else []]


def _decoded(coded: Sequence[Any], count: int) -> list[Any]:
    values, numbers = coded
    return [values[number] for number in numbers or [0] * count]


def _sparse(column: list[Any]) -> list[Any]:
    return [] if all(value is None for value in column) else column


def _from_sparse(column: list[Any], count: int) -> list[Any]:
    return column or [None] * count


def _with_all(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    return outcomes


def _with_short_errors(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [replace(each, error=each.error[:SHORT_ERROR]) for each in outcomes]


def _without_results(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [replace(each, result=None) for each in _with_short_errors(outcomes)]


def _without_times(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [replace(each, start_time=None, end_time=None) for each in outcomes]


def _with_times_of_failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    bare = _without_times(outcomes)
    return [short if each.succeeded else each for each, short in zip(outcomes, bare, strict=True)]


def _bare(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Leave out all times and errors, but not that there was one."""
    return [replace(each, error=each.error and LEFT_OUT) for each in _without_times(outcomes)]


def failure_of(batch: Batch, outcomes: Sequence[Outcome], reason: str, cluster: str) -> JobsFailedError | None:
    """Return the error of a task of whose jobs some did not succeed; None if all did.

    :param batch: the jobs
    :param outcomes: their ends
    :param reason: message of the first one that failed, with its last lines of output
    :param cluster: full name of the cluster
    """
    failed = [place for place, each in enumerate(outcomes) if not each.succeeded and each.status != NOT_RUN]
    left = sum(each.status == NOT_RUN for each in outcomes)
    if not failed and not left:
        return None
    named = [f"{batch.keys[place]} ({_short(outcomes[place])})" for place in failed[:MOST_NAMED]]
    more = f" and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
    rest = f" {left} {'was' if left == 1 else 'were'} not run." if left else ""
    message = f"{len(failed)} of {len(outcomes)} Ray jobs did not succeed: {', '.join(named)}{more}.{rest}"
    details: Mapping[str, Any] = {
        "failed": [batch.keys[place] for place in failed],
        "not_run": left,
        "cluster": cluster,
    }
    return JobsFailedError(f"{message}\nThe first of them: {reason}" if reason else message, dict(details))


def _short(outcome: Outcome) -> str:
    if outcome.exit_code:
        return f"exit code {outcome.exit_code}"
    return outcome.status if outcome.status != JobStatus.SUCCEEDED.value else "its result could not be read"


def entries_of(batch: Batch, outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Return what the task's XCom holds of its jobs, in order."""
    return [each.entry(batch, place) for place, each in enumerate(outcomes)]
