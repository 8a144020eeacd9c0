"""A DAG runs; what a user does to a deferred task stops its job, and leaves the triggerer alone.

``make compat`` runs this on each Airflow line; the rounds of each action are in the variable KILL_ROUNDS.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__
from emulator_support.process import EmulatorProcess, cluster_body, until
from packaging.version import Version

from airflow_provider_vertex_ray.triggers.task_end import ENDS_HERE
from devtools.airflow_api import OPENER, AirflowApi
from devtools.airflow_stack import AirflowStack

pytestmark = [pytest.mark.compat, pytest.mark.system, pytest.mark.ray, pytest.mark.timeout(1800)]

REPOSITORY = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))
START_SECONDS = 180.0
STOP_SECONDS = 120.0
"""What a busy machine may take; the time that it took is printed."""

SETTLED_SECONDS = 5.0
DAG, TASK = "kills", "job"


class World:
    """One emulator with a cluster, and one Airflow."""

    def __init__(self, home: Path) -> None:
        self.emulator = EmulatorProcess(home / "emulator")
        self.home = home
        self.airflow: AirflowStack
        self._dashboard = ""

    def __enter__(self) -> World:
        self.emulator.start()
        try:
            connection = {"conn_type": "google_cloud_platform", "extra": {"project": self.emulator.project}}
            self.airflow = AirflowStack(
                self.home / "airflow",
                dag_folders=[Path(__file__).parent / "dags"],
                environment={
                    "VERTEX_RAY_EMULATOR_HOST": self.emulator.host,
                    "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(connection),
                },
                python_path=[REPOSITORY],
            )
            self.emulator.create("kills", cluster_body())
            (cluster,) = self.emulator.admin("GET", "clusters")["clusters"]
            self._dashboard = cluster["dashboard_url"]
            self.airflow.start(timeout=600)
            self.airflow.wait_for_dags([DAG, "steps", "forced"], 300)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "airflow"):
            self.airflow.stop()
        self.emulator.stop()

    def jobs(self, run_id: str) -> list[dict[str, Any]]:
        """Its jobs by Ray's own list, oldest first."""
        with OPENER.open(f"{self._dashboard}/api/jobs/", timeout=60) as answer:
            jobs = [job for job in json.load(answer) if (job["metadata"] or {}).get("run") == run_id]
        return sorted(jobs, key=lambda job: job["start_time"] or 0)

    def statuses(self, run_id: str) -> list[str]:
        """Their statuses."""
        return [job["status"] for job in self.jobs(run_id)]

    def waits(self, run_id: str, jobs: int = 1) -> bool:
        """Whether a triggerer waits for its last job, which runs."""
        held = run_id in self.airflow.reader.trigger_holders()
        return held and self.statuses(run_id)[jobs - 1 :] == ["RUNNING"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("kills")) as found:
        yield found


def mark(state: str) -> Callable[[AirflowApi, str], None]:
    return lambda api, run_id: api.mark_task(DAG, run_id, TASK, state)


def clear(api: AirflowApi, run_id: str) -> None:
    api.clear_task(DAG, run_id, TASK)


ACTIONS = {"mark-failed": mark("failed"), "mark-success": mark("success"), "clear": clear}


def test_a_dag_from_create_to_delete(world: World) -> None:
    report = world.airflow.run_dag("steps", timeout=300)
    assert report.state == "success"
    assert report.xcom("ray.job")["result"] == 42
    assert [cluster["id"] for cluster in world.emulator.admin("GET", "clusters")["clusters"]] == ["kills"]


def test_tasks_end_in_the_triggerer_where_the_user_wants_it(world: World) -> None:
    report = world.airflow.run_dag("forced", timeout=300)
    assert {task.name: task.state for task in report.tasks} == {"good": "success", "bad": "failed"}
    assert report.xcom("good")["result"] == 42
    assert ENDS_HERE in report.log_text("good")
    assert "exit code 3" in report.log_text("bad")
    # Before 3.3.1, Airflow does not retry what fails there: a worker ends it.
    assert (ENDS_HERE in report.log_text("bad")) == (Version(__version__) >= Version("3.3.1"))


@pytest.mark.parametrize("action", ACTIONS)
def test_the_job_is_stopped_and_the_triggerer_lives(world: World, action: str) -> None:
    runs = [f"{action}-{turn}" for turn in range(ROUNDS)]
    for run_id in runs:
        world.airflow.api.trigger(DAG, run_id, {})
    until(lambda: all(map(world.waits, runs)), f"{runs} do not all wait", START_SECONDS + 10 * ROUNDS)
    triggerer = world.airflow.processes("triggerer")
    _settle()
    for place, run_id in enumerate(runs):
        since = time.time()
        ACTIONS[action](world.airflow.api, run_id)
        _stopped(world, run_id, since)
        # Nobody else's job is.
        assert [world.statuses(other) for other in runs[place + 1 :]] == [["RUNNING"]] * (ROUNDS - place - 1)
    if action == "clear":
        until(lambda: all(world.waits(run_id, 2) for run_id in runs), "not all run again", START_SECONDS + 10 * ROUNDS)
        _settle()
        for run_id in runs:
            assert world.statuses(run_id) == ["STOPPED", "RUNNING"]
            mark("failed")(world.airflow.api, run_id)
            until(lambda run=run_id: world.statuses(run) == ["STOPPED"] * 2, f"{run_id}: it runs on", STOP_SECONDS)
    assert world.airflow.processes("triggerer") == triggerer


def _settle() -> None:
    """Give the triggerer a moment with what it has just taken over: a kill in that moment is nobody's."""
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > SETTLED_SECONDS)


def _stopped(world: World, run_id: str, since: float) -> None:
    until(lambda: world.statuses(run_id)[:1] == ["STOPPED"], f"the job of {run_id} is not stopped", STOP_SECONDS)
    took = world.jobs(run_id)[0]["end_time"] / 1000 - since
    print(f"\nKILL {run_id} {took:.1f}")
