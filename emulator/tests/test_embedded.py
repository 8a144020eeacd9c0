"""The emulator in a notebook, and as a plugin of pytest, in a project of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import vertex_ray_emulator
from emulator_support.process import PATIENCE, until
from vertex_ray_emulator import EmulatorStartError, start

SOURCE = str(Path(vertex_ray_emulator.__file__).parents[1])
NOTEBOOK = """
import os
import vertex_ray_emulator

emulator = vertex_ray_emulator.start("--backend", "fake", "--project", "my-project")

from google.api_core.exceptions import NotFound
from google.cloud import aiplatform
from google.cloud.aiplatform_v1beta1 import PersistentResourceServiceClient

assert os.environ["VERTEX_RAY_EMULATOR_HOST"] == emulator.host
client = PersistentResourceServiceClient(client_options={"api_endpoint": "us-central1-aiplatform.googleapis.com"})
parent = f"projects/{emulator.project}/locations/us-central1"
assert list(client.list_persistent_resources(parent=parent)) == []
print("pid", emulator._process.pid, flush=True)
"""
TESTS = """
import json, os, urllib.request

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def clusters(emulator):
    with OPENER.open(f"http://{emulator.host}/emulator/clusters") as answer:
        return json.load(answer)["clusters"]


def token(emulator):
    address = f"http://{emulator.host}/computeMetadata/v1/instance/service-accounts/default/token"
    request = urllib.request.Request(address, headers={"Metadata-Flavor": "Google"})
    with OPENER.open(request) as answer:
        return json.load(answer)["access_token"]


def test_one(vertex_ray_emulator):
    assert os.environ["VERTEX_RAY_EMULATOR_HOST"] == vertex_ray_emulator.host
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == "of-the-ini"
    path = "v1/projects/of-the-ini/locations/us-central1/persistentResources?persistentResourceId=c1"
    pools = [
        {"id": name, "replicaCount": "1", "machineSpec": {"machineType": "n1-standard-16"}} for name in ("head", "work")
    ]
    image = "us-docker.pkg.dev/vertex-ai/training/ray-cpu.2-47.py311:latest"
    ray = {"resourcePoolImages": {"head": image, "work": image}}
    body = {"resourcePools": pools, "resourceRuntimeSpec": {"raySpec": ray}}
    headers = {"Authorization": f"Bearer {token(vertex_ray_emulator)}"}
    request = urllib.request.Request(f"http://{vertex_ray_emulator.host}/{path}", json.dumps(body).encode(), headers)
    OPENER.open(request).close()
    assert len(clusters(vertex_ray_emulator)) == 1


def test_two(vertex_ray_emulator):
    assert clusters(vertex_ray_emulator) == []


def test_three():
    assert "VERTEX_RAY_EMULATOR_HOST" not in os.environ
"""


def clean_environment() -> dict[str, str]:
    # google.auth waits 3 s for the metadata server by default.
    return {**os.environ, "PYTHONPATH": SOURCE, "PYTEST_ADDOPTS": "", "GCE_METADATA_TIMEOUT": "60"}


def test_notebook_form_with_an_unmodified_client(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NOTEBOOK]
    environment = clean_environment()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    pid = int(done.stdout.split()[1])
    # The notebook's process has ended without a stop.
    until(lambda: not psutil.pid_exists(pid))


def test_context_manager_restores_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", "before")
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    with start("--backend", "fake") as emulator:
        assert os.environ["VERTEX_RAY_EMULATOR_HOST"] == os.environ["GCE_METADATA_HOST"] == emulator.host
        process = psutil.Process(emulator._process.pid)
    assert os.environ["VERTEX_RAY_EMULATOR_HOST"] == "before"
    assert "GCE_METADATA_HOST" not in os.environ
    assert not process.is_running()
    emulator.stop()


def test_start_that_fails_says_why() -> None:
    # The exit code says that the end of the process was seen, not the end of the time for the start.
    with pytest.raises(EmulatorStartError, match="(?s)exited with code 2:.*Invalid value for without: 'darkness'"):
        start("--without", "darkness")


def test_pytest_plugin_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nvertex_ray_emulator_args = --backend fake --project of-the-ini\n")
    environment = {k: v for k, v in clean_environment().items() if k != "VERTEX_RAY_EMULATOR_HOST"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if "vertex_ray_emulator.pytest_plugin" not in installed_plugins():
        command += ["-p", "vertex_ray_emulator.pytest_plugin"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def installed_plugins() -> set[str]:
    """Return the plugins that pytest finds by itself: none of ours if the distribution is on the path only."""
    from importlib.metadata import entry_points

    return {each.value for each in entry_points(group="pytest11")}
