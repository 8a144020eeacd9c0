"""What a spec takes, gives and means; the rules are in test_cluster_spec_rules."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.cluster_spec import (
    AutoscalingSpec,
    ClusterSpec,
    NfsMount,
    NodeImages,
    PscIConfig,
    Resources,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from tests.support.specs import LOCATIONS, spec_fields

WORKERS = Resources(machine_type="n1-standard-32", node_count=3)


@dataclasses.dataclass
class ForeignAutoscaling:
    min_replica_count: int = 1
    max_replica_count: int = 2


@dataclasses.dataclass
class ForeignResources:
    """As the SDK's: mutable, of another module, and one day with a field that we do not know."""

    machine_type: str = "n1-standard-16"
    node_count: int = 1
    accelerator_type: str | None = None
    accelerator_count: int = 0
    boot_disk_type: str = "pd-ssd"
    boot_disk_size_gb: int = 100
    custom_image: str | None = None
    autoscaling_spec: ForeignAutoscaling | None = None
    spot: bool = False


def test_the_body_of_a_full_spec() -> None:
    spec = ClusterSpec(
        head_node_type=Resources(),
        worker_node_types=[
            Resources(
                machine_type="n1-standard-32",
                accelerator_type="NVIDIA_TESLA_T4",
                accelerator_count=2,
                boot_disk_type="pd-standard",
                boot_disk_size_gb=500,
                autoscaling_spec=AutoscalingSpec(2, 5),
            ),
            Resources(node_count=4),
        ],
        network="projects/123/global/networks/net",
        reserved_ip_ranges=["range-a"],
        service_account="ray@my-project.iam.gserviceaccount.com",
        enable_metrics_collection=False,
        nfs_mounts=[NfsMount("10.0.0.2", "/share", "data")],
        labels={"team": "etl"},
        encryption_spec_key_name="projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k",
    )
    assert spec.to_persistent_resource("europe-west4") == {
        "resourcePools": [
            {
                "id": "head-node",
                "machineSpec": {"machineType": "n1-standard-16"},
                "diskSpec": {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 100},
                "replicaCount": "5",
            },
            {
                "id": "worker-pool1",
                "machineSpec": {
                    "machineType": "n1-standard-32",
                    "acceleratorType": "NVIDIA_TESLA_T4",
                    "acceleratorCount": 2,
                },
                "diskSpec": {"bootDiskType": "pd-standard", "bootDiskSizeGb": 500},
                "autoscalingSpec": {"minReplicaCount": "2", "maxReplicaCount": "5"},
            },
        ],
        "resourceRuntimeSpec": {
            "raySpec": {
                "resourcePoolImages": {
                    "head-node": "europe-docker.pkg.dev/vertex-ai/training/ray-cpu.2-47.py311:latest",
                    "worker-pool1": "europe-docker.pkg.dev/vertex-ai/training/ray-gpu.2-47.py311:latest",
                },
                "rayMetricSpec": {"disabled": True},
                "rayLogsSpec": {"disabled": False},
                "nfsMounts": [{"server": "10.0.0.2", "path": "/share", "mountPoint": "data"}],
            },
            "serviceAccountSpec": {
                "enableCustomServiceAccount": True,
                "serviceAccount": "ray@my-project.iam.gserviceaccount.com",
            },
        },
        "network": "projects/123/global/networks/net",
        "reservedIpRanges": ["range-a"],
        "encryptionSpec": {"kmsKeyName": "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"},
        "labels": {"team": "etl"},
    }
    assert (spec.node_count(), spec.max_node_count()) == (7, 10)


@given(fields=spec_fields(), location=st.sampled_from(LOCATIONS))
def test_what_is_written_reads_back(fields: dict[str, Any], location: str) -> None:
    spec = ClusterSpec.from_value(fields)
    body = spec.to_persistent_resource(location)
    assert json.loads(json.dumps(body)) == body
    name = f"projects/1/locations/{location}/persistentResources/c"
    for found in (
        ClusterSpec.from_persistent_resource(body, location),
        ClusterSpec.from_persistent_resource({**body, "name": name}),
    ):
        assert found.to_persistent_resource(location) == body
        assert found.spec_hash() == spec.spec_hash()
        assert found.node_count() == spec.node_count()


@given(fields=spec_fields())
def test_dicts_and_specs_are_the_same(fields: dict[str, Any]) -> None:
    spec = ClusterSpec.from_value(fields)
    plain = spec.to_dict()
    assert ClusterSpec.from_value(json.loads(json.dumps(plain))) == spec
    assert ClusterSpec.from_value(spec) is spec
    spec.validate()


