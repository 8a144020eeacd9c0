"""From BigQuery to predictions with Ray on Vertex AI, with one task for each step.

Steps: load a data set into BigQuery -> prepare it with Ray -> train two models in parallel -> check the accuracy ->
upload the better model -> deploy it -> request predictions and compare them with the model's own -> score the whole
table with Ray, back into BigQuery -> check the result -> undeploy the model and delete everything.

The data set is scikit-learn's *breast cancer* (569 rows). All waits are deferred. The DAG also runs on the local
emulator: ``make demo DAG=example_vertex_ray_train_deploy``. On Google Cloud, use a cluster image with versions of
scikit-learn and XGBoost that serving containers have; the upload warns otherwise.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task
from airflow.providers.google.cloud.operators.bigquery import (
    BigQueryCreateEmptyDatasetOperator,
    BigQueryDeleteDatasetOperator,
)
from airflow.providers.google.cloud.operators.gcs import GCSCreateBucketOperator, GCSDeleteBucketOperator

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator
from airflow_provider_vertex_ray.operators.endpoint import VertexRayDeployModelOperator, VertexRayUndeployModelOperator
from airflow_provider_vertex_ray.operators.model import VertexRayUploadModelOperator
from airflow_provider_vertex_ray.operators.prediction import VertexRayPredictOperator
from airflow_provider_vertex_ray.remote import MODEL_EXPORT

LOCATION = "{{ var.value.get('vertex_ray_location', 'us-central1') }}"
STAMP = "{{ dag_run.start_date.strftime('%Y%m%d_%H%M%S_%f') }}"
DATASET = f"train_deploy_{STAMP}"
# Bucket names are globally unique.
BUCKET = f"train-deploy-{STAMP}"
BEST = "ti.xcom_pull(task_ids='choose')"
COMMON: dict[str, Any] = {"location": LOCATION, "deferrable": True}
ON_RAY: dict[str, Any] = {
    **COMMON,
    "cluster_id": "{{ ti.xcom_pull(task_ids='create_cluster')['cluster_id'] }}",
    "job_timeout": 900,
    "retries": 1,
}
HOLDOUT = 20


@task.vertex_ray(**ON_RAY)
def load_data(dataset: str) -> int:
    """Write the data set to a table; return its number of rows."""
    import io

    from google.cloud import bigquery
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer(as_frame=True)
    names = {name: name.replace(" ", "_") for name in found.data.columns}
    frame = found.data.rename(columns=names).assign(target=found.target, row=range(len(found.data)))
    schema = [bigquery.SchemaField(name, "FLOAT64") for name in names.values()]
    schema += [bigquery.SchemaField("target", "INT64"), bigquery.SchemaField("row", "INT64")]
    config = bigquery.LoadJobConfig(source_format="PARQUET", schema=schema, write_disposition="WRITE_TRUNCATE")
    content = io.BytesIO()
    frame.to_parquet(content, index=False)
    content.seek(0)
    client = bigquery.Client()
    client.create_table(bigquery.Table(f"{client.project}.{dataset}.raw", schema), exists_ok=True)
    client.load_table_from_file(content, f"{dataset}.raw", job_config=config).result()
    return len(frame)


def halves(batch: Any) -> Any:
    """Return a feature vector for each row, and whether the row is for training."""
    features = [name for name in batch.columns if name not in ("target", "row")]
    batch["features"] = list(batch[sorted(features)].to_numpy())
    batch["train"] = batch["row"] % 4 != 0
    return batch[["row", "features", "target", "train"]]


@task.vertex_ray(**ON_RAY, py_modules=[MODEL_EXPORT])
def train(kind: str, dataset: str, bucket: str, holdout: int = HOLDOUT) -> dict[str, Any]:
    """Train a model on the prepared rows; return its accuracy on the other rows, its URI and sample predictions."""
    import numpy as np
    import ray
    from google.cloud import bigquery
    from vertex_ray_model_export import export_model

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_bigquery(bigquery.Client().project, dataset=f"{dataset}.prepared").to_pandas()
    rows = rows.sort_values("row")
    mine, others = rows[rows["train"]], rows[~rows["train"]]
    x, y = np.stack(mine["features"]), mine["target"].to_numpy()
    test_x, test_y = np.stack(others["features"]), others["target"].to_numpy()
    if kind == "sklearn":
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
        said = model.predict(test_x)
    else:
        import xgboost

        model = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(x, y), 20)
        said = model.predict(xgboost.DMatrix(test_x))
    written = export_model(model, f"gs://{bucket}/models/{kind}", kind)
    return {
        **written,
        "accuracy": float(((said > 0.5) == test_y).mean()),
        "instances": test_x[:holdout].tolist(),
        "predictions": [float(value) for value in said[:holdout]],
    }


@task
def choose(trained: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the better model."""
    best = max(trained, key=lambda each: each["accuracy"])
    for each in trained:
        print(f"{each['framework']}: accuracy {each['accuracy']:.3f}{', the better one' if each is best else ''}")
    return best


