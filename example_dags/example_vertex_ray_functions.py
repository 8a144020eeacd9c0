"""Functions that run on a Ray cluster on Vertex AI, as easily as ``@task``.

Steps: create the cluster -> map a function over 20 inputs, one job each -> run a function on all results -> check the
result -> delete the cluster.

The question is the Collatz conjecture's: halve an even number, make 3n + 1 of an odd one, until 1 is reached. Which
number below ``limit`` takes the most steps? The answers are published, so that the result can be checked.

The source of the functions is sent to the cluster with their arguments, and their results return as JSON. While they
run, their tasks are deferred and hold no worker slot. If ``VERTEX_RAY_EMULATOR_HOST`` is set, the DAG runs on the local
emulator.
"""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator

LOCATION = "{{ var.value.get('vertex_ray_location', 'us-central1') }}"
CLUSTER_ID = "{{ ti.xcom_pull(task_ids='create_cluster')['cluster_id'] }}"

# limit -> the number below it that takes the most steps, and how many.
# Source: https://oeis.org/A006877 and https://oeis.org/A006878
PUBLISHED = {10_000: (6_171, 261), 100_000: (77_031, 350), 1_000_000: (837_799, 524)}

# The decorator accepts the arguments of VertexRaySubmitJobOperator.
ON_RAY: dict[str, Any] = {
    "cluster_id": CLUSTER_ID,
    "location": LOCATION,
    "job_timeout": 900,
    "deferrable": True,
    "retries": 1,
}


@task
def make_ranges(params: dict[str, Any] | None = None) -> list[list[int]]:
    """Return one range of numbers for each job."""
    assert params is not None
    limit, inputs = params["limit"], params["inputs"]
    edges = [1 + (limit - 1) * n // inputs for n in range(inputs + 1)]
    return [list(edge) for edge in itertools.pairwise(edges)]


@task.vertex_ray(**ON_RAY)
def longest_chain(numbers: list[int], pieces: int = 2) -> dict[str, int]:
    """Return the number of a range that takes the most steps, with Ray tasks on the worker nodes."""
    import itertools

    import ray

    @ray.remote
    def longest(low: int, high: int) -> tuple[int, int]:
        known: dict[int, int] = {1: 0}
        best = (0, 0)  # steps, and the number with a minus: of two with as many steps the lesser one counts
        for start in range(low, high):
            number, path = start, []
            while number not in known:
                path.append(number)
                number = number // 2 if number % 2 == 0 else 3 * number + 1
            for behind, passed in enumerate(reversed(path), 1):
                known[passed] = known[number] + behind
            best = max(best, (known[start], -start))
        return best

    low, high = numbers
    edges = [low + (high - low) * n // pieces for n in range(pieces + 1)]
    steps, number = max(ray.get([longest.remote(*edge) for edge in itertools.pairwise(edges)]))
    print(f"{-number} takes {steps} steps to 1")
    return {"number": -number, "steps": steps}


@task.vertex_ray(multiple_outputs=True, **ON_RAY)
def summarize(found: list[dict[str, int]], limit: str, run_id: str | None = None) -> dict[str, Any]:
    """Return the longest of all, from the results of mapped tasks, a template and a key of Airflow's context."""
    best = max(found, key=lambda each: (each["steps"], -each["number"]))
    return {**best, "limit": int(limit), "run_id": run_id}


@task
def check(number: int, steps: int, params: dict[str, Any] | None = None) -> None:
    """Compare with the published number. This task runs in Airflow, so it can use other names of this file."""
    assert params is not None
    if (number, steps) != PUBLISHED[params["limit"]]:
        raise ValueError(f"found {number} with {steps} steps, but {PUBLISHED[params['limit']]} is known")


with DAG(
    dag_id="example_vertex_ray_functions",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["example", "vertex-ray"],
    doc_md=__doc__,
    params={
        "limit": Param(100_000, enum=list(PUBLISHED), description="Look at the numbers below this"),
        "inputs": Param(20, type="integer", minimum=1, maximum=200, description="How many jobs share the work"),
    },
) as dag:
    create = VertexRayCreateClusterOperator(
        task_id="create_cluster",
        # A new ID for each run: the ID of a deleted cluster cannot be used again for up to two hours.
        cluster_id="functions-{{ dag_run.start_date.strftime('%Y%m%d-%H%M%S-%f') }}",
        location=LOCATION,
        spec=ClusterSpec(
            head_node_type=Resources(machine_type="n1-standard-16"),
            worker_node_types=[Resources(machine_type="n1-standard-4", node_count=2)],
            labels={"example": "functions"},
        ),
        deferrable=True,
    )
    delete = VertexRayDeleteClusterOperator(
        task_id="delete_cluster", cluster_id=CLUSTER_ID, location=LOCATION, deferrable=True
    )

    chains = longest_chain.expand(numbers=make_ranges())
    answer = summarize(chains, limit="{{ params.limit }}")
    checked = check(answer["number"], answer["steps"])
    create >> chains
    checked >> delete.as_teardown(setups=create)
