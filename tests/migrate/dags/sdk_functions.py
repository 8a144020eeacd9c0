"""A DAG that calls the SDK of Vertex AI in its own functions."""

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.standard.operators.python import PythonOperator


def create():
    import vertex_ray

    return vertex_ray.create_ray_cluster(cluster_name="mine", worker_node_types=[vertex_ray.Resources()])


def train(name):
    import time

    import vertex_ray  # noqa: F401 (makes vertex_ray:// known to Ray)
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(f"vertex_ray://{name}")
    job = client.submit_job(entrypoint="echo trained")
    while not client.get_job_status(job).is_terminal():
        time.sleep(1)
    return [client.get_job_status(job).value, client.get_job_logs(job)]


def delete(name):
    import vertex_ray

    vertex_ray.delete_ray_cluster(name)


with DAG("sdk_functions", schedule=None, start_date=datetime(2026, 1, 1)):
    made = PythonOperator(task_id="create", python_callable=create)
    trained = PythonOperator(task_id="train", python_callable=train, op_args=[made.output])
    deleted = PythonOperator(task_id="delete", python_callable=delete, op_args=[made.output])
    trained >> deleted