def test_a_running_cluster_reads_back_as_what_was_asked_for() -> None:
    spec = ClusterSpec(worker_node_types=[dataclasses.replace(WORKERS, autoscaling_spec=AutoscalingSpec(2, 9))])
    live = spec.to_persistent_resource("us-central1")
    live |= {
        "name": "projects/1/locations/us-central1/persistentResources/c",
        "state": "RUNNING",
        "labels": {"owner": "somebody"},
        "resourceRuntime": {"accessUris": {"RAY_DASHBOARD_URI": "x"}},
    }
    live["resourcePools"][1] |= {"replicaCount": "6", "usedReplicaCount": "6"}
    found = ClusterSpec.from_persistent_resource(live)
    assert found.spec_hash() == spec.spec_hash()
    assert found.labels == {"owner": "somebody"}


def test_the_head_may_be_named_instead_of_first() -> None:
    body = ClusterSpec(worker_node_types=[WORKERS]).to_persistent_resource("us-central1")
    body["resourcePools"].reverse()
    body["resourceRuntimeSpec"]["raySpec"]["headNodeResourcePoolId"] = "head-node"
    found = ClusterSpec.from_persistent_resource(body)
    assert found.head_node_type.machine_type == "n1-standard-16"
    assert [worker.node_count for worker in found.worker_node_types] == [3]


def test_a_cluster_that_breaks_our_rules_is_still_readable() -> None:
    body = ClusterSpec().to_persistent_resource("us-central1")
    body["resourcePools"][0]["replicaCount"] = "1"
    found = ClusterSpec.from_persistent_resource(body)
    assert found.worker_node_types == ()
    assert found.node_count() == 1
    assert len(found.spec_hash()) == 12
    with pytest.raises(InvalidArgumentError, match="at least one worker"):
        found.to_persistent_resource("us-central1")


@pytest.mark.parametrize("resource", [{}, {"resourcePools": [{"id": "p"}]}, {"resourceRuntimeSpec": {"raySpec": {}}}])
def test_what_is_not_a_ray_cluster_is_refused(resource: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="Use a Ray cluster"):
        ClusterSpec.from_persistent_resource(resource)


def test_unavailable_version_can_still_be_read() -> None:
    body = ClusterSpec(ray_version="2.42").to_persistent_resource("us-central1")
    images = body["resourceRuntimeSpec"]["raySpec"]["resourcePoolImages"]
    images["head-node"] = images["head-node"].replace("2-42", "2-33")
    found = ClusterSpec.from_persistent_resource(body)
    assert (found.ray_version, found.python_version) == ("2.33", "3.10")


def test_sdk_objects_are_recognised_by_their_attributes() -> None:
    foreign = ForeignResources("n1-standard-32", 3, autoscaling_spec=ForeignAutoscaling(2, 4))
    spec = ClusterSpec(
        head_node_type=ForeignResources(),  # type: ignore[arg-type]
        worker_node_types=[foreign],  # type: ignore[list-item]
        custom_images=SimpleNamespace(head="h:1", worker="w:1"),  # type: ignore[arg-type]
        psc_interface_config=SimpleNamespace(network_attachment="attachment"),  # type: ignore[arg-type]
        nfs_mounts=[SimpleNamespace(server="s", path="/p", mount_point="m")],  # type: ignore[list-item]
    )
    assert spec.worker_node_types[0] == dataclasses.replace(WORKERS, autoscaling_spec=AutoscalingSpec(2, 4))
    assert spec.custom_images == NodeImages("h:1", "w:1")
    assert spec.psc_interface_config == PscIConfig("attachment")
    assert spec.nfs_mounts == (NfsMount("s", "/p", "m"),)
    foreign.node_count = 99
    assert spec.worker_node_types[0].node_count == 3


