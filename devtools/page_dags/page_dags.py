"""DAGs that own the clusters and jobs of the page's tests and screenshots; they are never run."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator

for dag_id in ("etl_daily", "Train.Model"):
    with DAG(dag_id, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
        EmptyOperator(task_id="ray.create") >> [EmptyOperator(task_id=name) for name in ("load", "score", "report")]
