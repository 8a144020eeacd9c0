"""What this release does not know, used by adding a row of data: end to end on the emulator's instant backend."""

from __future__ import annotations

import json

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from tests.operators.builders import create, delete, resize, submit_job
from tests.support.tasks import run_task

WORKERS = [Resources("n1-standard-8", 1)]


def test_new_ray_version_needs_one_row(
    fake_emulator: EmulatorProcess, deferrable: bool, task_log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"ray": "2.60", "full": "2.60.0", "python": ["3.12"], "ends": "2029-01-31"}
    monkeypatch.setenv("AIRFLOW__VERTEX_RAY__RAY_VERSIONS", json.dumps([row]))
    spec = ClusterSpec(worker_node_types=WORKERS, ray_version="2.60")
    made = run_task(create(spec=spec, deferrable=deferrable))
    assert not any("ray_version" in line for line in task_log)
    images = fake_emulator.api("GET", "persistentResources/made")[1]["resourceRuntimeSpec"]["raySpec"]
    assert set(images["resourcePoolImages"].values()) == {
        "us-docker.pkg.dev/vertex-ai/training/ray-cpu.2-60.py312:latest"
    }
    job = run_task(submit_job("echo hello", made["name"], deferrable=deferrable))
    assert job["cluster_id"] == "made"
    assert run_task(resize("made", {"worker-pool1": 2}, deferrable=deferrable))["node_count"] == 3
    # A shared cluster of that version is found by its spec.
    shared = {"cluster_id": None, "shared_name": "etl", "spec": spec, "on_spec_mismatch": "fail"}
    assert [run_task(create(**shared, deferrable=deferrable))["generation"] for _ in range(2)] == [1, 1]
    assert run_task(delete(made["name"], deferrable=deferrable))["existed"] is True


def test_new_ray_version_without_a_row_only_warns(
    fake_emulator: EmulatorProcess, deferrable: bool, task_log: list[str]
) -> None:
    spec = {"worker_node_types": [{"machine_type": "n1-standard-8"}], "ray_version": "2.60", "python_version": "3.12"}
    assert run_task(create(spec=spec, deferrable=deferrable))["state"] == "RUNNING"
    assert any("does not know an image with Ray 2.60" in line for line in task_log)


def test_disks_and_machines_that_are_new(fake_emulator: EmulatorProcess) -> None:
    workers = [
        Resources("a3-ultragpu-8g", 1, "NVIDIA_H200_141GB", 8),
        Resources("a4x-highgpu-4g", 1, "NVIDIA_GB200", 4),
        Resources("n2-standard-16", 1, boot_disk_type="hyperdisk-balanced"),
    ]
    run_task(create(spec=ClusterSpec(worker_node_types=workers), deferrable=False))
    pools = fake_emulator.api("GET", "persistentResources/made")[1]["resourcePools"]
    assert [pool["diskSpec"]["bootDiskType"] for pool in pools] == ["pd-ssd", *["hyperdisk-balanced"] * 3]
