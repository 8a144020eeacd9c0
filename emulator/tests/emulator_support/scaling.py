"""Clusters with autoscaling pools, and a job for which a node comes and goes."""

from __future__ import annotations

from typing import Any

from emulator_support.process import EmulatorProcess, cluster_body, until


def body(*bounds: tuple[int, int], gpu: int = -1, head: bool = False) -> dict[str, Any]:
    """Return a cluster with a fixed head and one autoscaling pool for each pair of bounds, of 16 CPUs a node."""
    found = cluster_body()
    first, template = found["resourcePools"]
    pools = [first]
    for k, (least, most) in enumerate(bounds):
        pool = first if head else {**template, "id": f"worker-pool{k + 1}"}
        pool.pop("replicaCount")
        pool["autoscalingSpec"] = {"minReplicaCount": least, "maxReplicaCount": most}
        if k == gpu:
            spec = {"machineType": "n1-standard-16", "acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 1}
            pool["machineSpec"] = spec
        if not head:
            pools.append(pool)
    found["resourcePools"] = pools
    images = found["resourceRuntimeSpec"]["raySpec"]["resourcePoolImages"]
    image = next(iter(images.values()))
    found["resourceRuntimeSpec"]["raySpec"]["resourcePoolImages"] = {pool["id"]: image for pool in pools}
    return found


def a_node_comes_and_goes_with_a_job(emulator: EmulatorProcess, cluster_id: str) -> None:
    """Run a job that fits on no node of a cluster whose only pool is empty, and stop it; a node must come, and go."""
    path = f"persistentResources/{cluster_id}"
    uri = emulator.api("GET", path)[1]["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"]
    jobs = "/" + uri.split("/", 1)[1] + "/api/jobs/"
    request = {"entrypoint": "sleep 3600", "submission_id": "job", "entrypoint_num_cpus": 4}
    assert emulator.request("POST", jobs, request, token=emulator.token())[0] == 200

    def status() -> str:
        return str(emulator.request("GET", f"{jobs}job", token=emulator.token())[1]["status"])

    def nodes() -> int:
        return int(emulator.api("GET", path)[1]["resourcePools"][1].get("replicaCount", 0))

    until(lambda: status() == "RUNNING", "the job does not start")
    until(lambda: nodes() == 1, "no node is added")
    assert status() == "RUNNING"
    assert emulator.request("POST", f"{jobs}job/stop", {}, token=emulator.token())[0] == 200
    until(lambda: status() == "STOPPED", "the job does not stop")
    until(lambda: nodes() == 0, "the node stays")
