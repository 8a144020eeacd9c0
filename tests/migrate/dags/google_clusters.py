"""A DAG with the Google provider's operators on clusters, in the form of that provider's own system test."""

from __future__ import annotations

import os
from datetime import datetime

try:
    from google.cloud.aiplatform.vertex_ray.util import resources
except ImportError:
    raise RuntimeError("google-cloud-aiplatform is missing") from None

from airflow.providers.common.compat.sdk import DAG, TriggerRule
from airflow.providers.google.cloud.operators.vertex_ai.ray import (
    CreateRayClusterOperator,
    DeleteRayClusterOperator,
    GetRayClusterOperator,
    ListRayClustersOperator,
    UpdateRayClusterOperator,
)

PROJECT = os.environ.get("PROJECT", "demo-project")
REGION = "us-central1"
ONE = resources.Resources(node_count=1)
TWO = resources.Resources(node_count=2)
MADE = "{{ task_instance.xcom_pull(task_ids='create', key='cluster_id') }}"

with DAG("google_clusters", schedule="@once", start_date=datetime(2021, 1, 1), catchup=False) as dag:
    # The cluster.
    create = CreateRayClusterOperator(
        task_id="create",
        project_id=PROJECT,
        location=REGION,
        worker_node_types=[ONE],
        python_version="3.10",
        ray_version="2.33",
    )
    update = UpdateRayClusterOperator(
        task_id="update", project_id=PROJECT, location=REGION, cluster_id=MADE, worker_node_types=[TWO]
    )
    get = GetRayClusterOperator(task_id="get", project_id=PROJECT, location=REGION, cluster_id=MADE)
    delete = DeleteRayClusterOperator(
        task_id="delete",
        project_id=PROJECT,
        location=REGION,
        cluster_id=MADE,
        trigger_rule=TriggerRule.ALL_DONE,
    )
    listed = ListRayClustersOperator(task_id="list", project_id=PROJECT, location=REGION)
    create >> update >> get >> listed >> delete
