"""The jobs of one task that runs many: their keys and IDs, what an earlier try left of them, what is to do. Pure.

Each job has its own submission ID, made of the task instance, its key and its attempt. So whoever looks at the list of
the cluster's jobs, a later try or another triggerer, sees what was submitted, and Ray accepts none of them twice.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from airflow_provider_vertex_ray.core.job.state import OWNER_KEY, Action, Job, Try, attempt_id, decide
from airflow_provider_vertex_ray.errors import InvalidArgumentError

WINDOW = 8
"""Number of jobs that are submitted concurrently. A job is submitted only when all that are this far before it are
accepted, so that another triggerer can tell a job that was never submitted from one whose record was deleted."""

LONGEST_PLAN = 44_000
"""Maximum length of a packed plan in characters. It is one of the trigger's arguments, which Airflow encrypts, and
stores in a column of 64 KiB on MySQL."""

LONGEST_RESULTS = 48 * 1024
"""Maximum length of all packed results in characters: the trigger's event is stored in a column of 64 KiB on MySQL."""

MOST_JOBS = 4_000
"""Maximum number of jobs of one task. How all of them have ended must fit into the trigger's event."""

LONGEST_ROW = 4
"""Characters that each job takes there at most, packed, besides its key: its attempt, status and exit code."""

JOB_KEY = "airflow_job_key"
"""Key in a job's metadata: its key among the jobs of its task."""

REJECTED_KEY = "airflow_rejected_jobs"
"""Key in a job's metadata: places of jobs of its task that the cluster had rejected when it was submitted. They leave
no record of their own, and another triggerer would take them for jobs whose records were deleted."""

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SPAN = re.compile(r"(\d{1,9})-(\d{1,9})")
_LIKE_AN_ATTEMPT = re.compile(r".*-a\d+")

KEY_RULE = (
    "Use 1 to 63 letters, digits, dots, underscores and hyphens, the first of them a letter or a digit, that do not "
    "end like the number of an attempt, as shard-a2 does."
)


def check_keys(keys: Sequence[Any]) -> tuple[str, ...]:
    """Return the keys of all jobs once they are validated.

    :param keys: the ``key`` of each job; None for its place in the list
    :raises InvalidArgumentError: a key is malformed, two jobs have the same, or all together are too long
    """
    found: dict[str, int] = {}
    for place, key in enumerate(keys):
        field = f"jobs[{place}].key"
        if key is None:
            key = str(place)
        elif not isinstance(key, str) or not _KEY.fullmatch(key) or _LIKE_AN_ATTEMPT.fullmatch(key):
            raise InvalidArgumentError(field, key, KEY_RULE)
        if key in found:
            raise InvalidArgumentError(field, key, f"Use a key of its own; jobs[{found[key]}] has the same.")
        found[str.__str__(key)] = place
    checked = tuple(found)
    length, limit = len(pack(_short_keys(checked))), LONGEST_RESULTS - LONGEST_ROW * len(keys)
    if length > limit:
        raise InvalidArgumentError(
            "jobs",
            f"{len(keys)} jobs",
            f"Their keys have {length:,} characters when compressed, and Airflow's database holds {limit:,} besides "
            "what it stores of each of these jobs. Use shorter keys, or several tasks.",
        )
    return checked


def check_count(count: int) -> None:
    """Validate the number of jobs of a task.

    :raises InvalidArgumentError: there are too many
    """
    if count > MOST_JOBS:
        rule = f"Airflow's database holds the ends of {MOST_JOBS:,} jobs of a task. Use several tasks."
        raise InvalidArgumentError("jobs", f"{count} jobs", rule)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _short_keys(keys: tuple[str, ...]) -> int | tuple[str, ...]:
    """Return keys in the form in which they are stored."""
    return len(keys) if keys == _numbered(len(keys)) else keys


