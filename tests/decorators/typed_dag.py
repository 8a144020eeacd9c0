"""A DAG file that ``make lint`` checks: it fails if mypy no longer sees one of the wrong arguments, or sees others."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_vertex_ray.decorators.job import vertex_ray_task

with DAG("typed", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):

    @task
    def cpus() -> int:
        return 3

    @vertex_ray_task(cluster_id="a", location="us-central1", entrypoint_num_cpus=cpus(), retries=2, env_vars={"A": "b"})
    def power(base: int, exponent: int = 2) -> int:
        return int(base**exponent)

    @vertex_ray_task
    def double(x: int) -> int:
        return 2 * x

    power(1)
    power.override(task_id="again")(2, exponent=3)
    power.partial(exponent=3).expand(base=[1, 2])
    power("1")  # type: ignore[arg-type]
    double(x="1")  # type: ignore[arg-type]
    double(y=1)  # type: ignore[call-arg]
    vertex_ray_task(cluster="a")  # type: ignore[call-overload]
    vertex_ray_task(cluster_id=3)  # type: ignore[call-overload]
    vertex_ray_task(job_timeout="600")  # type: ignore[call-overload]
    vertex_ray_task(skip_on_exit_code="99")  # type: ignore[arg-type]
    vertex_ray_task(entrypoint="python main.py")  # type: ignore[call-overload]
    vertex_ray_task(retries="2")  # type: ignore[call-overload]
    vertex_ray_task(retry=2)  # type: ignore[call-overload]
