"""Batch inference from BigQuery to BigQuery with Ray Data on Vertex AI.

Steps: create the cluster -> fill a table -> train a small model -> classify the whole table with actors, each of which
loads the model once -> check the result -> delete everything.

The rows are published atomically: whatever is retried, the target is either unchanged or complete. For GPUs, set
``num_gpus=1`` on the step. The DAG also runs on the local emulator:
``make demo DAG=example_vertex_ray_batch_inference``.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.google.cloud.operators.bigquery import (
    BigQueryCreateEmptyDatasetOperator,
    BigQueryDeleteDatasetOperator,
)

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator

LOCATION = "{{ var.value.get('vertex_ray_location', 'us-central1') }}"
DATASET = "batch_inference_{{ dag_run.start_date.strftime('%Y%m%d_%H%M%S_%f') }}"
COMMON: dict[str, Any] = {"location": LOCATION, "deferrable": True}
ON_RAY: dict[str, Any] = {
    **COMMON,
    "cluster_id": "{{ ti.xcom_pull(task_ids='create_cluster')['cluster_id'] }}",
    "job_timeout": 900,
    "retries": 1,
}


@task.vertex_ray(**ON_RAY)
def load_flowers(dataset: str) -> int:
    """Fill a table with scikit-learn's iris data set; return its number of rows."""
    import json

    from google.cloud import bigquery
    from sklearn.datasets import load_iris

    client = bigquery.Client()
    found = load_iris()
    rows = ", ".join(
        f"STRUCT({place} AS flower, {json.dumps(row)} AS measures, {kind} AS kind)"
        for place, (row, kind) in enumerate(zip(found.data.tolist(), found.target.tolist(), strict=True))
    )
    statement = f"CREATE OR REPLACE TABLE {dataset}.flowers AS SELECT * FROM UNNEST([{rows}])"  # noqa: S608
    client.query(statement).result()
    return len(found.data)


class Classifier:
    """Train a model when an actor starts; a real class would load a file from Cloud Storage here."""

    def __init__(self, neighbours: int) -> None:
        from sklearn.datasets import load_iris
        from sklearn.neighbors import KNeighborsClassifier

        self.model = KNeighborsClassifier(neighbours).fit(*load_iris(return_X_y=True))

    def __call__(self, batch: Any) -> Any:
        import numpy as np

        batch["classified"] = self.model.predict(np.stack(batch["measures"]))
        return batch[["flower", "kind", "classified"]]


@task
def check(loaded: int, step: dict[str, Any]) -> dict[str, Any]:
    """Check that no row is missing or duplicated."""
    assert loaded == step["rows_read"] == step["rows_written"], step
    return {"rows": loaded, "table": step["target_table"]}


with DAG(
    dag_id="example_vertex_ray_batch_inference",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["example", "vertex-ray"],
    doc_md=__doc__,
) as dag:
    create = VertexRayCreateClusterOperator(
        task_id="create_cluster",
        cluster_id="inference-{{ dag_run.start_date.strftime('%Y%m%d-%H%M%S-%f') }}",
        spec=ClusterSpec(
            head_node_type=Resources(machine_type="n1-standard-16"),
            worker_node_types=[Resources(machine_type="n1-standard-4", node_count=2)],
            labels={"example": "batch-inference"},
        ),
        **COMMON,
    )
    with_dataset = BigQueryCreateEmptyDatasetOperator(task_id="create_dataset", dataset_id=DATASET, location="US")
    loaded = load_flowers(DATASET)
    classify = VertexRayBigQueryOperator(
        task_id="classify",
        query=f"SELECT flower, measures, kind FROM {DATASET}.flowers",  # noqa: S608
        transform=Classifier,
        fn_constructor_kwargs={"neighbours": 5},
        concurrency=2,
        target_table=f"{DATASET}.classified",
        write_disposition="WRITE_TRUNCATE",
        cluster_fields=["kind"],
        **ON_RAY,
    )
    checked = check(loaded, classify.output)
    delete_dataset = BigQueryDeleteDatasetOperator(
        task_id="delete_dataset", dataset_id=DATASET, delete_contents=True
    ).as_teardown(setups=with_dataset)
    delete = VertexRayDeleteClusterOperator(
        task_id="delete_cluster",
        cluster_id="{{ ti.xcom_pull(task_ids='create_cluster')['cluster_id'] }}",
        **COMMON,
    ).as_teardown(setups=create)

    [create, with_dataset] >> loaded >> classify >> checked >> [delete_dataset, delete]
