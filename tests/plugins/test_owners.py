"""Whose a job and a cluster are: only what the hash confirms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_vertex_ray.core.sharing.lease import Holder
from airflow_provider_vertex_ray.operators.owner_labels import label_value
from airflow_provider_vertex_ray.plugins.page.owners import Labels, Owner, owner_of_job
from airflow_provider_vertex_ray.plugins.page.visible import HIDDEN_HOLDER, HIDDEN_JOB, visible_jobs, visible_lease
from tests.plugins.builders import NOW, OWNER, cluster, job
from tests.support.leases import held_by


def _labels(owner: Owner) -> Labels:
    values = dict(
        zip(("dag", "run", "task"), map(label_value, (owner.dag_id, owner.run_id, owner.task_id)), strict=True)
    )
    found = Labels.of(cluster(labels={"airflow-owner": owner.key, **{f"airflow-{k}": v for k, v in values.items()}}))
    assert found is not None
    return found


def test_owner_of_a_job_must_match_the_hash() -> None:
    assert owner_of_job(job()) == OWNER
    assert owner_of_job(job(owner=Owner("d", "r", "t", 3))) == Owner("d", "r", "t", 3)
    assert owner_of_job(job(owner=None)) is None


@pytest.mark.parametrize(
    "field", ["airflow_dag_id", "airflow_run_id", "airflow_task_id", "airflow_map_index", "airflow_owner"]
)
def test_changed_metadata_have_no_owner(field: str) -> None:
    mine = job()
    assert owner_of_job(replace(mine, metadata={**mine.metadata, field: "7"})) is None
    without = {key: value for key, value in mine.metadata.items() if key != field}
    assert (owner_of_job(replace(mine, metadata=without)) is None) == (field != "airflow_map_index")


def test_owner_of_a_cluster_is_found_in_airflow() -> None:
    owner = Owner("Train.Model", "manual__2026-11-25T06:00:00+00:00", "ray.create")
    labels = _labels(owner)
    assert labels.dags(["train-model", "Train.Model", "train"]) == ["train-model", "Train.Model"]
    assert labels.runs([owner.run_id, "else"]) == [owner.run_id]
    assert labels.owner(owner.dag_id, owner.run_id, [("ray.create", -1), ("x", -1)]) == owner
    # Another DAG whose name looks the same in a label is told apart by the hash.
    assert labels.owner("train-model", owner.run_id, [("ray.create", -1)]) is None
    assert Labels.of(cluster(labels={})) is None


def test_owner_has_paths_in_airflow() -> None:
    owner = Owner("a b", "manual__2026-11-25T06:00:00+00:00", "g.t", 3)
    assert owner.task_path == "/dags/a%20b/runs/manual__2026-11-25T06%3A00%3A00%2B00%3A00/tasks/g.t/mapped/3"


def test_jobs_of_unreadable_dags_are_anonymous() -> None:
    secret = job("af-secret-1", entrypoint="python secret.py", message="secret", owner=Owner("secret", "r", "t"))
    mine = job("mine", entrypoint="run --password hunter2-x", hidden=("hunter2-x",))
    by_hand = job("by-hand", owner=None)
    found = visible_jobs([secret, mine, by_hand], lambda dag_id: dag_id != "secret")
    assert [each.hidden for each in found] == [True, False, False]
    assert found[0].job.submission_id == HIDDEN_JOB
    assert "secret" not in repr(found[0])
    assert found[1].job.entrypoint == "run --password ***"


def test_holders_of_unreadable_dags_are_anonymous() -> None:
    lease = held_by("secret/run", "etl/run", "by hand", now=NOW)
    # An owner who holds it in several scopes is named once.
    again = Holder("etl/run", NOW, NOW + 30, "group")
    lease = replace(lease, holders={**lease.holders, again.holder_id.key: again})
    found = visible_lease(lease, lambda dag_id: dag_id != "secret")
    assert found is not None
    assert sorted(each.owner for each in found.live(NOW)) == sorted([HIDDEN_HOLDER, "by hand", "etl/run"])
    assert visible_lease(None, lambda _: True) is None
