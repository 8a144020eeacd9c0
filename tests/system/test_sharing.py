"""Runs of three DAGs on one shared cluster, with a reaper and a rollover: real scheduler, real triggerer, real Ray."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from emulator_support.process import until

from airflow_provider_vertex_ray.core.sharing.lease import Holder
from airflow_provider_vertex_ray.core.timestamps import parse_rfc3339
from airflow_provider_vertex_ray.operators.idle import VertexRayDeleteIdleClustersOperator
from devtools.dag_run_report import DagRunReport
from tests.support.tasks import context_of, may_run_tasks, run_task
from tests.system.dags.sharing import LOCATION, MAX_AGE

from .conftest import System

pytestmark = [pytest.mark.system, pytest.mark.ray]

JOBS = 2
IDLE_FOR = 30.0
"""Seconds; long enough for the cluster to live until it is rolled over."""
LIVE = ("PROVISIONING", "RUNNING", "UPDATING")


@pytest.fixture
def connected(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """The reaper here talks to the same services as Airflow's tasks."""
    for name, value in system.emulator.airflow_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{system.storage.host}")
    return system


def reap(system: System, idle_for: float = 1.0) -> dict[str, Any]:
    may_run_tasks()
    operator = VertexRayDeleteIdleClustersOperator(
        task_id="reap",
        location=LOCATION,
        idle_for=idle_for,
        max_age=10_000.0,
        lease_uri=system.storage.uri,
        poll_interval=0.5,
        deferrable=False,
    )
    found: dict[str, Any] = run_task(operator, context_of(operator))
    return found


