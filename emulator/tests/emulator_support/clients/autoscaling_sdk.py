"""The official notebook's autoscaling cluster, from 1 to 3 nodes, by Google's SDK and Ray's own job client."""

from __future__ import annotations

import os
import time

import vertex_ray
from google.cloud import aiplatform
from ray.job_submission import JobStatus, JobSubmissionClient
from stages import tell
from vertex_ray import AutoscalingSpec, Resources

SCRIPT = """
import ray, time
ray.init(log_to_driver=False)

@ray.remote(num_cpus=8)
def work(x):
    time.sleep(0.02)
    return ray.get_runtime_context().get_node_id()

nodes = ray.get([work.remote(x) for x in range(1000)])
print("tasks", len(nodes), "nodes", len(set(nodes)))
"""


def main() -> None:
    aiplatform.init(project=os.environ["GOOGLE_CLOUD_PROJECT"], location="us-central1")
    name = vertex_ray.create_ray_cluster(
        head_node_type=Resources(machine_type="n1-standard-16"),
        worker_node_types=[
            Resources(machine_type="n1-standard-16", autoscaling_spec=AutoscalingSpec(1, 3)),
        ],
        cluster_name="scales",
    )
    jobs = JobSubmissionClient(f"vertex_ray://{name}")
    job = jobs.submit_job(entrypoint=f"python -c '{SCRIPT}'")
    states, counts = [], []

    def look() -> int:
        cluster = vertex_ray.get_ray_cluster(name)
        states.append(cluster.state)
        counts.append(1 + sum(each.node_count for each in cluster.worker_node_types))
        return counts[-1]

    deadline = time.monotonic() + 400
    while (status := jobs.get_job_status(job)) not in (JobStatus.SUCCEEDED, JobStatus.FAILED):
        look()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{status} {states} {counts} {jobs.get_job_logs(job)}")
    tell("grown", status=str(status), logs=jobs.get_job_logs(job), states=sorted(set(states)), most=max(counts))
    while look() > min(counts):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{states} {counts}")
    tell("shrunk", counts=counts[-1])
    vertex_ray.delete_ray_cluster(name)


if __name__ == "__main__":
    main()
