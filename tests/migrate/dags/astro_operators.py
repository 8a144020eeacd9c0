"""A DAG with the operators of astro-provider-ray: a cluster set up, used and torn down."""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG
from ray_provider.operators.ray import DeleteRayCluster, SetupRayCluster, SubmitRayJob

SPEC = Path(__file__).parent / "ray.yaml"
CODE = Path(__file__).parent / "scripts"

dag = DAG(
    "astro_operators",
    start_date=datetime(2024, 3, 26),
    default_args={"retries": 0, "retry_delay": timedelta(minutes=0)},
    schedule_interval=None,
)
up = SetupRayCluster(task_id="up", conn_id="ray_conn", ray_cluster_yaml=SPEC, use_gpu=False, dag=dag)
job = SubmitRayJob(
    task_id="job",
    conn_id="ray_conn",
    entrypoint="python main.py",
    runtime_env={"working_dir": CODE},  # the code
    num_cpus=0,
    num_gpus=0,
    memory=0,
    resources={},
    fetch_logs=True,
    wait_for_completion=True,
    job_timeout_seconds=600,
    xcom_task_key="up.dashboard",
    poll_interval=5,
    dag=dag,
)
down = DeleteRayCluster(task_id="down", conn_id="ray_conn", ray_cluster_yaml=SPEC, use_gpu=False, dag=dag)
up.as_setup() >> job >> down.as_teardown()
up >> down
