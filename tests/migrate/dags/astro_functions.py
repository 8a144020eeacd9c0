"""A DAG with the decorator of astro-provider-ray, whose settings are a dict, and a function that returns one."""

from datetime import datetime

from airflow.providers.common.compat.sdk import dag, task
from ray_provider.decorators import ray

CONFIG = {
    "conn_id": "ray_conn",
    "num_cpus": 1,
    "num_gpus": 0,
    "memory": 0,
    "poll_interval": 5,
}


def generate_config():
    spec = "ray.yaml"
    return {"conn_id": "ray_conn", "num_cpus": 0, "ray_cluster_yaml": spec, "xcom_task_key": "dashboard"}


@dag(dag_id="astro_functions", start_date=datetime(2023, 1, 1), schedule=None, catchup=False)
def functions():
    @task
    def data():
        return [1, 2, 3]

    @ray.task(config=CONFIG)
    def squares(numbers):
        import ray

        @ray.remote
        def square(x):
            return x**2

        ray.init()
        return sum(ray.get([square.remote(x) for x in numbers]))

    @ray.task(config=generate_config)
    def nodes(total):
        import ray

        ray.init()
        return (total, len(ray.nodes()) > 0)

    nodes(squares(data()))


made = functions()
