"""A BigQuery step for each disposition, waited for in a triggerer or in the worker."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator
from tests.system.bigquery.cases import DISPOSITIONS, FOLDER_VARIABLE, TASK, dag_id


def slowly(batch: Any, note: str) -> Any:
    """Doubles; says that it has begun, and takes time to be killed in."""
    import pathlib
    import time

    pathlib.Path(note).touch()
    time.sleep(0.3)
    batch["z"] = batch["x"] * 2
    return batch


for disposition, deferrable in product(DISPOSITIONS, (True, False)):
    with DAG(
        dag_id=dag_id(disposition, deferrable=deferrable),
        schedule=None,
        start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        params={"cluster": "", "target": ""},
    ) as dag:
        VertexRayBigQueryOperator(
            task_id=TASK,
            cluster_id="{{ params.cluster }}",
            location="us-central1",
            query="SELECT x FROM shop.source",
            transform=slowly,
            fn_kwargs={"note": os.environ.get(FOLDER_VARIABLE, "") + "/{{ run_id }}"},
            batch_size=25_000,
            target_table="shop.{{ params.target }}",
            write_disposition=disposition,
            deferrable=deferrable,
            poll_interval=1,
            job_timeout=200,
            retries=6,
            retry_delay=timedelta(seconds=1),
        )
    globals()[dag.dag_id] = dag
