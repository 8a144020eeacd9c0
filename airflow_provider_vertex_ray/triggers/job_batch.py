"""The wait for many jobs: their statuses by one request, the next submissions, deadlines, and the output of the ended.

All that it has to know is in the plan and on the cluster. So another triggerer can continue at any moment: it sees by
the submission IDs which jobs exist, and submits the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.job.batch import WINDOW, BatchPlan, pack, rejected_before
from airflow_provider_vertex_ray.core.job.batch_results import (
    LONGEST_ERROR,
    LOST,
    NOT_RUN,
    REJECTED,
    Outcome,
    pack_outcomes,
)
from airflow_provider_vertex_ray.core.job.state import OWNER_KEY, Job, JobStatus
from airflow_provider_vertex_ray.errors import VertexRayError
from airflow_provider_vertex_ray.triggers.job_batch_limits import (
    REJECTIONS,
    Undelivered,
    error_of,
    job_timeout_passed,
    limit_passed,
    packages_of,
    pending_timeout_passed,
)
from airflow_provider_vertex_ray.triggers.job_batch_look import UnreadableJobs, read_statuses
from airflow_provider_vertex_ray.triggers.job_batch_output import BatchRules, EndedJobs
from airflow_provider_vertex_ray.triggers.job_cluster import UNREAD_ERRORS, TaskLog, waited_out
from airflow_provider_vertex_ray.triggers.job_pace import SHARE_OF_AGE, Pace

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.client import JobsApi

LIST_SHARE = 0.2
"""Maximum share of the time in which the cluster is busy with the requests of one wait."""

PROGRESS_SECONDS = 30.0
"""Minimum number of seconds between two lines about the progress."""

PIN_SECONDS = 240.0
"""Seconds after which the packages of jobs that are not submitted yet are looked up again. Ray deletes a package that
no job uses ten minutes after it was looked up last."""

OTHER_FAILED = "another job failed"
KILLED = "the task was killed"

STOP_SECONDS = 20.0
"""Seconds to wait for the end of a job that was asked to stop; Ray kills a driver that ignores that after 3 s."""

STOP_PENDING_SECONDS = 3.0
"""The same for a job whose driver waits for resources, which Ray may let wait for 15 minutes more."""

ADOPTED_SECONDS = 10.0
"""Seconds in which the kill of an earlier try may stop jobs that this try has adopted."""


class BatchWait:
    """Waits for the jobs of a plan, and submits those of it that are not submitted yet.

    :param api: Jobs API of the cluster.
    :param plan: the plan.
    :param rules: what the user wants.
    :param log: log of the task.
    :param lost: raises if the jobs cannot be read for too long; takes the Unix time since which they cannot, and the
        error. Returns whether to try again as if nothing had happened.
    :param closing: tells whether the task was killed, so that nothing more may be submitted.
    """

    def __init__(
        self,
        api: JobsApi,
        plan: BatchPlan,
        rules: BatchRules,
        log: TaskLog,
        lost: Callable[[float, VertexRayError], Awaitable[bool]],
        closing: Callable[[], bool],
    ) -> None:
        from airflow_provider_vertex_ray.core.job.batch_client import Submitter

        self._api = api
        self._plan = plan
        self._rules = rules
        self._log = log
        self._lost = lost
        self._closing = closing
        self._submitter = Submitter(api, plan)
        self._output = EndedJobs(api, plan, rules, log)
        self._order = {place: number for number, place in enumerate(plan.todo)}
        self._waiting = list(plan.todo[plan.sent :])
        """Places of the jobs that are not submitted yet, in order."""
        self._active: dict[int, float] = {
            place: time.time() for place in range(len(plan.attempts)) if self._order.get(place, -1) < plan.sent
        }
        """Places of the submitted jobs that have not ended, as far as is known, and since when they count."""
        self._jobs: dict[int, Job] = {}
        self._ended: dict[int, Outcome] = {}
        self._reasons: dict[int, str] = {}
        """Why a job was asked to stop."""
        self._asked: dict[int, float] = {}
        self._first_asked: dict[int, float] = {}
        self._missing: dict[int, float] = {}
        self._unreadable = UnreadableJobs(rules.lost_timeout)
        self._undelivered = Undelivered(rules.lost_timeout, log)
        self._unpinned = Undelivered(rules.lost_timeout, log)
        self._reading: dict[int, asyncio.Task[None]] = {}
        self._first_look = True
        self._unread_since: float | None = None
        self._cost = 0.0
        self._stopped_adopted: dict[int, float] = {}
        self._again = ""
        self._not_run = OTHER_FAILED
        self._said = (0.0, "")
        self._pinned = time.monotonic()

    async def run(self) -> dict[str, Any]:
        """Wait for all jobs.

        :return: ``outcomes``, packed, and ``reason``, the message of the first job that failed; or ``again``, if only a
            worker can submit the rest, with ``found``, packed: ``attempts``, and the places that are ``submitted`` and
            ``adopted``.
        :raises JobLostError: the cluster is gone, or does not answer.
        """
        try:
            with Pace(self._rules.poll_interval) as pace:
                while not await self._step():
                    await pace.pause(*self._until_next())
            await asyncio.gather(*self._reading.values())
        finally:
            for task in self._reading.values():
                task.cancel()
            if self._reading:
                await asyncio.wait(self._reading.values())
        return await self._result()

    async def _step(self) -> bool:
        """Look at the jobs, and do what is due; return whether the wait is over."""
        try:
            await self._look()
        except UNREAD_ERRORS as error:
            if not waited_out(error):
                raise
            self._unread_since = self._unread_since or time.time()
            if await self._lost(self._unread_since, error):
                self._unread_since = None
        else:
            self._unread_since = None
            await self._act()
        self._tell()
        if self._stopped_adopted and self._is_settled():
            self._again = "an earlier try's kill stopped jobs that this try had adopted"
        return bool(self._again) or not (self._active or self._waiting)

    async def _act(self) -> None:
        """Do what is due after a look."""
        if self._failed and self._rules.stop_at_failure:
            self._waiting.clear()
            self._end_stopped_adopted()
            await self._stop(dict.fromkeys(self._active, OTHER_FAILED))
        if self._closing() and self._rules.stop_on_kill:
            # Some of them may have been on their way while the others were stopped.
            await self._stop(dict.fromkeys(self._active, KILLED))
        await self._check_deadlines()
        if await self._keep_packages():
            await self._submit()

    async def _look(self) -> None:
        """Read the statuses of all jobs that have not ended.

        :raises VertexRayError: none of them can be read
        """
        begin = time.monotonic()
        active, waiting = ([self._plan.job_id(each) for each in places] for places in (self._active, self._waiting))
        wanted = dict(zip((*active, *waiting), (*self._active, *self._waiting), strict=True))
        found = await read_statuses(self._api, active, waiting, whole=self._first_look)
        self._cost = time.monotonic() - begin
        unreadable = {wanted[job_id]: error for job_id, error in found.unreadable.items()}
        for job_id, place in wanted.items():
            if (job := found.jobs.get(job_id)) is not None:
                self._note(place, job)
            elif place in unreadable:
                # It exists.
                self._missing.pop(place, None)
                if place in self._waiting:
                    self._waiting.remove(place)
                self._active.setdefault(place, time.time())
        if self._first_look:
            self._find_submitted()
            self._first_look = False
        for place in [place for place in self._active if self._plan.job_id(place) not in found.jobs]:
            if place in unreadable:
                continue
            since = self._missing.setdefault(place, time.time())
            if time.time() - since > self._rules.lost_timeout:
                why = f"for {self._rules.lost_timeout:.0f} s the cluster did not know it"
                self._end(place, Outcome(self._plan.attempts[place], LOST, error=f"is lost: {why}"))
        if unreadable:
            error = next(iter(unreadable.values()))
            self._log.warning(
                "Could not read the statuses of %d Ray jobs; retrying: %s", len(unreadable), error.message
            )
        for place, why in self._unreadable.lost(unreadable).items():
            self._end(place, Outcome(self._plan.attempts[place], LOST, error=why))

    def _find_submitted(self) -> None:
        """Infer which jobs another triggerer has submitted, although the cluster has no record of them any longer."""
        mine = {place: job for place, job in self._jobs.items() if place in self._order}
        last = max((self._order[place] for place in mine), default=-1)
        # They have no record either. They are tried again, which tells why the cluster rejects them.
        self._submitter.rejected |= rejected_before(mine.values(), self._plan)
        for place in [place for place in self._waiting if self._order[place] <= last - WINDOW]:
            if place in self._submitter.rejected:
                continue
            self._waiting.remove(place)
            self._active[place] = time.time()

    def _note(self, place: int, job: Job) -> None:
        self._missing.pop(place, None)
        self._jobs[place] = job
        if is_new := place in self._waiting:
            self._waiting.remove(place)
        if job.metadata.get(OWNER_KEY) != self._plan.this.owner:
            message = "was not submitted: its submission ID belongs to a job of another task"
            self._end(place, Outcome(0, REJECTED, error=message))
            return
        if is_new:
            self._undelivered.accepted()
        started = job.start_time / 1000 if job.start_time else time.time()
        self._active[place] = min(self._active.get(place, time.time()), started)
        if not job.status.is_terminal:
            return
        asked = place in self._reasons
        passed = limit_passed(job, self._rules)
        if job.status is JobStatus.STOPPED and place in self._plan.adopted and not asked and passed is None:
            # The kill of the try that submitted the job was still in progress when this try adopted it. A job that had
            # passed its limit was stopped by another triggerer, and would pass it again.
            self._stopped_adopted[place] = time.monotonic()
            self._active.pop(place)
            return
        attempt = self._plan.attempts[place]
        # For its limit, it may have been another triggerer that stopped it.
        error = error_of(job, self._reasons.get(place) or passed)
        self._end(place, Outcome(attempt, job.status.value, job.exit_code, job.start_time, job.end_time, error=error))

    def _end(self, place: int, outcome: Outcome) -> None:
        self._active.pop(place, None)
        if outcome.error:
            self._output.messages[place] = f"Ray job {self._plan.job_id(place)} {outcome.error}"
            outcome = replace(outcome, error=outcome.error[:LONGEST_ERROR])
        self._ended[place] = outcome
        if place in self._jobs and self._jobs[place].status.is_terminal and outcome.attempt:
            self._reading[place] = asyncio.create_task(self._read(place, self._jobs[place]))
        elif outcome.error:
            self._log.error("[%s] %s", self._plan.batch.keys[place], self._output.messages[place])

    def _end_stopped_adopted(self) -> None:
        """End the adopted jobs that were stopped, instead of running them again: another job has failed."""
        for place in self._stopped_adopted:
            self._reasons[place] = OTHER_FAILED
            self._note(place, self._jobs[place])
        self._stopped_adopted.clear()

    def _reject(self, place: int, error: str) -> None:
        """End a job that was not submitted."""
        self._waiting.remove(place)
        self._submitter.rejected.add(place)
        self._end(place, Outcome(0, REJECTED, error=error))

    async def _read(self, place: int, job: Job) -> None:
        self._ended[place] = await self._output.read(place, job, self._ended[place])

    async def _submit(self) -> None:
        """Submit the next jobs, as many as may be active; those that cannot be now are submitted later."""
        from airflow_provider_vertex_ray.core.job.batch_client import each

        failures: dict[int, VertexRayError] = {}

        async def one(place: int) -> None:
            try:
                submitted = await self._submitter.submit(place, (self._plan.rows or {})[place])
            except REJECTIONS as error:
                self._reject(place, f"was not submitted: {error.message}")
                return
            except VertexRayError as error:
                failures[place] = error
                return
            if not submitted:
                self._again = "the job is gone from which the jobs that are not submitted yet take their secrets"
                return
            self._undelivered.accepted()
            self._submitter.rejected.discard(place)
            self._waiting.remove(place)
            self._active[place] = time.time()

        while self._waiting and not self._again and not self._stopped_adopted:
            if self._closing() or (self._failed and self._rules.stop_at_failure):
                self._not_run = KILLED if self._closing() else OTHER_FAILED
                self._waiting.clear()
                return
            limit = self._rules.max_active
            room = len(self._waiting) if limit is None else limit - len(self._active)
            end = self._order[self._waiting[0]] + WINDOW
            if room <= 0:
                return
            chunk = [place for place in self._waiting[: min(room, WINDOW)] if self._order[place] < end]
            failures.clear()
            begin = time.time()
            await each(chunk, one)
            if failures:
                why = self._undelivered.too_long(begin, next(iter(failures.values())))
                if why is None:
                    return
                for place in list(self._waiting) if self._undelivered.give_up() else failures:
                    self._reject(place, why)

    async def _check_deadlines(self) -> None:
        now = time.time()
        rules = self._rules
        late: dict[int, str] = {}
        for place, since in self._active.items():
            job = self._jobs.get(place)
            pending = job is None or job.status is JobStatus.PENDING
            if rules.job_timeout is not None and now - since > rules.job_timeout:
                late[place] = job_timeout_passed(rules.job_timeout)
            elif rules.pending_timeout is not None and pending and now - since > rules.pending_timeout:
                late[place] = pending_timeout_passed(rules.pending_timeout)
        await self._stop({**{place: why for place, why in self._reasons.items() if place in self._active}, **late})

    async def _stop(self, reasons: dict[int, str]) -> None:
        """Request that jobs stop, again where they have not after a while."""
        from airflow_provider_vertex_ray.core.job.batch_client import each
        from airflow_provider_vertex_ray.core.job.submission import STOP_AGAIN

        now = time.monotonic()

        async def one(place: int) -> None:
            self._reasons.setdefault(place, reasons[place])
            try:
                await self._api.stop(self._plan.job_id(place))
                self._asked[place] = now
                self._first_asked.setdefault(place, now)
            except VertexRayError as error:
                self._log.warning("Could not stop Ray job %s; retrying: %s", self._plan.job_id(place), error.message)

        await each([place for place in reasons if now - self._asked.get(place, now - STOP_AGAIN) >= STOP_AGAIN], one)
        for place, since in self._first_asked.items():
            job = self._jobs.get(place)
            pending = job is None or job.status is JobStatus.PENDING
            if place in self._active and now - since > (STOP_PENDING_SECONDS if pending else STOP_SECONDS):
                status = job.status.value if job else JobStatus.UNKNOWN.value
                error = f"was asked to stop, but has not ended yet: {self._reasons[place]}"
                self._end(place, Outcome(self._plan.attempts[place], status, error=error))

    async def _keep_packages(self) -> bool:
        """Keep the packages of jobs that are not submitted yet on the cluster; the task uploads again what is gone.

        :return: whether the jobs may be submitted
        """
        if not self._waiting or time.monotonic() - self._pinned < PIN_SECONDS:
            return True
        from airflow_provider_vertex_ray.core.job.batch_client import each

        gone: list[str] = []

        async def pin(uri: str) -> None:
            if not await self._api.has_package(uri):
                gone.append(uri)

        rows = self._plan.rows or {}
        begin = time.time()
        try:
            await each(sorted({uri for place in self._waiting for uri in packages_of(rows[place].runtime_env)}), pin)
        except VertexRayError as error:
            why = self._unpinned.too_long(begin, error)
            for place in list(self._waiting) if why else ():
                self._reject(place, str(why))
            return False
        self._unpinned.accepted()
        self._pinned = time.monotonic()
        if gone:
            self._again = f"the cluster no longer has package {gone[0]}, which jobs need that are not submitted yet"
        return not gone

    def _is_settled(self) -> bool:
        """Tell whether the kill of an earlier try has stopped all that it stops."""
        adopted = [place for place in self._active if place in self._plan.adopted]
        return not adopted or time.monotonic() - min(self._stopped_adopted.values()) > ADOPTED_SECONDS

    @property
    def _failed(self) -> bool:
        return any(not outcome.succeeded for outcome in self._ended.values())

    def _until_next(self) -> tuple[float, float, None]:
        """Return the age of the youngest active job, or more to spare the cluster, and the seconds to a deadline."""
        now = time.time()
        rules = self._rules
        ages = [now - since for since in self._active.values()]
        youngest = 0.0 if self._reasons.keys() & self._active.keys() else min(ages, default=0.0)
        limits = [limit for limit in (rules.job_timeout, rules.pending_timeout) if limit is not None]
        left = min((limit - age for limit in limits for age in ages if age < limit), default=float("inf"))
        spared = self._cost * (1 / LIST_SHARE - 1) / SHARE_OF_AGE
        return max(youngest, spared), left, None

    def _tell(self) -> None:
        failed = sum(not outcome.succeeded for outcome in self._ended.values())
        count = len(self._plan.attempts)
        line = (
            f"{len(self._ended)} of {count} Ray jobs have ended, {failed} of them without success; "
            f"{len(self._active)} are on the cluster, {len(self._waiting)} are not submitted yet"
        )
        since, said = self._said
        over = not (self._active or self._waiting)
        if line != said and (over or time.monotonic() - since >= PROGRESS_SECONDS):
            self._said = time.monotonic(), line
            self._log.info("%s", line)

    async def _result(self) -> dict[str, Any]:
        if self._again:
            attempts = {place: self._plan.attempts[place] + 1 for place in self._stopped_adopted}
            ended = {place for place, outcome in self._ended.items() if outcome.status != REJECTED}
            found = {
                "attempts": self._plan.with_attempts(attempts).attempts,
                "submitted": sorted(ended | self._active.keys()),
                "adopted": sorted(self._plan.adopted & self._active.keys()),
            }
            return {"again": self._again, "found": pack(found)}
        outcomes = [
            self._ended.get(place) or Outcome(0, NOT_RUN, error=f"was not run, because {self._not_run}")
            for place in range(len(self._plan.attempts))
        ]
        # Those that were stopped because of it say less.
        first = sorted(self._output.messages, key=lambda place: (self._reasons.get(place) == OTHER_FAILED, place))
        return {
            # Not in the event loop of all waits: large results take a while.
            "outcomes": await asyncio.to_thread(pack_outcomes, self._plan.batch, outcomes, self._output.results),
            "reason": self._output.messages[first[0]] if first else "",
        }
