"""Train on a Ray cluster on Vertex AI, and let the metric decide what comes next.

Steps: create the cluster -> train -> check the accuracy -> accept or reject the model -> delete the cluster.

The training script and its data are in the folder ``ray_jobs/train``; its requirements are installed with ``pip`` for
this job only. Its metrics are returned as the XCom of the task, and a branch evaluates them. During the training, the
task is deferred and holds no worker slot. If ``VERTEX_RAY_EMULATOR_HOST`` is set, the DAG runs on the local emulator.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator

LOCATION = "{{ var.value.get('vertex_ray_location', 'us-central1') }}"
CLUSTER_ID = "{{ ti.xcom_pull(task_ids='create_cluster')['cluster_id'] }}"


@task.branch
def judge(job: dict[str, Any], params: dict[str, Any] | None = None) -> str:
    """Choose the next task by the metrics, which the training script printed."""
    assert params is not None
    metrics = job["result"]
    print(f"accuracy {metrics['accuracy']}, required {params['least_accuracy']}")
    return "accept_model" if metrics["accuracy"] >= params["least_accuracy"] else "reject_model"


@task
def accept_model(job: dict[str, Any]) -> dict[str, Any]:
    """Register the model (left out in this example)."""
    return {"accepted": True, **job["result"]}


@task
def reject_model(job: dict[str, Any]) -> dict[str, Any]:
    """Notify the team (left out in this example)."""
    return {"accepted": False, **job["result"]}


with DAG(
    dag_id="example_vertex_ray_train_branch",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["example", "vertex-ray"],
    doc_md=__doc__,
    params={
        "least_accuracy": Param(0.9, type="number", minimum=0, maximum=1, description="Of a model that is accepted"),
        "epochs": Param(5, type="integer", minimum=1, maximum=100, description="How often each flower is looked at"),
    },
) as dag:
    create = VertexRayCreateClusterOperator(
        task_id="create_cluster",
        # A new ID for each run: the ID of a deleted cluster cannot be used again for up to two hours.
        cluster_id="train-{{ dag_run.start_date.strftime('%Y%m%d-%H%M%S-%f') }}",
        location=LOCATION,
        spec=ClusterSpec(
            head_node_type=Resources(machine_type="n1-standard-16"),
            worker_node_types=[Resources(machine_type="n1-standard-4", node_count=1)],
            labels={"example": "train-branch"},
        ),
        deferrable=True,
    )
    train = VertexRaySubmitJobOperator(
        task_id="train",
        cluster_id=CLUSTER_ID,
        location=LOCATION,
        entrypoint=["python", "train.py", "--epochs={{ params.epochs }}"],
        working_dir=str(Path(__file__).parent / "ray_jobs" / "train"),
        # Installed for this job only and cached on the nodes; other jobs on the cluster are not affected.
        runtime_env={"pip": ["micrograd==0.1.0"]},
        job_timeout=1800,
        deferrable=True,
    )
    delete = VertexRayDeleteClusterOperator(
        task_id="delete_cluster", cluster_id=CLUSTER_ID, location=LOCATION, deferrable=True
    )

    decision = judge(train.output)
    models = [accept_model(train.output), reject_model(train.output)]
    create >> train
    decision >> models
    models >> delete.as_teardown(setups=create)
