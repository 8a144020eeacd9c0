"""The group's shape: what stands before and after the tasks, what they are given, and what is cleared with them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskGroup, task

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.decorators.job import vertex_ray_task
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.operators.cluster import VertexRayDeleteClusterOperator, VertexRayGetClusterOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.leases import VertexRayReleaseClusterOperator, lease_holder_of
from airflow_provider_vertex_ray.sensors.job import VertexRayJobSensor
from airflow_provider_vertex_ray.task_groups.cluster import VertexRayCluster
from tests.support.tasks import context_of

SPEC = ClusterSpec(worker_node_types=[Resources(machine_type="n1-standard-8")])
GIVEN = "{{ task_instance.xcom_pull(task_ids='etl.create_cluster')['name'] }}"


def dag() -> DAG:
    return DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))


def group(**more: Any) -> VertexRayCluster:
    arguments = {"spec": SPEC, "cluster_id": "own-{{ ds_nodash }}", "location": "us-central1", **more}
    return VertexRayCluster("etl", **arguments)


def job(task_id: str, **more: Any) -> VertexRaySubmitJobOperator:
    return VertexRaySubmitJobOperator(task_id=task_id, entrypoint="true", **more)


def given(found: Any, name: str) -> Any:
    partial = getattr(found, "partial_kwargs", None)
    return partial.get(name) if partial is not None else getattr(found, name)


def test_set_up_and_teardown_stand_around_the_tasks() -> None:
    with dag() as found:
        with group():
            first = job("first")
            second = job("second")
            alone = job("alone")
            first >> second
        after = job("after", cluster_id="another")
        found.task_group.children["etl"] >> after  # type: ignore[operator]
    set_up, tear_down = found.get_task("etl.create_cluster"), found.get_task("etl.delete_cluster")
    assert (set_up.is_setup, tear_down.is_teardown) == (True, True)
    assert isinstance(tear_down, VertexRayDeleteClusterOperator)
    assert set_up.downstream_task_ids == {"etl.first", "etl.alone", "etl.delete_cluster"}
    assert tear_down.upstream_task_ids == {"etl.second", "etl.alone", "etl.create_cluster"}
    # What comes after the group waits for its tasks, not for the teardown.
    assert after.upstream_task_ids == {"etl.second", "etl.alone"}
    assert not tear_down.on_failure_fail_dagrun
    for inside in (first, second, alone):
        assert inside.cluster_id == GIVEN
        assert inside.location == "us-central1"
    assert tear_down.cluster_id == GIVEN


def test_every_kind_of_task_gets_the_cluster() -> None:
    with dag() as found, group():
        VertexRaySubmitJobOperator.partial(task_id="mapped").expand(entrypoint=["a", "b"])
        with TaskGroup("inner"), TaskGroup("innermost"):
            VertexRayGetClusterOperator(task_id="get")

        @vertex_ray_task()
        def once() -> int:
            return 1

        @vertex_ray_task()
        def often(number: int) -> int:
            return number

        @task
        def elsewhere() -> int:
            return 1

        VertexRayJobSensor(task_id="sensor", submission_id="x")
        often.expand(number=[1, once(), elsewhere()][:1])
        job("own", cluster_id="named", location="europe-west4", gcp_conn_id="mine")
    for name in ("mapped", "inner.innermost.get", "once", "often", "sensor"):
        inside = found.get_task(f"etl.{name}")
        assert given(inside, "cluster_id") == GIVEN, name
        assert given(inside, "location") == "us-central1", name
    own = found.get_task("etl.own")
    assert (own.cluster_id, own.location, own.gcp_conn_id) == ("named", "europe-west4", "mine")


def test_the_connection_and_the_lease_are_given_too() -> None:
    lease = {"lease_uri": "gs://bucket/leases", "lease_ttl": 60.0}
    with dag() as found, group(cluster_id=None, shared_name="crowd", gcp_conn_id="ray", project_id="p", **lease):
        inside = job("job")
        mine = job("mine", lease_uri="gs://another", lease_ttl=5.0)
    assert (inside.gcp_conn_id, inside.project_id) == ("ray", "p")
    assert (inside.lease_uri, inside.lease_ttl) == ("gs://bucket/leases", 60.0)
    assert (mine.lease_uri, mine.lease_ttl) == ("gs://another", 5.0)
    set_up, release = found.get_task("etl.create_cluster"), found.get_task("etl.release_cluster")
    assert (set_up.shared_name, set_up.lease_ttl) == ("crowd", 60.0)
    assert isinstance(release, VertexRayReleaseClusterOperator)
    assert release.is_teardown


def test_the_owner_of_the_lease_is_that_of_all_tasks() -> None:
    lease = {"lease_uri": "gs://bucket/leases", "create": {"lease_owner": "team-x"}}
    with dag() as found, group(cluster_id=None, shared_name="crowd", **lease):
        job("job")
    tasks = [found.get_task(f"etl.{name}") for name in ("create_cluster", "job", "release_cluster")]
    assert [task.lease_owner for task in tasks] == ["team-x"] * 3
    # So they share one hold, which the teardown releases.
    assert len({lease_holder_of(task, context_of(task), task.lease_owner, task.task_id).key for task in tasks}) == 1


def test_a_shared_one_without_a_lease_has_nothing_to_tear_down() -> None:
    with dag() as found, group(cluster_id=None, shared_name="crowd"):
        job("job")
    assert {each.task_id for each in found.tasks} == {"etl.create_cluster", "etl.job"}
    assert found.get_task("etl.create_cluster").is_setup


def test_a_clear_of_a_task_inside_takes_set_up_and_teardown_along() -> None:
    with dag() as found, group():
        job("first") >> job("second")
        with TaskGroup("inner"):
            VertexRaySubmitJobOperator.partial(task_id="mapped").expand(entrypoint=["a"])
    for name in ("etl.second", "etl.inner.mapped"):
        relatives = {each.task_id for each in found.get_task(name).get_upstreams_only_setups_and_teardowns()}
        assert relatives == {"etl.create_cluster", "etl.delete_cluster"}


def test_default_args_count_where_the_group_says_nothing() -> None:
    given_args = {"location": "europe-west4", "gcp_conn_id": "mine", "deferrable": True}
    with DAG("d", schedule=None, default_args=given_args) as found, VertexRayCluster("etl", spec=SPEC, cluster_id="a"):
        job("job")
    for each in found.tasks:
        assert (each.location, each.gcp_conn_id, each.deferrable) == ("europe-west4", "mine", True)


def test_two_groups_in_a_dag_and_one_without_a_prefix() -> None:
    with dag() as found:
        with VertexRayCluster("a", spec=SPEC, cluster_id="a-1", location="l"):
            job("job")
        with VertexRayCluster("b", spec=SPEC, cluster_id="b-1", location="l", prefix_group_id=False) as plain:
            inside = job("job")
    assert inside.cluster_id == plain.cluster_id == GIVEN.replace("etl.", "")
    assert found.get_task("a.job").cluster_id == GIVEN.replace("etl", "a")
    assert found.get_task("job").upstream_task_ids == {"create_cluster"}
    assert "dashboard_url" in plain.dashboard_url


def test_the_inner_cluster_of_two_is_taken() -> None:
    with dag() as found, group(), VertexRayCluster("inner", spec=SPEC, cluster_id="i-1", location="l"):
        job("job")
    assert "etl.inner.create_cluster" in found.get_task("etl.inner.job").cluster_id


def test_outside_of_a_group_a_task_needs_its_cluster() -> None:
    with pytest.raises(InvalidArgumentError, match="cluster_id"), dag():
        job("job")
    with pytest.raises(InvalidArgumentError, match="cluster_id"), dag(), TaskGroup("plain"):
        job("job")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"cluster_id": None}, "cluster_id"),
        ({"shared_name": "crowd"}, "cluster_id"),
        ({"delete": "sometimes"}, "delete"),
        ({"cluster_id": None, "shared_name": "crowd", "delete": "always"}, "delete"),
        ({"cluster_id": None, "shared_name": "crowd", "delete": "on_success"}, "delete"),
        ({"cluster_id": None, "shared_name": "crowd", "lease_uri": "bucket"}, "lease_uri"),
        ({"spec": {"worker_node_types": []}}, "worker_node_types"),
    ],
)
def test_wrong_input_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field), dag(), group(**arguments):
        pass


def test_it_can_not_be_in_a_mapped_group() -> None:
    from airflow.providers.common.compat.sdk import task_group

    with pytest.raises(InvalidArgumentError, match="mapped task group"), dag():

        @task_group
        def mapped(number: int) -> None:
            with group():
                job("job")

        mapped.expand(number=[1, 2])


def test_an_error_in_the_block_is_the_error() -> None:
    with pytest.raises(ZeroDivisionError), dag(), group():
        raise ZeroDivisionError
