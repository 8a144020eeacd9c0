"""One emulator with a real Ray, one real Airflow with two triggerers, and what is to be seen of both."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from emulator_support.process import EmulatorProcess, cluster_body

from airflow_provider_vertex_ray.triggers.base import HAS_ON_KILL
from devtools.airflow_api import OPENER
from devtools.airflow_stack import AirflowStack
from devtools.dag_run_report import DagRunReport, TaskReport
from devtools.process_group import alive, kill_one

from .cases import ALL_CPUS, CLUSTER, FOLDER_VARIABLE, TASK, Case

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[3]
TRIGGERERS = ("triggerer", "triggerer-2")
SLOTS = 20
HEALTH_SECONDS = 20
SETTLED_SECONDS = 5.0
"""Seconds for which one triggerer has had a wait before anything is done to it; more than two heartbeats."""

SUBMIT = "POST /api/jobs/"
_ACTIVE = ("PENDING", "RUNNING")


@dataclass
class Seen:
    """What was true a moment ago."""

    tasks: dict[tuple[str, str], tuple[TaskReport, int | None]]
    holders: dict[str, str]
    runs: dict[str, Any]
    jobs: list[dict[str, Any]]


class World:
    """What the scenarios act in. Everything of one scenario goes by its run id.

    :param stop_seconds: longest that a stop may take; None where a busy machine decides
    """

    def __init__(self, home: Path, stop_seconds: float | None) -> None:
        self.home = home
        self.stop_seconds = stop_seconds
        self.folder = home / "jobs"
        for name in ("released", "blocked", "answers"):
            (self.folder / name).mkdir(parents=True)
        self.emulator = EmulatorProcess(home / "emulator")
        self.airflow: AirflowStack
        self.dashboard = ""
        self.seen = Seen({}, {}, {}, [])
        self.acting = asyncio.Semaphore(2)
        self._asking = asyncio.Lock()
        self.others_done = asyncio.Event()
        self.components_done = asyncio.Event()
        self.log: list[str] = []
        self._begun = time.monotonic()
        self._held_since: dict[str, tuple[str, float]] = {}

    @asynccontextmanager
    async def running(self, dag_ids: list[str]) -> AsyncIterator[None]:
        """Everything started; the view of it is renewed all the time."""
        connection = {"conn_type": "google_cloud_platform", "extra": {"project": "demo-project"}}
        await asyncio.to_thread(self.emulator.start)
        try:
            self.airflow = AirflowStack(
                self.home / "airflow",
                dag_folders=[REPOSITORY / "tests" / "system" / "matrix" / "dags"],
                slots=SLOTS,
                environment={
                    FOLDER_VARIABLE: str(self.folder),
                    "VERTEX_RAY_EMULATOR_HOST": self.emulator.host,
                    "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(connection),
                },
                python_path=[Path(__file__).parent / "site", REPOSITORY],
                triggerers=len(TRIGGERERS),
                health_seconds=HEALTH_SECONDS,
            )
            create = asyncio.create_task(asyncio.to_thread(self.emulator.create, CLUSTER, _cluster()))
            try:
                # The database's connection belongs to this thread.
                self.airflow.start(timeout=600)
                await create
                self.airflow.wait_for_dags(dag_ids, 300)
                (cluster,) = self.emulator.admin("GET", "clusters")["clusters"]
                self.dashboard = cluster["dashboard_url"]
                self.say("everything runs")
                looking = asyncio.create_task(self._keep_looking())
                try:
                    yield
                finally:
                    looking.cancel()
                    await asyncio.gather(looking, return_exceptions=True)
            finally:
                await asyncio.gather(create, return_exceptions=True)
                self.airflow.stop()
        finally:
            self.emulator.stop()

    def say(self, text: str) -> None:
        """Note what happens when."""
        line = f"{time.monotonic() - self._begun:6.1f} {text}"
        self.log.append(line)
        with (self.home / "matrix.log").open("a") as file:
            file.write(line + "\n")

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(0.5)

    async def look(self) -> None:
        """Renew the view."""
        reader = self.airflow.reader
        tasks, holders, runs = reader.instances(), reader.trigger_holders(), reader.runs()
        self.seen = Seen(tasks, holders, runs, await asyncio.to_thread(self._ask_ray))

    def _ask_ray(self) -> list[dict[str, Any]]:
        with OPENER.open(f"{self.dashboard}/api/jobs/", timeout=240) as answer:
            jobs: list[dict[str, Any]] = json.load(answer)
        return sorted(jobs, key=lambda job: (job["start_time"] or 0, job["submission_id"]))

    async def until(self, condition: Callable[[], T], seconds: float, what: str) -> T:
        """What a condition over the view gives once it is true."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {seconds:g} s: {what}")
            await asyncio.sleep(0.1)
        return found

    # What is to be seen of a run.

    def state(self, run_id: str) -> str | None:
        found = self.seen.tasks.get((run_id, TASK))
        return found[0].state if found else None

    def try_number(self, run_id: str) -> int:
        return self.seen.tasks[run_id, TASK][0].try_number

    def jobs(self, run_id: str) -> list[dict[str, Any]]:
        """Its jobs by Ray's own list, oldest first."""
        return [job for job in self.seen.jobs if (job["metadata"] or {}).get("run") == run_id]

    def statuses(self, run_id: str) -> list[str]:
        return [job["status"] for job in self.jobs(run_id)]

    def active(self) -> list[str]:
        return [job["submission_id"] for job in self.seen.jobs if job["status"] in _ACTIVE]

    def ledger(self, what: str, run_id: str) -> list[str]:
        """Submission ids of the run's jobs that have started (``start``) or come to their own end (``end``)."""
        file = self.folder / "ledger"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [submission for kind, run, submission in lines if (kind, run) == (what, run_id)]

    def text(self, case: Case, run_id: str) -> str:
        """Everything that the task's log shows."""
        return DagRunReport(case.dag_id, run_id, self.airflow.settings.logs).log_text(TASK)

    def result(self, case: Case, run_id: str) -> Any:
        """What the task has returned."""
        return self.airflow.reader.xcoms(case.dag_id, run_id).get((TASK, -1))

    # What is done to it.

    async def trigger(self, case: Case, run_id: str) -> None:
        await self.ask_airflow(self.airflow.api.trigger, case.dag_id, run_id, {})

    async def ask_airflow(self, call: Callable[..., None], *arguments: Any) -> None:
        """A call of the REST API; one at a time, or writers lock each other out of SQLite for a minute."""
        async with self._asking:
            await asyncio.to_thread(call, *arguments)

    def release(self, run_id: str) -> None:
        """Let the run's jobs come to their end."""
        (self.folder / "released" / run_id).touch()

    async def arm(self, run_id: str, action: str) -> Callable[[], bool]:
        """A fault for the next submit of this run; gives the question whether it has happened."""
        fault = {"scope": "dashboard", "method": SUBMIT, "action": action, "contains": f'"{run_id}"'}
        (fault_id,) = self.emulator.admin("POST", "faults", fault)["ids"]
        return lambda: fault_id not in [each["id"] for each in self.emulator.admin("GET", "faults")["faults"]]

    def in_place(self, case: Case, run_id: str) -> bool:
        """Whether the task waits as it should, for a job that runs."""
        waits = self._waits_in_a_triggerer(run_id) if case.deferrable else self.state(run_id) == "running"
        return waits and self.statuses(run_id)[-1:] == ["RUNNING"] and bool(self.ledger("start", run_id))

    def _waits_in_a_triggerer(self, run_id: str) -> bool:
        """And that triggerer can ask Airflow: it takes long for its first question, which no user is there to see.

        Its heartbeat stalls meanwhile, and with the short threshold here the waits are handed to and fro. A kill
        between two triggerers is nobody's.
        """
        holder = self.seen.holders.get(run_id)
        if holder is None:
            return False
        if self._held_since.get(run_id, ("", 0.0))[0] != holder:
            self._held_since[run_id] = (holder, time.monotonic())
        held = time.monotonic() - self._held_since[run_id][1]
        if held < SETTLED_SECONDS:
            return False
        return not HAS_ON_KILL or (self.folder / "answers" / holder).exists()

    def kill_triggerer(self, name: str) -> None:
        """SIGKILL; the next one of that name has to ask again."""
        self.airflow.kill(name)
        (self.folder / "answers" / name).unlink(missing_ok=True)

    async def kill_task(self, run_id: str) -> None:
        """SIGKILL the process that executes the task; not its supervisor, which must notice."""
        # A view reads the tasks before the jobs: it may have a job, and not yet the process that submitted it.
        pid = await self.until(lambda: self.seen.tasks[run_id, TASK][1], 240, f"{run_id} has no process")
        assert alive(pid)
        self.say(f"{run_id}: SIGKILL to the task's process {pid}")
        await asyncio.to_thread(kill_one, pid)

    def cut_connections(self) -> None:
        request = urllib.request.Request(f"http://{self.emulator.host}/emulator/connections/cut", b"{}", method="POST")
        OPENER.open(request, timeout=240).close()


def _cluster() -> dict[str, Any]:
    """A head, and a worker with four CPUs."""
    body = cluster_body()
    body["resourcePools"][1]["machineSpec"]["machineType"] = f"n1-standard-{ALL_CPUS}"
    return body