class Batch(NamedTuple):
    """The jobs of one task.

    :param prefix: what their submission IDs begin with
    :param keys: their keys, in order
    """

    prefix: str
    keys: tuple[str, ...]

    def job_id(self, place: int, attempt: int) -> str:
        """Return the submission ID of an attempt of the job at a place in the list."""
        return attempt_id(f"{self.prefix}-{self.keys[place]}", attempt)

    def short(self) -> list[Any]:
        """Return the form in which they are stored."""
        return [self.prefix, _short_keys(self.keys)]

    @classmethod
    def of(cls, stored: Sequence[Any]) -> Batch:
        """Return the jobs that ``short`` wrote."""
        prefix, keys = stored
        return cls(prefix, _numbered(keys) if isinstance(keys, int) else tuple(keys))


class Search(NamedTuple):
    """What is on the cluster of a task's jobs, as the current try sees it.

    :param attempts: the attempt of each job that this try waits for
    :param kept: places of the jobs that earlier tries left: they are active, or have succeeded
    :param active: those of them that are active
    :param stop: IDs of other active jobs of this task, such as those of a try that was cleared
    """

    attempts: tuple[int, ...]
    kept: frozenset[int]
    active: frozenset[int]
    stop: tuple[str, ...]


def search(batch: Batch, jobs: Iterable[Job], this: Try) -> Search:
    """Decide which attempt of each job the current try waits for.

    :param batch: the jobs of the task
    :param jobs: the jobs on the cluster; those of others are ignored
    :param this: the current try
    :raises SubmissionIdTakenError: one of the IDs belongs to a job that this task did not submit
    """
    there = {job.submission_id: job for job in jobs}
    attempts: list[int] = []
    kept: set[int] = set()
    active: set[int] = set()
    waited_for: set[str] = set()
    for place in range(len(batch.keys)):
        attempt = 1
        while (action := decide(there.get(batch.job_id(place, attempt)), this)) in (Action.NEXT, Action.SUPERSEDE):
            attempt += 1
        attempts.append(attempt)
        waited_for.add(batch.job_id(place, attempt))
        if action is not Action.SUBMIT:
            kept.add(place)
        if action is Action.ADOPT:
            active.add(place)
    # Also those whose entry is no longer in the list.
    stop = tuple(
        job.submission_id
        for job in there.values()
        if job.metadata.get(OWNER_KEY) == this.owner
        and not job.status.is_terminal
        and job.submission_id not in waited_for
    )
    return Search(tuple(attempts), frozenset(kept), frozenset(active), stop)


@dataclass(frozen=True)
class JobRow:
    """A job that is still to be submitted, without its ID and what all jobs have in common.

    :param entrypoint: the shell command
    :param runtime_env: Ray's runtime environment
    :param metadata: the job's own metadata
    :param reservation: what its driver reserves: CPUs, GPUs, bytes of memory, and custom resources by name
    :param hidden: names of environment variables whose values, which are secrets, are not in ``runtime_env``
    :param hidden_in: ID of a job on the cluster that has them
    """

    entrypoint: str
    runtime_env: dict[str, Any]
    metadata: dict[str, str]
    reservation: tuple[float | None, float | None, int | None, dict[str, float] | None] = (None, None, None, None)
    hidden: tuple[str, ...] = ()
    hidden_in: str = ""


