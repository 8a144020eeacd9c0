"""Versions as data: a version that this package does not know needs one row in an option."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.core.cluster.pools import official_image, parse_official_image
from airflow_provider_vertex_ray.core.cluster.versions import known_versions, newest_version
from airflow_provider_vertex_ray.core.preflight.ray_versions import full_version, pair_finding
from airflow_provider_vertex_ray.core.preflight.report import Status
from airflow_provider_vertex_ray.errors import InvalidArgumentError

VARIABLE = "AIRFLOW__VERTEX_RAY__RAY_VERSIONS"
ROW = {"ray": "2.60", "full": "2.60.3", "python": ["3.12"], "ends": "2029-01-31"}
WORKERS = [Resources("n1-standard-8", 2)]


@pytest.fixture(params=["inline", "file"])
def one_row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = json.dumps([ROW])
    if request.param == "file":
        path = tmp_path / "versions.json"
        path.write_text(text)
        text = str(path)
    monkeypatch.setenv(VARIABLE, text)


def test_version_without_a_row_warns_and_is_requested() -> None:
    spec = ClusterSpec(worker_node_types=WORKERS, ray_version="2.60", python_version="3.12")
    assert any("Ray 2.60" in warning for warning in spec.warnings())
    images = spec.to_persistent_resource("us-central1")["resourceRuntimeSpec"]["raySpec"]["resourcePoolImages"]
    assert set(images.values()) == {"us-docker.pkg.dev/vertex-ai/training/ray-cpu.2-60.py312:latest"}


@pytest.mark.usefixtures("one_row")
def test_one_row_makes_a_version_known() -> None:
    spec = ClusterSpec(worker_node_types=WORKERS, ray_version="2.60")
    assert (spec.python_version, spec.warnings()) == ("3.12", [])
    assert full_version("2.60") == "2.60.3"
    assert newest_version().ray == "2.60"
    assert pair_finding("2.60", "3.12", date(2028, 1, 1)).status is Status.PASS
    assert pair_finding("2.60", "3.12", date(2028, 12, 1)).status is Status.WARN
    assert pair_finding("2.60", "3.12", date(2029, 2, 1)).status is Status.FAIL
    body = spec.to_persistent_resource("europe-west4")
    name = "projects/p/locations/europe-west4/persistentResources/x"
    again = ClusterSpec.from_persistent_resource({**body, "name": name})
    assert (again.ray_version, again.python_version, again.head_node_type.custom_image) == ("2.60", "3.12", None)
    assert again.spec_hash() == spec.spec_hash()


def test_row_may_name_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    image = "{region}-docker.pkg.dev/vertex-ai/ray/{device}.{ray}.py{python}:stable"
    monkeypatch.setenv(VARIABLE, json.dumps([{**ROW, "image": image}]))
    address = official_image("asia", "2.60", "3.12", gpu=True)
    assert address == "asia-docker.pkg.dev/vertex-ai/ray/gpu.2-60.py312:stable"
    found = parse_official_image(address)
    assert found is not None
    assert (found.prefix, found.ray_version, found.python_version, found.gpu) == ("asia", "2.60", "3.12", True)
    assert parse_official_image("us-docker.pkg.dev/mine/ray:1") is None
    assert parse_official_image(official_image("us", "2.47", "3.11", gpu=False)) is not None


def test_row_replaces_the_one_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps([{"ray": "2.47", "python": ["3.11", "3.12"], "ended": True}]))
    assert known_versions()["2.47"].ended
    with pytest.raises(InvalidArgumentError, match="does not offer this version"):
        ClusterSpec(worker_node_types=WORKERS, ray_version="2.47")


def test_changed_file_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "versions.json"
    path.write_text("[]")
    monkeypatch.setenv(VARIABLE, str(path))
    assert "2.60" not in known_versions()
    path.write_text(json.dumps([ROW]))
    os.utime(path, ns=(1, 1))
    assert "2.60" in known_versions()


@pytest.mark.parametrize(
    "value",
    [
        "[",
        "[3]",
        "{}",
        "/nowhere/versions.json",
        json.dumps([{"ray": "2.60"}]),
        json.dumps([{"ray": "2.60", "python": []}]),
        json.dumps([{"ray": "2.60.1", "python": ["3.12"]}]),
        json.dumps([{"ray": "2.60", "python": "3.12"}]),
        json.dumps([{"ray": "2.60", "python": ["312"]}]),
        json.dumps([{**ROW, "ends": "soon"}]),
        json.dumps([{**ROW, "end": "2029-01-31"}]),
        json.dumps([{**ROW, "full": 2.6}]),
    ],
)
def test_malformed_rows_are_rejected(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(InvalidArgumentError, match=r"\[vertex_ray\] ray_versions"):
        ClusterSpec(worker_node_types=WORKERS)


def test_version_in_full_is_explained() -> None:
    with pytest.raises(InvalidArgumentError, match=r"Did you mean 2\.47\?"):
        ClusterSpec(worker_node_types=WORKERS, ray_version="2.47.1")


def test_existing_cluster_with_an_unknown_version_is_read() -> None:
    image = "us-docker.pkg.dev/vertex-ai/training/ray-cpu.2-54.py312:latest"
    pool: dict[str, Any] = {"id": "head-node", "machineSpec": {"machineType": "n1-standard-16"}, "replicaCount": "2"}
    resource = {
        "name": "projects/1/locations/us-central1/persistentResources/x",
        "resourcePools": [pool],
        "resourceRuntimeSpec": {"raySpec": {"resourcePoolImages": {"head-node": image}}},
    }
    spec = ClusterSpec.from_persistent_resource(resource)
    assert (spec.ray_version, spec.python_version, spec.head_node_type.custom_image) == ("2.54", "3.12", None)
    spec.to_persistent_resource("us-central1")
