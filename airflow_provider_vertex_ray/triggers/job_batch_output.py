"""The output of the ended ones of many jobs: their results, and the last lines that the user wants to see."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_vertex_ray.core.deadlines import span
from airflow_provider_vertex_ray.core.job.batch import BatchPlan
from airflow_provider_vertex_ray.core.job.batch_results import LONGEST_ERROR, Outcome, ResultsSize
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.triggers.job_cluster import TaskLog

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.client import JobsApi
    from airflow_provider_vertex_ray.core.job.log_follower import JobLog

READS_AT_ONCE = 8
"""Number of jobs whose output is read concurrently."""

MOST_QUOTED = 20
"""Number of failed jobs whose last lines are kept, for the error of the task."""


class BatchRules(NamedTuple):
    """What the user wants of the jobs; see the operator's arguments of the same names."""

    poll_interval: float
    max_active: int | None
    stop_at_failure: bool
    pending_timeout: float | None
    job_timeout: float | None
    lost_timeout: float
    logs: str
    log_lines: int
    read_results: bool
    stop_on_kill: bool


class EndedJobs:
    """Reads the output of jobs that have ended.

    :param api: Jobs API of the cluster.
    :param plan: the jobs.
    :param rules: what the user wants.
    :param log: log of the task.
    """

    def __init__(self, api: JobsApi, plan: BatchPlan, rules: BatchRules, log: TaskLog) -> None:
        self.messages: dict[int, str] = {}
        """Why jobs did not succeed, by their places; with the last lines of the first ones."""
        self.results = ResultsSize()
        """Size of the results that were read so far."""
        self._api = api
        self._plan = plan
        self._rules = rules
        self._log = log
        self._gate = asyncio.Semaphore(READS_AT_ONCE)
        self._quoted: dict[int, str] = {}
        """The jobs whose last lines are in their messages, and these messages without them."""

    async def read(self, place: int, job: Job, outcome: Outcome) -> Outcome:
        """Read the output of a job as far as it is wanted, and show it.

        :param place: place of the job in the list.
        :param job: the job.
        :param outcome: its end, as far as its status tells.
        :return: its end, with its result.
        """
        from airflow_provider_vertex_ray.core.job.exit_code import with_exit_code
        from airflow_provider_vertex_ray.core.job.log_follower import JobLog

        failed = job.status is not JobStatus.SUCCEEDED
        shows = self._rules.logs == "all" or (failed and self._rules.logs == "failed")
        lines: list[str] = []
        async with self._gate:
            if failed:
                job = await with_exit_code(self._api, job)
                outcome = replace(outcome, exit_code=job.exit_code)
            if shows or failed or self._rules.read_results:
                output = JobLog(self._api, job.submission_id, None, hidden=job.hidden)
                output.node_id = job.node_id
                await output.finish()
                lines = list(output.last_lines)
                if self._rules.read_results:
                    outcome = self._with_result(place, job, outcome, output)
        if job.status is JobStatus.FAILED:
            self._quote(place, job, lines)
        self._show(place, job, outcome, lines if shows else [])
        return outcome

    def _quote(self, place: int, job: Job, lines: list[str]) -> None:
        """Keep why a job failed, with its last lines if it is one of the first in the list.

        The first of all is what the task's error quotes, and jobs end in any order.
        """
        self.messages[place] = job.failure(lines).message
        self._quoted[place] = job.failure().message
        if len(self._quoted) > MOST_QUOTED:
            last = max(self._quoted)
            self.messages[last] = self._quoted.pop(last)

    def _with_result(self, place: int, job: Job, outcome: Outcome, output: JobLog) -> Outcome:
        error = outcome.error
        if job.status is JobStatus.SUCCEEDED:
            if output.result_error is not None:
                error = f"succeeded, but what it returned cannot be stored: {output.result_error.message}"
            elif output.problem and output.result is None:
                error = f"succeeded, but its output could not be read to its end: {output.problem}"
            if error:
                self.messages[place] = f"Ray job {job.submission_id} {error}"
        known = self.results.too_large
        kept = self.results.add(output.result)
        if self.results.too_large and not known:
            self._log.warning("The results of the Ray jobs are too large together; Airflow cannot store them")
        return replace(outcome, result=output.result if kept else None, error=error[:LONGEST_ERROR])

    def _show(self, place: int, job: Job, outcome: Outcome, lines: list[str]) -> None:
        key = self._plan.batch.keys[place]
        for line in lines[-self._rules.log_lines :]:
            self._log.info("[%s] %s", key, line)
        after = "" if job.duration_seconds is None else f" after {span(job.duration_seconds)}"
        if outcome.succeeded:
            if self._rules.logs == "all":
                self._log.info("[%s] Ray job %s is %s%s", key, job.submission_id, outcome.status, after)
            return
        code = "" if outcome.exit_code is None else f", exit code {outcome.exit_code}"
        reason = f": {outcome.error}" if job.status is not JobStatus.FAILED else ""
        self._log.error("[%s] Ray job %s is %s%s%s%s", key, job.submission_id, outcome.status, after, code, reason)
