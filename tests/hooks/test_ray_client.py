"""The Ray Client: what is checked before anything is connected. Connected it is in test_connect.py."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    ClusterNotFoundError,
    DashboardNotReadyError,
    InvalidArgumentError,
    NotARayClusterError,
    RayClientConnectedError,
    RayClientVersionError,
)
from airflow_provider_vertex_ray.hooks import ray_client
from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterHook
from airflow_provider_vertex_ray.hooks.ray_client import SDK_VARIABLES, check_usable, check_versions, image_versions
from tests.support.clusters import BODY, LOCATION, start

IMAGE = "us-docker.pkg.dev/vertex-ai/training/ray-cpu.2-47.py311:latest"


def cluster(spec: dict[str, Any] | None = None) -> Cluster:
    return Cluster.from_resource(
        {
            "name": f"projects/p/locations/{LOCATION}/persistentResources/shared",
            "state": "RUNNING",
            "resourcePools": [{"id": "head-node", "replicaCount": "1"}],
            "resourceRuntimeSpec": {"raySpec": {"imageUri": IMAGE} if spec is None else spec},
            "resourceRuntime": {"accessUris": {"RAY_DASHBOARD_URI": "x.aiplatform-training.googleusercontent.com"}},
        }
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make this process look like another one."""

    def look(ray: str | None, python: str) -> None:
        monkeypatch.setattr(ray_client, "_installed", lambda: ray)
        monkeypatch.setattr(ray_client, "_own_python", lambda: python)

    return look


def test_equal_versions_pass(here: Any) -> None:
    here("2.47.1", "3.11")
    check_versions(cluster(), "2.47.1", "3.11.9")
    check_versions(cluster(), "2.47.1", "3.11")
    # Ray itself compares unknown versions.
    check_versions(cluster(), None, None)


@pytest.mark.parametrize(
    ("ray", "python", "said", "where"),
    [
        ("2.48.0", "3.11", "this process has Ray 2.48.0.", "."),
        (None, "3.11", "this process does not have Ray.", "."),
        ("2.47.1", "3.12", "this process runs Python 3.12.", " in a Python 3.11, where the task must run"),
        (
            None,
            "3.13",
            "this process runs Python 3.13 and does not have Ray.",
            " in a Python 3.11, where the task must run",
        ),
    ],
)
def test_different_versions_name_what_to_install(
    here: Any, ray: str | None, python: str, said: str, where: str
) -> None:
    here(ray, python)
    with pytest.raises(RayClientVersionError) as caught:
        check_versions(cluster(), "2.47.1", "3.11.9")
    text = str(caught.value)
    assert f"Cluster shared runs Ray 2.47.1 on Python 3.11, but {said}" in text
    assert f"pip install 'google-cloud-aiplatform[ray]' 'ray[client]==2.47.1'{where}" in text
    assert caught.value.details["ray_version"] == "2.47.1"
    assert caught.value.details["python_version"] == "3.11"


def test_versions_are_read_from_the_image() -> None:
    assert image_versions(cluster()) == ("2.47.1", "3.11")
    gpu = {"resourcePoolImages": {"head-node": IMAGE.replace("cpu.2-47.py311", "gpu.2-42.py310"), "other": IMAGE}}
    assert image_versions(cluster(gpu)) == ("2.42.0", "3.10")
    assert image_versions(cluster({"imageUri": "us-docker.pkg.dev/mine/ray:latest"})) == (None, None)
    assert image_versions(cluster({})) == (None, None)


@pytest.fixture
def hook(fake_emulator: EmulatorProcess) -> VertexRayClusterHook:
    return VertexRayClusterHook(location=LOCATION)


def test_cluster_with_another_ray_version_is_rejected(
    hook: VertexRayClusterHook, fake_emulator: EmulatorProcess, here: Any
) -> None:
    start(fake_emulator)
    here("2.42.0", "3.11")
    with pytest.raises(RayClientVersionError, match=r"'ray\[client\]==2\.47\.1'"), hook.connect("shared"):
        raise AssertionError("connected")


def test_missing_emulator_variables_are_named(
    hook: VertexRayClusterHook, fake_emulator: EmulatorProcess, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without them the SDK would take the emulator's token to Google.
    for variable in SDK_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    start(fake_emulator)
    here("2.47.1", "3.11")
    with pytest.raises(InvalidArgumentError, match="vertex-ray-emulator env"), hook.connect("shared"):
        raise AssertionError("connected")
    assert set(SDK_VARIABLES) <= set(fake_emulator.env)


@pytest.mark.parametrize("local", [True, False])
def test_connected_process_is_rejected(
    hook: VertexRayClusterHook, fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    clients = SimpleNamespace(num_connected_contexts=lambda: int(not local))
    fake = SimpleNamespace(is_initialized=lambda: local, util=SimpleNamespace(client=clients))
    monkeypatch.setitem(sys.modules, "ray", fake)
    with pytest.raises(RayClientConnectedError, match="already connected to Ray"), hook.connect("shared"):
        raise AssertionError("connected")
    assert fake_emulator.calls() == []


def test_connection_that_was_refused_leaves_the_one_of_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # The other thread connects while this one reads the cluster's versions.
    outcomes = iter([None, RayClientConnectedError("This process is already connected to Ray.")])

    def check() -> None:
        if (error := next(outcomes)) is not None:
            raise error

    async def versions(*_: Any) -> tuple[str, str]:
        return "2.47.1", "3.11"

    shut_down: list[bool] = []
    monkeypatch.setattr(ray_client, "check_not_connected", check)
    monkeypatch.setattr(ray_client, "_versions", versions)
    monkeypatch.setattr(ray_client, "check_versions", lambda *_: None)
    monkeypatch.setattr(ray_client, "_import_ray", lambda *_: SimpleNamespace(shutdown=lambda: shut_down.append(True)))
    nothing: Any = None
    with pytest.raises(RayClientConnectedError), ray_client.connected(nothing, nothing, cluster(), {}):
        raise AssertionError("connected")
    assert shut_down == []


@pytest.mark.parametrize(
    ("state", "kind"),
    [("PROVISIONING", DashboardNotReadyError), ("STOPPING", ClusterFailedError), ("ERROR", ClusterFailedError)],
)
def test_cluster_that_is_not_running_is_rejected(
    hook: VertexRayClusterHook, fake_emulator: EmulatorProcess, state: str, kind: type[Exception]
) -> None:
    start(fake_emulator)
    fake_emulator.admin("POST", "clusters/shared/state", {"state": state})
    with pytest.raises(kind, match="shared"), hook.connect("shared"):
        raise AssertionError("connected")


def test_cluster_that_autoscales_is_usable() -> None:
    for state in ("RUNNING", "UPDATING"):
        check_usable(Cluster.from_resource({**cluster().resource, "state": state}))
    for state in ("PROVISIONING", "REBOOTING", "STATE_UNSPECIFIED"):
        with pytest.raises(DashboardNotReadyError, match=state):
            check_usable(Cluster.from_resource({**cluster().resource, "state": state}))


def test_missing_clusters_and_other_resources_have_typed_errors(
    hook: VertexRayClusterHook, fake_emulator: EmulatorProcess
) -> None:
    fake_emulator.create("plain", {"resourcePools": BODY["resourcePools"]})
    for name, kind in (("plain", NotARayClusterError), ("nothing", ClusterNotFoundError)):
        with pytest.raises(kind), hook.connect(name):
            raise AssertionError("connected")
