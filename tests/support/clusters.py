"""Clusters and operators that many tests want."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources

LOCATION = "us-central1"
SPEC = ClusterSpec(worker_node_types=[Resources(machine_type="n1-standard-8", node_count=2)])

BODY: dict[str, Any] = SPEC.to_persistent_resource(LOCATION)


def full_name(cluster_id: str, project: str = "demo-project") -> str:
    return f"projects/{project}/locations/{LOCATION}/persistentResources/{cluster_id}"


def start(emulator: EmulatorProcess, cluster_id: str = "shared", **more: Any) -> str:
    """A running cluster with a head and two workers, made by nobody in particular; gives its id."""
    found = emulator.create(cluster_id, {**BODY, **more})
    assert found["state"] == "RUNNING", found
    return cluster_id


@contextmanager
def stuck_until_a_delete(emulator: EmulatorProcess, cluster_id: str, state: str = "ERROR") -> Iterator[None]:
    """What is created in the block stays PROVISIONING until somebody has tried to delete it, which is refused."""

    def work() -> None:
        until(lambda: emulator.calls("DeletePersistentResource"), "nobody deletes it")
        emulator.admin("POST", f"clusters/{cluster_id}/state", {"state": state})

    with emulator.fault(scope="provisioning", outcome="stuck"), ThreadPoolExecutor(1) as pool:
        released = pool.submit(work)
        yield
    released.result()


def cluster_ids(emulator: EmulatorProcess) -> list[str]:
    return [cluster["id"] for cluster in emulator.admin("GET", "clusters")["clusters"]]


def dashboard_of(emulator: EmulatorProcess, cluster_id: str) -> str:
    """The dashboard's path on the emulator's main port: ``/<host>``."""
    found = emulator.api("GET", f"persistentResources/{cluster_id}")[1]
    uri = found["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"]
    return "/" + str(uri).rsplit("/", 1)[-1]


def page_of(emulator: EmulatorProcess, cluster_id: str) -> str:
    """The address of the cluster's dashboard for a browser."""
    return f"http://{emulator.host}/emulator/dashboards{dashboard_of(emulator, cluster_id)}"


def jobs_of(emulator: EmulatorProcess, cluster_id: str) -> dict[str, dict[str, Any]]:
    """What the cluster itself says of its jobs, by submission id."""
    status, jobs = emulator.request("GET", f"{dashboard_of(emulator, cluster_id)}/api/jobs/", token=emulator.token())
    assert status == 200, jobs
    return {job["submission_id"]: job for job in jobs}


def until_exists(file: Path) -> str:
    """A command for an entrypoint: it runs until there is a file."""
    return f"until [ -e {file} ]; do sleep 0.1; done"


def submit(emulator: EmulatorProcess, cluster_id: str, submission_id: str, entrypoint: str, **more: Any) -> None:
    """A job that is submitted by somebody else."""
    body = {"entrypoint": entrypoint, "submission_id": submission_id, **more}
    path = f"{dashboard_of(emulator, cluster_id)}/api/jobs/"
    status, answer = emulator.request("POST", path, body, token=emulator.token())
    assert status == 200, answer
