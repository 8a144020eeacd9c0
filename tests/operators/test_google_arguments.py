"""Arguments, defaults and XComs of the Google provider's operators, where they mean the same here."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.cluster_spec import AutoscalingSpec, ClusterSpec, Resources
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.operators.cluster import (
    VertexRayCreateClusterOperator,
    VertexRayDeleteClusterOperator,
    VertexRayGetClusterOperator,
    VertexRayResizeClusterOperator,
)
from airflow_provider_vertex_ray.operators.job import (
    VertexRayDeleteJobOperator,
    VertexRayGetJobOperator,
    VertexRaySubmitJobOperator,
)
from tests.support.clusters import LOCATION, SPEC, jobs_of, start, submit
from tests.support.tasks import TaskInstance, context_of, run_task

COMMON: dict[str, Any] = {"location": LOCATION, "deferrable": False, "poll_interval": 0.05}


def create(**more: Any) -> VertexRayCreateClusterOperator:
    return VertexRayCreateClusterOperator(**{"task_id": "create", **COMMON, **more})


def test_cluster_from_flat_arguments_under_a_generated_id(fake_emulator: EmulatorProcess) -> None:
    from google.cloud.aiplatform.vertex_ray.util import resources

    operator = create(
        worker_node_types=[resources.Resources(node_count=2)],
        python_version="3.11",
        ray_version="2.47",
        labels={"a": "1"},
    )
    context = context_of(operator)
    result = run_task(operator, context)
    assert context["ti"].xcoms["cluster_id"] == result["cluster_id"]
    assert result["cluster_id"].startswith("ray-")
    # The workers join the default head's pool, as with the SDK.
    assert [pool["replicas"] for pool in result["pools"].values()] == [3]
    assert result["labels"]["a"] == "1"
    # A further try finds it.
    again = run_task(create(labels={"a": "1"}), context_of(create(), TaskInstance("create", try_number=2)))
    assert again["cluster_id"] == result["cluster_id"]


def test_generated_id_that_is_blocked_is_followed_by_the_next(fake_emulator: EmulatorProcess) -> None:
    first = run_task(create())
    run_task(VertexRayDeleteClusterOperator(task_id="delete", cluster_id=first["cluster_id"], **COMMON))
    second = run_task(create())
    assert second["cluster_id"] == f"{first['cluster_id']}-2"
    assert run_task(create(task_id="other"))["cluster_id"] not in (first["cluster_id"], second["cluster_id"])


def test_default_cluster_is_that_of_the_default_spec() -> None:
    assert create().spec == ClusterSpec().to_dict()
    assert create(cluster_name="mine").cluster_id == "mine"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"spec": SPEC, "network": "projects/1/global/networks/n"}, "network"),
        ({"ray_version": "2.33"}, "ray_version"),
        ({"head_node_type": {"node_count": 2}}, "head_node_type.node_count"),
        ({"worker_node_types": "n1-standard-8"}, "worker_node_types"),
    ],
)
def test_wrong_flat_argument_fails_the_dag(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        create(**arguments)
    assert caught.value.field == field


def test_flat_argument_may_be_known_only_at_run_time(fake_emulator: EmulatorProcess) -> None:
    with DAG("flat", schedule=None) as dag:

        @task
        def workers() -> list[dict[str, Any]]:
            return [{"machine_type": "n1-standard-8"}]

        create(worker_node_types=workers(), network="{{ network }}")
    assert dag.get_task("create").upstream_task_ids == {"workers"}
    operator = create(worker_node_types="{{ workers }}")
    operator.render_template_fields(context_of(operator, workers="none"))
    with pytest.raises(InvalidArgumentError, match="worker_node_types"):
        operator.execute(context_of(operator))
    assert fake_emulator.calls() == []


def test_equal_workers_in_the_pool_of_the_head_add_up() -> None:
    # As in Google's own tests: one pool of four nodes.
    assert [pool.replica_count for pool in ClusterSpec(worker_node_types=[Resources()] * 3).pools()] == [4]
    # Others have a pool each, as in the SDK.
    pools = ClusterSpec(worker_node_types=[Resources(machine_type="n1-standard-8")] * 2).pools()
    assert [pool.replica_count for pool in pools] == [1, 1, 1]
    with pytest.raises(InvalidArgumentError, match="Merge these worker types"):
        ClusterSpec(worker_node_types=[Resources(autoscaling_spec=AutoscalingSpec(2, 3))] * 2)


def resize(workers: Any) -> VertexRayResizeClusterOperator:
    return VertexRayResizeClusterOperator(task_id="resize", cluster_id="shared", worker_node_types=workers, **COMMON)


def test_resize_by_worker_types(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    result = run_task(resize([Resources(machine_type="n1-standard-8", node_count=4)]))
    assert [pool["replicas"] for pool in result["pools"].values()] == [1, 4]
    # The head's pool includes the head.
    result = run_task(resize([{"machine_type": "n1-standard-16", "node_count": 2}]))
    assert [pool["replicas"] for pool in result["pools"].values()] == [3, 4]
    with pytest.raises(InvalidArgumentError, match="Use the machine types of the cluster's pools: n1-standard-16, n1"):
        run_task(resize([Resources(machine_type="n1-standard-32")]))


def test_job_with_the_names_of_the_google_provider(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    shown = run_task(VertexRayGetClusterOperator(task_id="get", cluster_id="shared", location=LOCATION))
    for address in (
        shown["dashboard_address"],
        f"https://{shown['dashboard_address']}",
        shown["cluster_resource_name"],
    ):
        place = {"cluster_address": address}
        operator = VertexRaySubmitJobOperator(
            task_id="submit",
            entrypoint="echo hello",
            submission_id="own-id",
            wait_for_job_done=True,
            get_job_logs=True,
            submit_job_timeout=60,
            deferrable=False,
            **place,  # type: ignore[arg-type]
        )
        context = context_of(operator)
        assert run_task(operator, context)["status"] == "SUCCEEDED"
        assert {context["ti"].xcoms[key] for key in ("job_id", "submission_id")} == {"own-id"}
        read = VertexRayGetJobOperator(task_id="read", job_id="own-id", **place)  # type: ignore[arg-type]
        assert run_task(read)["cluster_id"] == "shared"
        assert run_task(VertexRayDeleteJobOperator(task_id="delete", job_id="own-id", **place))["existed"]  # type: ignore
        assert jobs_of(fake_emulator, "shared") == {}


def test_dashboard_of_no_cluster_is_an_error(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    submit(fake_emulator, "shared", "job", "true")
    address = "0123abcd-dot-us-central1.aiplatform-training.googleusercontent.com"
    with pytest.raises(InvalidArgumentError, match="no cluster of project .* in us-central1 has this dashboard"):
        run_task(VertexRayGetJobOperator(task_id="read", job_id="job", cluster_address=address))
