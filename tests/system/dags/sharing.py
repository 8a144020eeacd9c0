"""Three DAGs that share a cluster by its name; one of them asks for a young one, so that it is rolled over."""

from __future__ import annotations

import os
from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.task_groups.cluster import VertexRayCluster

FOLDER = os.environ.get("SYSTEM_TEST_FOLDER", "")
LOCATION = "us-central1"
LEASES = "{{ var.value.get('vertex_ray_lease_uri', '') }}"
SPEC = ClusterSpec(
    head_node_type=Resources(machine_type="n1-standard-16"),
    worker_node_types=[Resources(machine_type="n1-standard-8", node_count=1)],
)
# One write of a short line to a file that is opened for appending is never torn.
PROGRAM = (
    "import sys, time; note = lambda what: open(sys.argv[1], 'a').write(what + ' ' + sys.argv[2] + chr(10)); "
    "note('start'); time.sleep(float(sys.argv[3])); note('end')"
)
MAX_AGE = 30.0
ARGUMENTS = {"schedule": None, "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc), "catchup": False}

for number in range(3):
    with DAG(dag_id=f"sharing_{number}", max_active_runs=16, **ARGUMENTS) as dag:  # type: ignore[arg-type]
        with VertexRayCluster(
            "shared",
            spec=SPEC,
            shared_name="crowd",
            lease_uri=LEASES,
            location=LOCATION,
            deferrable=True,
            create={"poll_interval": 1.0, "max_age": MAX_AGE if number == 2 else None, "retries": 2},
        ):
            VertexRaySubmitJobOperator.partial(
                task_id="job", entrypoint_num_cpus=1, poll_interval=2.0, deferrable=True, retries=2
            ).expand(
                entrypoint=[
                    ["python", "-c", PROGRAM, f"{FOLDER}/ledger", "{{ run_id }}/" + str(place), str(1 + place)]
                    for place in range(2)
                ]
            )
    globals()[dag.dag_id] = dag


with DAG(dag_id="group_always", params={"fail": False}, **ARGUMENTS) as always:  # type: ignore[arg-type]
    with VertexRayCluster(
        "own",
        spec=SPEC,
        cluster_id="own-{{ run_id | replace('_', '-') | lower }}-{{ task_instance.try_number }}",
        location=LOCATION,
        deferrable=True,
        create={"poll_interval": 1.0},
    ):
        VertexRaySubmitJobOperator(
            task_id="work",
            entrypoint="exit {{ 1 if params.fail else 0 }}",
            poll_interval=2.0,
            deferrable=True,
        )

with DAG(dag_id="group_on_success", params={"fail": False}, **ARGUMENTS) as on_success:  # type: ignore[arg-type]
    with VertexRayCluster(
        "own",
        spec=SPEC,
        cluster_id="kept-{{ run_id | replace('_', '-') | lower }}",
        delete="on_success",
        location=LOCATION,
        deferrable=True,
        create={"poll_interval": 1.0},
    ):

        @task.vertex_ray(poll_interval=2.0)
        def odd(number: str) -> int:
            if int(number) % 2:
                raise ValueError(f"{number} is odd")
            return int(number)

        odd(number="{{ 1 if params.fail else 2 }}")