def test_a_setting_of_a_newer_sdk_is_refused_and_not_lost() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ClusterSpec(worker_node_types=[ForeignResources("n1-standard-32", spot=True)])  # type: ignore[list-item]
    assert caught.value.field == "worker_node_types[0].spot"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"worker_count": 3}, "worker_count"),
        ({"head_node_type": {"machine": "x"}}, "head_node_type.machine"),
        ({"worker_node_types": [{"nodes": 2}]}, "worker_node_types[0].nodes"),
        ({"worker_node_types": [{"autoscaling_spec": {"min": 2}}]}, "worker_node_types[0].autoscaling_spec.min"),
        ({"custom_images": {"workers": "x"}}, "custom_images.workers"),
        ({"nfs_mounts": [{"host": "x"}]}, "nfs_mounts[0].host"),
        ({"psc_interface_config": {"attachment": "x"}}, "psc_interface_config.attachment"),
        ({"worker_node_types": {"node_count": 2}}, "worker_node_types"),
        ({"worker_node_types": "n1-standard-16"}, "worker_node_types"),
        ({"worker_node_types": [3]}, "worker_node_types[0]"),
        ({"head_node_type": PscIConfig("x")}, "head_node_type"),
        ({"reserved_ip_ranges": "range-a"}, "reserved_ip_ranges"),
        ({"labels": ["a"]}, "labels"),
    ],
)
def test_an_unknown_key_or_shape_is_named(value: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ClusterSpec.from_value(value)
    assert caught.value.field == field


def test_only_specs_and_dicts_are_specs() -> None:
    with pytest.raises(InvalidArgumentError, match="Use a ClusterSpec"):
        ClusterSpec.from_value("n1-standard-16")  # type: ignore[arg-type]


def test_numbers_that_jinja_rendered_are_numbers_again() -> None:
    spec = ClusterSpec.from_value({"worker_node_types": [{"machine_type": "n1-standard-32", "node_count": "3"}]})
    assert spec.worker_node_types == (WORKERS,)


@pytest.mark.parametrize(
    ("asked", "python"), [({}, "3.11"), ({"ray_version": "2.42"}, "3.10"), ({"ray_version": "2.47"}, "3.11")]
)
def test_python_follows_ray_as_in_the_sdk(asked: dict[str, str], python: str) -> None:
    assert ClusterSpec.from_value(asked).python_version == python


@pytest.mark.parametrize(
    "other",
    [
        {"worker_node_types": [dataclasses.replace(WORKERS, node_count=4)]},
        {"worker_node_types": [dataclasses.replace(WORKERS, boot_disk_size_gb=101)]},
        {"worker_node_types": [dataclasses.replace(WORKERS, autoscaling_spec=AutoscalingSpec())]},
        {"ray_version": "2.42"},
        {"python_version": "3.10", "ray_version": "2.42"},
        {"enable_logging": False},
        {"network": "projects/1/global/networks/n"},
        {"service_account": "a@b.c"},
        {"nfs_mounts": [NfsMount("s", "/p", "m")]},
        {"encryption_spec_key_name": "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"},
    ],
)
def test_the_hash_tells_specs_apart(other: dict[str, Any]) -> None:
    spec = ClusterSpec(worker_node_types=[WORKERS])
    changed = ClusterSpec.from_value({"worker_node_types": [WORKERS], **other})
    assert changed.spec_hash() != spec.spec_hash()


def test_the_hash_is_stable_and_blind_to_what_is_not_asked_for() -> None:
    # A label on live clusters holds it: it must be the same in every process and every release.
    spec = ClusterSpec(worker_node_types=[WORKERS])
    assert spec.spec_hash() == "5c2e2112195e"
    written_out = ClusterSpec(
        head_node_type=Resources(boot_disk_type=None),
        worker_node_types=[dataclasses.replace(WORKERS, boot_disk_size_gb=None)],
        python_version="3.11",
        labels={"team": "etl"},
    )
    assert written_out.spec_hash() == spec.spec_hash()


def test_extra_labels_take_precedence() -> None:
    spec = ClusterSpec(labels={"team": "etl", "dag": "mine"})
    assert spec.with_labels({"dag": "ours"}).labels == {"team": "etl", "dag": "ours"}
    assert spec.labels == {"team": "etl", "dag": "mine"}
    with pytest.raises(InvalidArgumentError):
        spec.with_labels({"Dag": "ours"})


def test_pools_are_planned_from_the_spec() -> None:
    spec = ClusterSpec(worker_node_types=[Resources(node_count=2), WORKERS])
    head, workers = spec.pools()
    assert (head.pool_id, head.replica_count, head.has_head) == ("head-node", 3, True)
    assert (workers.pool_id, workers.replica_count, workers.has_head) == ("worker-pool2", 3, False)


def test_importing_a_spec_costs_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import airflow_provider_vertex_ray.cluster_spec, airflow_provider_vertex_ray.core.cluster.name\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'airflow_provider_vertex_ray'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