@task.branch
def judge(best: dict[str, Any], params: dict[str, Any] | None = None) -> str:
    """Choose the next task by the accuracy."""
    assert params is not None
    return "upload" if best["accuracy"] >= params["least_accuracy"] else "reject"


@task
def reject(best: dict[str, Any]) -> None:
    """Notify the team (left out in this example)."""
    print(f"accuracy {best['accuracy']:.3f} is not enough")


class Scorer:
    """Score batches; each actor loads the model once."""

    def __init__(self, artifact: str, framework: str) -> None:
        import io

        from google.cloud import storage

        bucket, _, folder = artifact.removeprefix("gs://").partition("/")
        self.framework = framework
        name = "model.joblib" if framework == "sklearn" else "model.bst"
        content = storage.Client().bucket(bucket).blob(f"{folder}/{name}").download_as_bytes()
        if framework == "sklearn":
            import joblib

            self.model = joblib.load(io.BytesIO(content))
        else:
            import xgboost

            self.model = xgboost.Booster(model_file=bytearray(content))

    def __call__(self, batch: Any) -> Any:
        import numpy as np

        x = np.stack(batch["features"])
        if self.framework == "sklearn":
            scores = self.model.predict(x)
        else:
            import xgboost

            scores = self.model.predict(xgboost.DMatrix(x))
        return batch[["row", "target"]].assign(score=scores.astype("float64"))


@task
def check(
    best: dict[str, Any], loaded: int, prepared: dict[str, Any], predicted: dict[str, Any], scored: dict[str, Any]
) -> dict[str, Any]:
    """Check that endpoint and model agree, and that no row is missing or duplicated."""
    pairs = list(zip(best["predictions"], predicted["predictions"], strict=True))
    furthest = max(abs(own - served) for own, served in pairs)
    assert furthest < 1e-5, f"the endpoint is {furthest} off the model's own predictions"
    counts = {loaded, prepared["rows_read"], prepared["rows_written"], scored["rows_read"], scored["rows_written"]}
    assert len(counts) == 1, f"rows were lost or doubled: {counts}"
    return {
        "framework": best["framework"],
        "accuracy": best["accuracy"],
        "compared": len(pairs),
        "furthest": furthest,
        "rows": loaded,
    }


@task(trigger_rule="all_done")
def delete_model(model: str | None = None, location: str = "us-central1") -> None:
    """Delete the model of this run from the Model Registry."""
    from airflow_provider_vertex_ray.hooks.model import VertexRayModelHook

    hook = VertexRayModelHook(location=location)
    operation = hook.delete_model(model) if model else None
    if operation is not None:
        hook.finished(operation, None)


