"""BigQuery steps in a real Airflow on a real Ray, one part of which is killed in a chosen phase."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emulator_support.process import EmulatorProcess, cluster_body, until
from google.api_core.exceptions import NotFound

from devtools.airflow_api import OPENER
from devtools.airflow_stack import AirflowStack
from devtools.process_group import kill_one
from tests.support.bigquery import DATASET, BigQuery, connection

from .cases import CASES, FOLDER_VARIABLE, TASK, Case

REPOSITORY = Path(__file__).resolve().parents[3]
# BigQuery's emulator gives several streams above 1 MB.
ROWS = 200_000
OLD_ROWS = 3
HEALTH_SECONDS = 20
PHASE_SECONDS = 400.0
END_SECONDS = 400.0


class Kills:
    """Runs steps, one after the other, and kills one part in the first try of each.

    :param home: A folder for everything.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.notes = home / "notes"
        self.notes.mkdir(parents=True)
        self.emulator = EmulatorProcess(home / "emulator", ["--with", "bigquery"])
        self.airflow: AirflowStack
        self.warehouse: BigQuery
        self._cluster = ""
        self._number = 0

    @contextmanager
    def running(self) -> Iterator[Kills]:
        """Everything started, and ended at the end."""
        with self.emulator:
            self.warehouse = BigQuery(self.emulator)
            self.warehouse.numbers("source", ROWS)
            environment = {
                FOLDER_VARIABLE: str(self.notes),
                "VERTEX_RAY_EMULATOR_HOST": self.emulator.host,
                "BIGQUERY_EMULATOR_HOST": self.emulator.env["BIGQUERY_EMULATOR_HOST"],
                "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": connection(self.emulator),
            }
            self.airflow = AirflowStack(
                self.home / "airflow",
                dag_folders=[REPOSITORY / "tests" / "system" / "bigquery" / "dags"],
                environment=environment,
                python_path=[REPOSITORY],
                triggerers=2,
                health_seconds=HEALTH_SECONDS,
            )
            try:
                self.airflow.start(timeout=600)
                self.airflow.wait_for_dags(sorted({case.dag_id for case in CASES}), 300)
                yield self
            finally:
                self.airflow.stop()

    def run(self, case: Case) -> None:
        """One step with one kill: all the time the target is the old or the whole new table, and nothing is left."""
        if not self._cluster:
            self._number += 1
            self._cluster = f"kills-{self._number}"
            self.emulator.create(self._cluster, cluster_body(workers=2))
        target, run_id = f"target_{case.name}".replace("-", "_"), f"run-{case.name}"
        table = f"{DATASET}.{target}"
        self.warehouse.sql(f"CREATE OR REPLACE TABLE {table} AS SELECT -x AS x, 0 AS z FROM UNNEST([1, 2, 3]) x")
        new = ROWS + (OLD_ROWS if case.write_disposition == "WRITE_APPEND" else 0)
        with self._watched(target, {(OLD_ROWS, OLD_ROWS), (new, new)}) as wrong:
            self.airflow.api.trigger(case.dag_id, run_id, {"cluster": self._cluster, "target": target})
            self._strike(case, run_id, self._reach(case.phase, run_id))
            state = until(lambda: self._ended(case, run_id), f"{run_id} does not end", END_SECONDS)
        assert wrong == []
        assert state == "success"
        assert self.warehouse.counts(target) == (new, new)
        assert self.warehouse.staging() == set()
        result = self.airflow.reader.xcoms(case.dag_id, run_id)[TASK, -1]
        assert result["rows_written"] == ROWS
        if case.part == "worker":
            # It lacks a node now.
            self.emulator.admin("DELETE", f"clusters/{self._cluster}")
            self._cluster = ""

    def _reach(self, phase: str, run_id: str) -> str:
        """Wait until the run's job is in a phase; its submission id."""
        reached: dict[str, Callable[[str], bool]] = {
            "read": lambda job: "Reading " in self._log(job),
            "transform": lambda job: (self.notes / run_id).exists(),
            "write": lambda job: self._staged() > 0,
            "publish": lambda job: "Publishing " in self._log(job),
        }
        job = str(until(lambda: self._job(run_id), f"{run_id} has no job", PHASE_SECONDS))
        until(lambda: reached[phase](job), f"{run_id} does not come to {phase}", PHASE_SECONDS)
        return job

    def _job(self, run_id: str) -> str | None:
        jobs = [job for job in self._ray("jobs/") if (job["metadata"] or {}).get("airflow_run_id") == run_id]
        return str(jobs[0]["submission_id"]) if jobs else None

    def _strike(self, case: Case, run_id: str, job: str) -> None:
        if case.phase != "publish":
            self._kill(case, run_id, job)
            return
        # The request to publish is held up in BigQuery, and may be carried out when nobody is there any more.
        (bigquery,) = self.emulator.admin("GET", "companions")["companions"]
        os.kill(bigquery["pid"], signal.SIGSTOP)
        try:
            self._kill(case, run_id, job)
        finally:
            os.kill(bigquery["pid"], signal.SIGCONT)

    def _kill(self, case: Case, run_id: str, job: str) -> None:
        if case.part == "driver":
            body = {"part": "driver", "submission_id": job}
            self.emulator.admin("POST", f"clusters/{self._cluster}/kill", body)
        elif case.part == "worker":
            (cluster,) = self.emulator.admin("GET", "clusters")["clusters"]
            node = next(each["node_id"] for each in cluster["nodes"] if each["node_id"] != "head")
            self.emulator.admin("POST", f"clusters/{self._cluster}/kill", {"part": "raylet", "node": node})
        elif case.part == "task":
            _, pid = self.airflow.reader.instances()[run_id, TASK]
            assert pid is not None
            kill_one(pid)
        else:
            holder = until(lambda: self.airflow.reader.trigger_holders().get(run_id), f"no triggerer has {run_id}")
            assert holder is not None
            self.airflow.kill(holder)
            self.airflow.restart(holder)

    @contextmanager
    def _watched(self, target: str, allowed: set[tuple[int, int]]) -> Iterator[list[Any]]:
        """Looks at the table several times a second; what it may not be is noted."""
        wrong: list[Any] = []
        looks: list[float] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.25):
                try:
                    counts: Any = self.warehouse.counts(target)
                except Exception as error:  # a table that is not there is one of the things to see
                    counts = repr(error)
                looks.append(time.monotonic())
                if counts not in allowed:
                    wrong.append(counts)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield wrong
        finally:
            stop.set()
            thread.join()
        assert len(looks) > 3

    def _ended(self, case: Case, run_id: str) -> str | None:
        state = self.airflow.reader.run_state(case.dag_id, run_id)
        return state if state in ("success", "failed") else None

    def _staged(self) -> int:
        """Rows in the tables that are written before they are published."""
        rows = 0
        for name in self.warehouse.staging():
            try:
                rows += self.warehouse.client.get_table(f"{DATASET}.{name}").num_rows if name.endswith("_out") else 0
            except NotFound:
                continue
        return rows

    def _ray(self, path: str) -> Any:
        (cluster,) = self.emulator.admin("GET", "clusters")["clusters"]
        with OPENER.open(f"{cluster['dashboard_url']}/api/{path}", timeout=240) as answer:
            return json.load(answer)

    def _log(self, job: str) -> str:
        return str(self._ray(f"jobs/{job}/logs")["logs"])
