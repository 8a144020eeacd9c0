"""Google's SDK and Ray's clients, unmodified; all they know of the emulator is their environment."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.request
from unittest import mock

import google.auth
import ray
import vertex_ray
from google.cloud import aiplatform
from ray.job_submission import JobStatus, JobSubmissionClient
from stages import tell
from vertex_ray import Resources

PROJECT = os.environ["GOOGLE_CLOUD_PROJECT"]


def finished(client: JobSubmissionClient, job: str) -> str:
    deadline = time.monotonic() + 240
    while (status := client.get_job_status(job)) not in (
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.STOPPED,
    ):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{job} is {status}")
        time.sleep(0.2)
    return str(status)


async def tail(client: JobSubmissionClient, job: str) -> str:
    return "".join([lines async for lines in client.tail_job_logs(job)])


def revoke_tokens() -> None:
    host = os.environ["VERTEX_RAY_EMULATOR_HOST"]
    request = urllib.request.Request(f"http://{host}/emulator/tokens/revoke", b"{}", method="POST")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=240).close()


def main() -> None:
    aiplatform.init(project=PROJECT, location="us-central1")
    with mock.patch.object(time, "sleep", wraps=time.sleep) as sleep:
        name = vertex_ray.create_ray_cluster(
            head_node_type=Resources(machine_type="n1-standard-16"),
            worker_node_types=[Resources(machine_type="n1-standard-8", node_count=1)],
            cluster_name="from-sdk",
            labels={"team": "a"},
        )
    tell("create", name=name, longest_sleep=max((each.args[0] for each in sleep.call_args_list), default=0))

    cluster = vertex_ray.get_ray_cluster(name)
    tell(
        "get",
        state=cluster.state,
        versions=[cluster.ray_version, cluster.python_version],
        labels=dict(cluster.labels),
        head=cluster.head_node_type.machine_type,
        workers=[[each.machine_type, each.node_count] for each in cluster.worker_node_types],
        dashboard=cluster.dashboard_address,
    )
    tell("list", names=[each.cluster_resource_name for each in vertex_ray.list_ray_clusters()])

    jobs = JobSubmissionClient(f"vertex_ray://{name}")
    job = jobs.submit_job(entrypoint="echo hello from a job")
    tell("job", status=finished(jobs, job), logs=jobs.get_job_logs(job), tail=asyncio.run(tail(jobs, job)))

    context = ray.init(f"vertex_ray://{name}")

    @ray.remote(num_cpus=1)
    def square(x: int) -> int:
        return x * x

    squares = ray.get([square.remote(x) for x in range(4)])
    tell("client", squares=squares, cpus=ray.cluster_resources().get("CPU"), python=context.python_version)
    ray.shutdown()

    workers = cluster.worker_node_types
    workers[0].node_count = 2
    updated = vertex_ray.update_ray_cluster(name, worker_node_types=workers)
    counts = [each.node_count for each in vertex_ray.get_ray_cluster(name).worker_node_types]
    tell("update", name=updated, counts=counts)

    revoke_tokens()
    try:
        jobs.list_jobs()
        refused = ""
    except RuntimeError as error:
        refused = str(error)
    # The SDK's own clients keep theirs, too, until it nears its end.
    aiplatform.init(credentials=google.auth.default()[0])
    renewed = JobSubmissionClient(f"vertex_ray://{name}").list_jobs()
    tell("tokens", refused=refused, renewed=[each.submission_id for each in renewed], job=job)

    try:
        vertex_ray.create_ray_cluster(cluster_name="from-sdk", worker_node_types=[Resources()])
        again = ""
    except ValueError as error:
        again = str(error)
    tell("again", error=again)

    vertex_ray.delete_ray_cluster(name)
    deadline = time.monotonic() + 240
    while vertex_ray.list_ray_clusters():
        if time.monotonic() > deadline:
            raise TimeoutError("the cluster is still listed")
        time.sleep(0.1)
    tell("delete")


if __name__ == "__main__":
    main()