@dataclass
class Watch:
    """Reaps every few seconds, and looks at the clusters all the time."""

    system: System
    stop: threading.Event = field(default_factory=threading.Event)
    too_many: list[Any] = field(default_factory=list)
    born: dict[str, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    """When each cluster was first RUNNING, from which its age counts."""
    deleted: list[str] = field(default_factory=list)

    def reaper(self) -> None:
        while not self.stop.wait(3.0):
            self.deleted += reap(self.system, IDLE_FOR)["deleted"]

    def look(self) -> None:
        while not self.stop.wait(0.2):
            live = []
            for cluster in self.system.emulator.clusters():
                if cluster["state"] in LIVE and cluster["id"].startswith("crowd-g"):
                    self.born[cluster["id"]] = parse_rfc3339(cluster["createTime"]) or 0.0
                    if (began := parse_rfc3339(cluster.get("startTime"))) is not None:
                        self.began[cluster["id"]] = began
                    live.append(cluster["id"])
            # A second one is for a rollover only: the first was too old when it was created.
            ages = sorted(self.born[each] for each in live)
            if any(later - earlier < MAX_AGE - 1.0 for earlier, later in pairwise(ages)):
                self.too_many.append(live)


@pytest.fixture
def watch(connected: System) -> Iterator[Watch]:
    found = Watch(connected)
    with ThreadPoolExecutor(2) as pool:
        work = [pool.submit(found.reaper), pool.submit(found.look)]
        try:
            yield found
        finally:
            found.stop.set()
            for each in work:
                each.result()


@pytest.mark.parametrize("runs", [4, pytest.param(12, marks=pytest.mark.soak)])
def test_runs_share_a_cluster_under_a_reaper_and_a_rollover(connected: System, watch: Watch, runs: int) -> None:
    system = connected
    (system.folder / "ledger").unlink(missing_ok=True)
    at_once = runs // 2
    reports: list[DagRunReport] = []

    def run(number: int) -> DagRunReport:
        return system.airflow.run_dag(f"sharing_{number % 3}", timeout=800)

    def too_old() -> bool:
        for each in first:
            if each.done():
                each.result()  # so that an Airflow that has ended is not waited for
        return bool(watch.began) and time.time() - min(list(watch.began.values())) > MAX_AGE + 1

    with ThreadPoolExecutor(runs) as pool:
        # Half of them at once; the others after the cluster has become too old for the third DAG, which is one of them.
        first = [pool.submit(run, number) for number in range(at_once)]
        until(too_old, "the first cluster is not too old", seconds=600)
        last = [pool.submit(run, number) for number in range(at_once, runs)]
        reports = [each.result() for each in (*first, *last)]
    assert [report.state for report in reports] == ["success"] * runs
    lines = (system.folder / "ledger").read_text().split("\n")[:-1]
    jobs = {f"{report.run_id}/{place}" for report in reports for place in range(JOBS)}
    assert Counter(lines) == Counter({f"{what} {job}": 1 for what in ("start", "end") for job in jobs})
    assert watch.too_many == []
    assert len(watch.born) >= 2, "there was no rollover"
    # Nobody holds a cluster any longer, not even on a generation that only a failed try has used.
    assert [each for each in _holders(system) if each.live(time.time())] == []
    until(lambda: reap(system)["seen"] == 0)
    assert system.emulator.clusters() == []
    assert system.storage.names() == []


def _holders(system: System) -> list[Holder]:
    """The holds in all leases, whatever cluster they are for."""
    return [
        Holder.from_json(json.loads(system.storage.read(name)))
        for name in system.storage.names()
        if "/holders/" in name
    ]


def test_the_example_reaper_and_the_example_group(connected: System) -> None:
    report = connected.airflow.run_dag("example_vertex_ray_cluster_group", timeout=800)
    assert (report.state, report.xcom("add_up")) == ("success", 30)
    assert [task.state for task in report.instances("ray.release_cluster")] == ["success"]
    (left,) = connected.emulator.clusters()
    assert (left["id"], left["state"]) == ("examples-g1", "RUNNING")
    # It comes paused, as it would delete clusters as soon as it is seen; unpaused, it has a run of its own first.
    connected.airflow.wait_for_dags(["example_vertex_ray_reaper"], 600)
    connected.airflow.api.unpause("example_vertex_ray_reaper")
    reaped = connected.airflow.run_dag("example_vertex_ray_reaper", timeout=800)
    (found,) = reaped.xcom("delete_idle_clusters")["clusters"]
    assert (found["cluster_id"], found["action"]) == ("examples-g1", "kept")
    assert found["why"].endswith("of 1 h")
    assert "examples-g1 (RUNNING" in reaped.log_text("delete_idle_clusters")
    until(lambda: reap(connected)["deleted"] == ["examples-g1"])


@pytest.mark.soak
def test_a_failure_inside_still_tears_down_and_a_clear_sets_up_again(connected: System) -> None:
    airflow = connected.airflow
    report = airflow.run_dag("group_always", conf={"fail": True}, timeout=800)
    states = {task.task_id: task.state for task in report.tasks}
    assert states == {"own.create_cluster": "success", "own.work": "failed", "own.delete_cluster": "success"}
    assert report.state == "failed"
    assert connected.emulator.clusters() == []
    tries = {task.task_id: task.try_number for task in report.tasks}
    airflow.api.clear_task("group_always", report.run_id, "own.work")
    until(
        lambda: (
            {task.task_id: task.try_number for task in airflow.reader.tasks("group_always", report.run_id)}
            == {name: number + 1 for name, number in tries.items()}
            and airflow.reader.run_state("group_always", report.run_id) == "failed"
        ),
    )
    created = [call for call in connected.emulator.calls("CreatePersistentResource") if "own-" in str(call)]
    assert len(created) == 2
    assert connected.emulator.clusters() == []


@pytest.mark.soak
def test_on_success_keeps_the_cluster_of_a_failure(connected: System) -> None:
    good = connected.airflow.run_dag("group_on_success", timeout=800)
    assert good.state == "success"
    assert connected.emulator.clusters() == []
    bad = connected.airflow.run_dag("group_on_success", conf={"fail": True}, timeout=800)
    assert bad.state == "failed"
    (kept,) = connected.emulator.clusters()
    assert bad.xcom("own.delete_cluster")["kept_for"] == ["own.odd"]
    assert f"Keeping cluster {kept['name']}, which incurs charges" in bad.log_text("own.delete_cluster")
    until(lambda: reap(connected)["deleted"] == [kept["id"]])
