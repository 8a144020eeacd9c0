"""The Ray operators of Airflow's Google provider, as a DAG for the real service would use them."""

from __future__ import annotations

import os

from airflow.providers.google.cloud.operators.ray import RaySubmitJobOperator
from airflow.providers.google.cloud.operators.vertex_ai.ray import (
    CreateRayClusterOperator,
    DeleteRayClusterOperator,
    GetRayClusterOperator,
    ListRayClustersOperator,
    UpdateRayClusterOperator,
)
from airflow.version import version
from google.cloud.aiplatform.vertex_ray.util.resources import Resources
from running import run
from stages import tell

COMMON = {"project_id": os.environ["GOOGLE_CLOUD_PROJECT"], "location": "us-central1"}
CLUSTER = "from-provider"


def workers(count: int) -> list[Resources]:
    return [Resources(machine_type="n1-standard-8", node_count=count)]


def main() -> None:
    name, pushed = run(
        CreateRayClusterOperator(
            task_id="create",
            cluster_name=CLUSTER,
            python_version="3.11",
            ray_version="2.47",
            head_node_type=Resources(machine_type="n1-standard-16"),
            worker_node_types=workers(1),
            **COMMON,
        )
    )
    tell("create", name=name, cluster_id=pushed["cluster_id"], airflow=version)
    found, _ = run(GetRayClusterOperator(task_id="get", cluster_id=CLUSTER, **COMMON))
    address = found["dashboard_address"]
    tell("get", state=found["state"], address=address)
    listed, _ = run(ListRayClustersOperator(task_id="list", **COMMON))
    tell("list", names=[each["cluster_resource_name"] for each in listed])

    submit = RaySubmitJobOperator(
        task_id="submit",
        cluster_address=address,
        entrypoint="echo hello from the provider",
        submission_id="provider-job",
        wait_for_job_done=True,
        get_job_logs=True,
    )
    job, _ = run(submit)
    logs = submit.hook.get_job_logs(cluster_address=address, job_id=job)
    tell("submit", job=job, status=submit.hook.get_job_status(cluster_address=address, job_id=job), logs=logs)

    update = UpdateRayClusterOperator(task_id="update", cluster_id=CLUSTER, worker_node_types=workers(2), **COMMON)
    updated, _ = run(update)
    found, _ = run(GetRayClusterOperator(task_id="get_again", cluster_id=CLUSTER, **COMMON))
    tell("update", name=updated, counts=[each["node_count"] for each in found["worker_node_types"]])
    run(DeleteRayClusterOperator(task_id="delete", cluster_id=CLUSTER, **COMMON))
    tell("delete")


if __name__ == "__main__":
    main()