with DAG(
    dag_id="example_vertex_ray_train_deploy",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["example", "vertex-ray"],
    doc_md=__doc__,
    params={
        "least_accuracy": Param(0.9, type="number", minimum=0, maximum=1, description="Of a model that is deployed"),
    },
) as dag:
    create = VertexRayCreateClusterOperator(
        task_id="create_cluster",
        cluster_id="train-deploy-{{ dag_run.start_date.strftime('%Y%m%d-%H%M%S-%f') }}",
        spec=ClusterSpec(
            head_node_type=Resources(machine_type="n1-standard-16"),
            worker_node_types=[Resources(machine_type="n1-standard-4", node_count=1)],
            labels={"example": "train-deploy"},
        ),
        **COMMON,
    )
    with_dataset = BigQueryCreateEmptyDatasetOperator(task_id="create_dataset", dataset_id=DATASET, location="US")
    with_bucket = GCSCreateBucketOperator(task_id="create_bucket", bucket_name=BUCKET, location="US")
    loaded = load_data(DATASET)
    prepare = VertexRayBigQueryOperator(
        task_id="prepare",
        source_table=f"{DATASET}.raw",
        transform=halves,
        target_table=f"{DATASET}.prepared",
        **ON_RAY,
    )
    trained = train.partial(dataset=DATASET, bucket=BUCKET).expand(kind=["sklearn", "xgboost"])
    best = choose(trained)
    upload = VertexRayUploadModelOperator(
        task_id="upload",
        display_name="breast-cancer",
        artifact_uri=f"{{{{ {BEST}['artifact_uri'] }}}}",
        framework=f"{{{{ {BEST}['framework'] }}}}",
        labels={"example": "train-deploy"},
        **COMMON,
    )
    deploy = VertexRayDeployModelOperator(
        task_id="deploy", model="{{ ti.xcom_pull(task_ids='upload')['model_version'] }}", **COMMON
    )
    predict = VertexRayPredictOperator(
        task_id="predict",
        endpoint_id="{{ ti.xcom_pull(task_ids='deploy')['endpoint'] }}",
        instances=best["instances"],
        location=LOCATION,
    )
    score = VertexRayBigQueryOperator(
        task_id="score",
        source_table=f"{DATASET}.prepared",
        transform=Scorer,
        fn_constructor_kwargs={
            "artifact": f"{{{{ {BEST}['artifact_uri'] }}}}",
            "framework": f"{{{{ {BEST}['framework'] }}}}",
        },
        concurrency=1,
        target_table=f"{DATASET}.scores",
        **ON_RAY,
    )
    checked = check(best, loaded, prepare.output, predict.output, score.output)

    undeploy = VertexRayUndeployModelOperator(
        task_id="undeploy",
        endpoint_id="{{ (ti.xcom_pull(task_ids='deploy') or {}).get('endpoint') or 'none' }}",
        **COMMON,
    ).as_teardown(setups=deploy)
    remove_model = delete_model("{{ (ti.xcom_pull(task_ids='upload') or {}).get('model') or '' }}", LOCATION)
    delete_dataset = BigQueryDeleteDatasetOperator(
        task_id="delete_dataset", dataset_id=DATASET, delete_contents=True
    ).as_teardown(setups=with_dataset)
    delete_bucket = GCSDeleteBucketOperator(task_id="delete_bucket", bucket_name=BUCKET, force=True).as_teardown(
        setups=with_bucket
    )
    delete = VertexRayDeleteClusterOperator(
        task_id="delete_cluster",
        cluster_id="{{ ti.xcom_pull(task_ids='create_cluster')['cluster_id'] }}",
        **COMMON,
    ).as_teardown(setups=create)

    [create, with_dataset] >> loaded >> prepare >> trained
    with_bucket >> trained
    judge(best) >> [upload, reject(best)]
    upload >> deploy >> [predict, score] >> checked
    checked >> undeploy >> remove_model
    checked >> [delete_dataset, delete_bucket, delete]