@dataclass(frozen=True)
class BatchPlan:
    """What the wait for the jobs of one try has to know, in a form that is small enough for Airflow's database.

    It contains no secrets: the jobs that are submitted later take them from one that is already on the cluster.

    :param batch: the jobs
    :param this: the current try
    :param attempts: the attempt of each job
    :param adopted: places of active jobs that an earlier try submitted
    :param todo: places of the jobs that this try submits, in order
    :param sent: number of them that were submitted before the wait
    :param rows: the others
    :param metadata: metadata of all jobs
    """

    batch: Batch
    this: Try
    attempts: tuple[int, ...]
    adopted: frozenset[int] = frozenset()
    todo: tuple[int, ...] = ()
    sent: int = 0
    rows: Mapping[int, JobRow] | None = None
    metadata: Mapping[str, str] | None = None

    def job_id(self, place: int) -> str:
        """Return the submission ID of the job at a place in the list."""
        return self.batch.job_id(place, self.attempts[place])

    @property
    def job_ids(self) -> dict[str, int]:
        """Return the places of all jobs by their submission IDs."""
        return {self.job_id(place): place for place in range(len(self.attempts))}

    def packed(self) -> str:
        """Return the plan as a text.

        :raises InvalidArgumentError: it is too large for the trigger's arguments
        """
        environments: dict[str, int] = {}
        rows = []
        for place in self.todo[self.sent :]:
            row = (self.rows or {})[place]
            environment = json.dumps([row.runtime_env, row.hidden, row.hidden_in], sort_keys=True)
            number = environments.setdefault(environment, len(environments))
            rows.append([number, row.entrypoint, row.metadata, *row.reservation])
        text = pack(
            {
                "batch": self.batch.short(),
                "try": [self.this.owner, self.this.number, self.this.clear_epoch, self.this.key],
                "attempts": self.attempts,
                "adopted": list(_spans(sorted(self.adopted))),
                "todo": list(_spans(self.todo)),
                "sent": self.sent,
                "environments": [json.loads(each) for each in environments],
                "rows": rows,
                "metadata": dict(self.metadata or {}),
            }
        )
        if len(text) > LONGEST_PLAN:
            raise InvalidArgumentError(
                "jobs",
                f"{len(self.attempts)} jobs",
                f"What the triggerer has to keep of the jobs, and of the {len(rows)} that it submits later, has "
                f"{len(text):,} characters when compressed, and Airflow's database holds {LONGEST_PLAN:,}. Use "
                "max_active=None to submit all at once, shorter keys and arguments (such as a number with which the "
                "program looks up the rest), or several tasks.",
            )
        return text

    @classmethod
    def of(cls, text: str) -> BatchPlan:
        """Return the plan that ``packed`` wrote."""
        found = unpack(text)
        todo = tuple(_places(found["todo"]))
        rows = {}
        for place, row in zip(todo[found["sent"] :], found["rows"], strict=True):
            number, entrypoint, metadata, *reservation = row
            environment, hidden, hidden_in = found["environments"][number]
            rows[place] = JobRow(entrypoint, environment, metadata, tuple(reservation), tuple(hidden), hidden_in)
        return cls(
            batch=Batch.of(found["batch"]),
            this=Try(*found["try"]),
            attempts=tuple(found["attempts"]),
            adopted=frozenset(_places(found["adopted"])),
            todo=todo,
            sent=found["sent"],
            rows=rows,
            metadata=found["metadata"],
        )

    def with_attempts(self, attempts: Mapping[int, int]) -> BatchPlan:
        """Return the plan with other attempts of some jobs."""
        return replace(
            self, attempts=tuple(attempts.get(place, attempt) for place, attempt in enumerate(self.attempts))
        )


def rejected_text(places: Iterable[int]) -> str:
    """Return the places of rejected jobs as the value of ``REJECTED_KEY``."""
    return ",".join(f"{first}-{last}" for first, last in _spans(sorted(places)))


def rejected_before(jobs: Iterable[Job], plan: BatchPlan) -> set[int]:
    """Return the places of the jobs that the cluster has rejected, according to jobs that were submitted later.

    :param jobs: jobs of the plan; those of others are ignored
    :param plan: the plan
    """
    todo = set(plan.todo)
    found: set[int] = set()
    for text in {job.metadata.get(REJECTED_KEY, "") for job in jobs if job.metadata.get(OWNER_KEY) == plan.this.owner}:
        for span in _SPAN.finditer(text):
            first, last = int(span[1]), int(span[2])
            found |= {place for place in todo if first <= place <= last}
    return found


def _spans(places: Iterable[int]) -> Iterator[list[int]]:
    span: list[int] = []
    for place in places:
        if span and place == span[1] + 1:
            span[1] = place
            continue
        if span:
            yield span
        span = [place, place]
    if span:
        yield span


def _places(spans: Iterable[Sequence[int]]) -> Iterator[int]:
    for first, last in spans:
        yield from range(first, last + 1)


def pack(value: Any) -> str:
    """Return a JSON value as a compressed text, without quotes and backslashes."""
    data = json.dumps(value, separators=(",", ":")).encode()
    return base64.b85encode(zlib.compress(data, 9)).decode()


def unpack(text: str) -> Any:
    """Return the value that ``pack`` wrote."""
    return json.loads(zlib.decompress(base64.b85decode(text)))
