"""A DAG that calls the SDK of Vertex AI in its own functions."""

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.standard.operators.python import PythonOperator


def create():
    import vertex_ray

    return vertex_ray.create_ray_cluster(cluster_name="mine", worker_node_types=[vertex_ray.Resources()])


def delete(name):
    import vertex_ray

    vertex_ray.delete_ray_cluster(name)


with DAG("sdk_functions", schedule=None, start_date=datetime(2026, 1, 1)):
    made = PythonOperator(task_id="create", python_callable=create)
    PythonOperator(task_id="delete", python_callable=delete, op_args=[made.output])
