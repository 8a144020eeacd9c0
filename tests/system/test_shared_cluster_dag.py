"""The example DAG as a newcomer would run it: real scheduler, real triggerer, real Ray."""

from __future__ import annotations

import pytest

from devtools.dag_run_report import DagRunReport
from devtools.demo import problems
from devtools.demo_dags import DEMOS
from devtools.demo_report import cluster_life

from .conftest import System

pytestmark = [pytest.mark.system, pytest.mark.ray]

PAUSED = "Pausing task as DEFERRED"
"""Airflow's own line in the log of a task that is deferred."""

SHARDS = 2
DEMO = DEMOS["example_vertex_ray_shared_cluster"]


@pytest.fixture(scope="module")
def report(system: System) -> DagRunReport:
    conf = {"limit": 10_000_000, "shards": SHARDS}
    return system.airflow.run_dag("example_vertex_ray_shared_cluster", conf=conf, timeout=800)


def test_everything_succeeds_and_the_cluster_is_gone(system: System, report: DagRunReport) -> None:
    left = [cluster["id"] for cluster in system.emulator.clusters()]
    assert problems(DEMO, report, left, deleted=True) == []
    for task_id in DEMO.job_tasks:
        assert [task.map_index for task in report.instances(task_id)] == list(range(SHARDS))


def test_the_answer_is_the_published_one(report: DagRunReport) -> None:
    answer = report.xcom("combine")
    # https://oeis.org/A006880 and https://oeis.org/A007508
    assert (answer["primes"], answer["twin_pairs"]) == (664_579, 58_980)


def test_the_second_round_finds_the_warm_cache(report: DagRunReport) -> None:
    answer = report.xcom("combine")
    assert answer["pieces_from_cache"] == answer["pieces"] == 2 * SHARDS
    first = [report.xcom("count_primes", shard)["result"]["from_cache"] for shard in range(SHARDS)]
    assert first == [0] * SHARDS


def test_jobs_are_waited_for_in_the_triggerer(report: DagRunReport) -> None:
    # Samples of its states may miss a short wait.
    for task_id in (*DEMO.job_tasks, "create_cluster"):
        for task in report.instances(task_id):
            assert PAUSED in report.log_text(task_id, task.map_index), task.name


def test_the_output_of_a_job_is_in_its_task_s_log(report: DagRunReport) -> None:
    for shard in range(SHARDS):
        assert f'VERTEX_RAY_RESULT {{"kind": "count", "shard": {shard},' in report.log_text("count_primes", shard)


def test_the_cluster_has_lived_once(system: System, report: DagRunReport) -> None:
    created = report.xcom("create_cluster")
    clear_epoch = cluster_life(created, system.emulator.calls("DeletePersistentResource"))
    assert clear_epoch.nodes == 3
    assert clear_epoch.seconds is not None
    assert 0 < clear_epoch.seconds < report.seconds
