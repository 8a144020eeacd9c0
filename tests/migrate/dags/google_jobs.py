"""A DAG with the Google provider's operators on jobs, rendered natively, as in that provider's own system test."""

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, TriggerRule
from airflow.providers.google.cloud.operators.ray import (
    RayDeleteJobOperator,
    RayGetJobInfoOperator,
    RayListJobsOperator,
    RayStopJobOperator,
    RaySubmitJobOperator,
)
from airflow.providers.google.cloud.operators.vertex_ai.ray import (
    CreateRayClusterOperator as Create,
    DeleteRayClusterOperator,
    GetRayClusterOperator,
)
from google.cloud.aiplatform.vertex_ray.util.resources import Resources

PLACE = {"project_id": "demo-project", "location": "us-central1"}
JOB = "job_1"

with DAG(
    "google_jobs",
    schedule="@once",
    start_date=datetime(2021, 1, 1),
    catchup=False,
    render_template_as_native_obj=True,
) as dag:
    create = Create(
        task_id="create",
        worker_node_types=[Resources(node_count=1)],
        python_version="3.10",
        ray_version="2.33",
        **PLACE,
    )
    get = GetRayClusterOperator(task_id="get", cluster_id=create.output["cluster_id"], **PLACE)
    submit = RaySubmitJobOperator(
        task_id="submit",
        cluster_address="{{ task_instance.xcom_pull(task_ids='get')['dashboard_address'] }}",
        entrypoint="echo hello",
        runtime_env={"pip": ["ray==2.33.0"]},
        get_job_logs=False,
        wait_for_job_done=False,
        submission_id=JOB,
    )
    info = RayGetJobInfoOperator(
        task_id="info",
        cluster_address="{{ task_instance.xcom_pull(task_ids='get')['dashboard_address'] }}",
        job_id=JOB,
    )
    stop = RayStopJobOperator(
        task_id="stop",
        job_id=submit.output,
        cluster_address="{{ task_instance.xcom_pull(task_ids='get')['dashboard_address'] }}",
    )
    listed = RayListJobsOperator(
        task_id="list", cluster_address="{{ task_instance.xcom_pull(task_ids='get')['dashboard_address'] }}"
    )
    delete_job = RayDeleteJobOperator(
        task_id="delete_job",
        cluster_address="{{ task_instance.xcom_pull(task_ids='get')['dashboard_address'] }}",
        job_id=JOB,
        trigger_rule=TriggerRule.ALL_DONE,
    )
    delete = DeleteRayClusterOperator(
        task_id="delete", cluster_id=create.output["cluster_id"], trigger_rule=TriggerRule.ALL_DONE, **PLACE
    )
    create >> get >> submit >> info >> stop >> listed >> delete_job >> delete
