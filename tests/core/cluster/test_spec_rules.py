"""Each rule: what breaks it is refused by name, and what just keeps to it passes."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec
from airflow_provider_vertex_ray.errors import InvalidArgumentError

WORKER: dict[str, Any] = {"machine_type": "n1-standard-32"}
NETWORK = "projects/123/global/networks/net"
KEY = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
ATTACHMENT = "projects/123/regions/us-central1/networkAttachments/a"
NFS = {"server": "10.0.0.2", "path": "/share", "mount_point": "data"}
IMAGE = "us-docker.pkg.dev/p/r/i:1"


def worker(**fields: Any) -> dict[str, Any]:
    return {"worker_node_types": [{**WORKER, **fields}]}


def nodes(*counts: int) -> dict[str, Any]:
    return {
        "worker_node_types": [
            {"machine_type": f"n2-standard-{2 ** (place + 3)}", "node_count": count}
            for place, count in enumerate(counts)
        ]
    }


def bounds(low: object, high: object) -> dict[str, Any]:
    return worker(autoscaling_spec={"min_replica_count": low, "max_replica_count": high})


def gpu(machine: str, accelerator: str | None, count: int, **fields: Any) -> dict[str, Any]:
    return {
        "worker_node_types": [
            {"machine_type": machine, "accelerator_type": accelerator, "accelerator_count": count, **fields}
        ]
    }


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"worker_node_types": []}, "worker_node_types"),
    ({"worker_node_types": None}, "worker_node_types"),
    # Counts
    *[(worker(node_count=count), "worker_node_types[0].node_count") for count in (0, -1, True, 1.5, "two", None)],
    ({"head_node_type": {"node_count": 2}}, "head_node_type.node_count"),
    ({"head_node_type": {"node_count": 0}}, "head_node_type.node_count"),
    ({"head_node_type": {"autoscaling_spec": {}}}, "head_node_type.autoscaling_spec"),
    (nodes(1001), "worker_node_types"),
    (nodes(1000, 1000), "worker_node_types"),
    ({"worker_node_types": [{"node_count": 1000}]}, "worker_node_types"),
    (bounds(-1, 2), "worker_node_types[0].autoscaling_spec.min_replica_count"),
    (bounds(0, 0), "worker_node_types[0].autoscaling_spec.max_replica_count"),
    # The bounds of workers in the head's pool include the head.
    (
        {"worker_node_types": [{"autoscaling_spec": {"min_replica_count": 0, "max_replica_count": 2}}]},
        "worker_node_types[0].autoscaling_spec.min_replica_count",
    ),
    (bounds(True, 2), "worker_node_types[0].autoscaling_spec.min_replica_count"),
    (bounds(3, 2), "worker_node_types[0].autoscaling_spec.max_replica_count"),
    (bounds(2, 2), "worker_node_types[0].autoscaling_spec.max_replica_count"),
    (bounds(1, 1001), "worker_node_types[0].autoscaling_spec.max_replica_count"),
    # Machines
    *[(worker(machine_type=kind), "worker_node_types[0].machine_type") for kind in ("", None, "big", "N1-standard-8")],
    *[(worker(machine_type=kind), "worker_node_types[0].machine_type") for kind in ("ct5lp-hightpu-1t", "tpu-v5-1")],
    *[
        ({"head_node_type": {"machine_type": f"n1-standard-{cpus}"}}, "head_node_type.machine_type")
        for cpus in (1, 2, 4, 8)
    ],
    # Heads below 16 vCPUs or 60 GB
    *[
        ({"head_node_type": {"machine_type": kind}}, "head_node_type.machine_type")
        for kind in ("n1-highmem-8", "n1-highcpu-16", "n1-highcpu-64", "n2-standard-8", "e2-highmem-8", "c2-standard-8")
    ],
    ({"head_node_type": {"machine_type": "n1-standard-4"}, "allow_small_head": True}, "head_node_type.machine_type"),
    ({"allow_small_head": "yes"}, "allow_small_head"),
    # Accelerators
    (worker(accelerator_type="NVIDIA_TESLA_T4"), "worker_node_types[0].accelerator_count"),
    (worker(accelerator_count=1), "worker_node_types[0].accelerator_type"),
    (worker(accelerator_type="NVIDIA_TESLA_T4", accelerator_count=-1), "worker_node_types[0].accelerator_count"),
    (worker(accelerator_type="nvidia-tesla-t4", accelerator_count=1), "worker_node_types[0].accelerator_type"),
    (worker(accelerator_type="TPU_V3", accelerator_count=1), "worker_node_types[0].accelerator_type"),
    # Disks
    *[(worker(boot_disk_size_gb=size), "worker_node_types[0].boot_disk_size_gb") for size in (99, 64_001, 0, True)],
    (worker(boot_disk_type="pd-balanced"), "worker_node_types[0].boot_disk_type"),
    (
        gpu("a3-ultragpu-8g", "NVIDIA_H200_141GB", 8, boot_disk_type="pd-standard"),
        "worker_node_types[0].boot_disk_type",
    ),
    # Images
    ({"custom_images": {"head": IMAGE}}, "custom_images.worker"),
    ({"custom_images": {"worker": IMAGE}}, "custom_images.head"),
    ({"custom_images": {"head": IMAGE, "worker": " "}}, "custom_images.worker"),
    (worker(custom_image=""), "worker_node_types[0].custom_image"),
    # Workers in the head's pool
    ({"worker_node_types": [{"boot_disk_type": "pd-standard"}]}, "worker_node_types[0].boot_disk_type"),
    ({"worker_node_types": [{"boot_disk_size_gb": 200}]}, "worker_node_types[0].boot_disk_size_gb"),
    ({"worker_node_types": [{"custom_image": IMAGE}]}, "worker_node_types[0].custom_image"),
    ({"custom_images": {"head": IMAGE, "worker": IMAGE + "2"}}, "custom_images.worker"),
    # Several types in the head's pool, of which one autoscales: the SDK silently drops one
    ({"worker_node_types": [WORKER, {}, {"autoscaling_spec": {}}]}, "worker_node_types[2]"),
    ({"worker_node_types": [{"autoscaling_spec": {}}, {"autoscaling_spec": {}}]}, "worker_node_types[0]"),
    # Versions
    *[
        ({"ray_version": ray}, "ray_version")
        for ray in ("1.13", "2.9", "2.33", "2.45", "2.47.1", "two", "2", "", None, 2.47)
    ],
    *[({"python_version": python}, "python_version") for python in ("3", "3.11.9", "py311", "", 3.11)],
    # Networks
    *[
        ({"network": network}, "network")
        for network in ("net", "projects/my-project/global/networks/net", "projects/1/global/networks/Net")
    ],
    ({"network": NETWORK, "psc_interface_config": {"network_attachment": "a"}}, "psc_interface_config"),
    ({"psc_interface_config": {}}, "psc_interface_config.network_attachment"),
    ({"psc_interface_config": {"network_attachment": "a/b"}}, "psc_interface_config.network_attachment"),
    ({"reserved_ip_ranges": ["range-a"]}, "reserved_ip_ranges"),
    ({"network": NETWORK, "reserved_ip_ranges": ["10.0.0.0/8"]}, "reserved_ip_ranges[0]"),
    # Mounts
    *[({"nfs_mounts": [NFS, {**NFS, name: None}]}, f"nfs_mounts[1].{name}") for name in NFS],
    ({"nfs_mounts": [{**NFS, "path": "share"}]}, "nfs_mounts[0].path"),
    # Labels
    *[({"labels": {key: "v"}}, "labels") for key in ("", "Team", "1st", "-a", "a.b", "a" * 64, "字" * 43)],
    *[({"labels": {"k": value}}, "labels['k']") for value in ("Etl", "a b", "a" * 64, 3, None)],
    ({"labels": {f"k{number}": "" for number in range(65)}}, "labels"),
    # The rest
    ({"service_account": "ray"}, "service_account"),
    ({"encryption_spec_key_name": "my-key"}, "encryption_spec_key_name"),
    ({"enable_logging": "yes"}, "enable_logging"),
    ({"enable_metrics_collection": None}, "enable_metrics_collection"),
]


@pytest.mark.parametrize(("fields", "field"), REFUSED)
def test_invalid_spec_names_the_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ClusterSpec.from_value(fields)
    assert caught.value.field == field
    assert field in str(caught.value)
    assert caught.value.rule in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        nodes(1000),
        nodes(1000, 999),
        {"worker_node_types": [{"node_count": 999}]},
        bounds(1, 1000),
        bounds(0, 1),
        bounds(0, 1000),
        {"worker_node_types": [{}, {}, {}]},
        {"worker_node_types": [WORKER, {**WORKER, "node_count": 3}]},
        {"worker_node_types": [WORKER, {"autoscaling_spec": {}}, {**WORKER, "autoscaling_spec": {}}]},
        {"head_node_type": {"machine_type": "n1-standard-8"}, "allow_small_head": True},
        {"head_node_type": {"machine_type": "e2-standard-16"}},
        {"head_node_type": {"machine_type": "n1-highmem-16"}},
        {"head_node_type": {"machine_type": "x9-standard-4"}},
        {"ray_version": "2.60", "python_version": "3.12"},
        {"ray_version": "2.47", "python_version": "3.12"},
        worker(boot_disk_type="hyperdisk-balanced"),
        gpu("a3-ultragpu-8g", "NVIDIA_H200_141GB", 8, boot_disk_type="hyperdisk-balanced"),
        gpu("a4x-highgpu-4g", "NVIDIA_GB200", 4),
        gpu("a4-highgpu-8g", "NVIDIA_B200", 8, boot_disk_type=None),
        worker(boot_disk_size_gb=100),
        worker(boot_disk_size_gb=64_000, boot_disk_type="pd-standard"),
        worker(machine_type="n1-standard-4"),
        {"worker_node_types": [WORKER, {**WORKER, "custom_image": IMAGE}]},
        {"worker_node_types": [WORKER, {**WORKER, "boot_disk_size_gb": 200}]},
        {"head_node_type": {"custom_image": IMAGE}, "worker_node_types": [{"custom_image": IMAGE}]},
        {"head_node_type": {"custom_image": IMAGE}, "worker_node_types": [{}]},
        {"custom_images": {"head": IMAGE, "worker": IMAGE}},
        {"custom_images": {"head": IMAGE, "worker": IMAGE}, "ray_version": "2.33"},
        {"head_node_type": None},
        {"labels": None, "nfs_mounts": None, "reserved_ip_ranges": None, "network": ""},
        {"labels": {"a" * 63: "a" * 63, "é": "字_-9", "k": ""}},
        {"labels": {f"k{number}": "" for number in range(64)}},
        {"psc_interface_config": {"network_attachment": ATTACHMENT}},
        {"network": NETWORK, "reserved_ip_ranges": ["range-a"]},
        {"encryption_spec_key_name": KEY},
    ],
)
def test_valid_runtime_environments_pass(fields: dict[str, Any]) -> None:
    ClusterSpec.from_value(fields).to_persistent_resource("us-central1")


def test_version_that_has_ended_names_the_known_ones() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"Ray 2\.47 with Python 3\.11; Ray 2\.42 with Python 3\.10 or 3\.11"
    ):
        ClusterSpec(ray_version="2.33")


# Machine type, accelerator and count; the field that is wrong; what the error suggests.
WRONG_MACHINES: list[tuple[str, str | None, int, str, str]] = [
    ("n1-standrd-16", None, 0, "machine_type", "n1-standard-16"),
    ("n1-standart-8", None, 0, "machine_type", "n1-standard-8"),
    ("n1standard-16", None, 0, "machine_type", "n1-standard-16"),
    ("n1-standard-15", None, 0, "machine_type", "n1-standard-16"),
    ("n1-standard-128", None, 0, "machine_type", "n1-standard-96"),
    ("n2-highmen-16", None, 0, "machine_type", "n2-highmem-16"),
    ("a2-higgpu-1g", None, 0, "machine_type", "a2-highgpu-1g"),
    ("a2-highgpu-3g", None, 0, "machine_type", "a2-highgpu-2g"),
    ("N1-STANDARD-16", None, 0, "machine_type", "n1-standard-16"),
    ("n1_standard_16", None, 0, "machine_type", "n1-standard-16"),
    ("e2-medium", None, 0, "machine_type", "e2-standard-4"),
    ("f1-micro", None, 0, "machine_type", "e2-standard-4"),
    ("n1-standard-16", "NVIDIA_T4", 1, "accelerator_type", "NVIDIA_TESLA_T4"),
    ("g2-standard-12", "NVIDIA_TESLA_L4", 1, "accelerator_type", "NVIDIA_L4"),
    ("a2-highgpu-1g", "NVIDIA_A100", 1, "accelerator_type", "NVIDIA_TESLA_A100 or NVIDIA_A100_80GB"),
    ("a3-highgpu-8g", "NVIDIA_H100", 8, "accelerator_type", "NVIDIA_H100_80GB"),
    ("n1-standard-16", "NVIDA_TESLA_T4", 1, "accelerator_type", "NVIDIA_TESLA_T4"),
    ("n1-standard-16", "NVIDIA_H100_80GB", 1, "accelerator_type", "machine types of its own"),
    ("n2-standard-16", "NVIDIA_TESLA_T4", 1, "accelerator_type", "N1 series"),
    ("g2-standard-12", "NVIDIA_TESLA_T4", 1, "accelerator_type", "NVIDIA_L4"),
    ("a2-highgpu-1g", None, 0, "accelerator_type", "NVIDIA_TESLA_A100 with accelerator_count=1"),
    ("g2-standard-12", "NVIDIA_L4", 2, "accelerator_count", "Use 1;"),
    ("a2-ultragpu-4g", "NVIDIA_A100_80GB", 3, "accelerator_count", "Use 4;"),
    ("n1-standard-96", "NVIDIA_TESLA_T4", 1, "accelerator_count", "Use 4;"),
    ("n1-standard-16", "NVIDIA_TESLA_T4", 3, "accelerator_count", "Use 1 or 2 or 4;"),
    ("n1-standard-96", "NVIDIA_TESLA_K80", 8, "accelerator_type", "smaller machine type"),
]


@pytest.mark.parametrize(("machine", "accelerator", "count", "field", "suggestion"), WRONG_MACHINES)
def test_machine_that_cannot_be_names_the_one_that_can(
    machine: str, accelerator: str | None, count: int, field: str, suggestion: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ClusterSpec.from_value(gpu(machine, accelerator, count))
    assert caught.value.field == f"worker_node_types[0].{field}"
    assert suggestion in caught.value.rule


@pytest.mark.parametrize(
    ("machine", "accelerator", "count"),
    [
        ("n1-standard-4", "NVIDIA_TESLA_T4", 1),
        ("n1-highmem-32", "NVIDIA_TESLA_P100", 2),
        ("n1-standard-96", "NVIDIA_TESLA_V100", 8),
        ("g2-standard-24", "NVIDIA_L4", 2),
        ("a2-megagpu-16g", "NVIDIA_TESLA_A100", 16),
        ("a3-megagpu-8g", "NVIDIA_H100_MEGA_80GB", 8),
        ("g4-standard-96", "NVIDIA_RTX_PRO_6000", 2),
        # What the table does not have may be new.
        ("c4-standard-16", None, 0),
        ("n1-custom-8-30720", None, 0),
        ("a5-highgpu-8g", "NVIDIA_B300", 8),
        ("m3-megamem-64", None, 0),
    ],
)
def test_machine_that_may_be_passes(machine: str, accelerator: str | None, count: int) -> None:
    ClusterSpec.from_value(gpu(machine, accelerator, count)).to_persistent_resource("us-central1")


def test_disk_of_a_machine_with_hyperdisks_only() -> None:
    spec = ClusterSpec.from_value(gpu("a3-ultragpu-8g", "NVIDIA_H200_141GB", 8))
    pool = spec.to_persistent_resource("us-central1")["resourcePools"][1]
    assert pool["diskSpec"] == {"bootDiskType": "hyperdisk-balanced", "bootDiskSizeGb": 100}
    left_open = ClusterSpec.from_value(gpu("a3-ultragpu-8g", "NVIDIA_H200_141GB", 8, boot_disk_type=None))
    assert left_open.spec_hash() == spec.spec_hash()


def test_the_attachment_must_be_in_the_clusters_region() -> None:
    spec = ClusterSpec(psc_interface_config={"network_attachment": ATTACHMENT})
    spec.to_persistent_resource("us-central1")
    with pytest.raises(InvalidArgumentError, match="network_attachment.*us-east1"):
        spec.to_persistent_resource("us-east1")
    ClusterSpec(psc_interface_config={"network_attachment": "a"}).to_persistent_resource("us-east1")


def test_the_key_must_be_in_the_clusters_region() -> None:
    spec = ClusterSpec(encryption_spec_key_name=KEY)
    with pytest.raises(InvalidArgumentError, match="europe-west4"):
        spec.to_persistent_resource("europe-west4")


@pytest.mark.parametrize("location", ["", "us", "us-central1-a", "evil.com/"])
def test_the_location_must_be_a_region(location: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ClusterSpec().to_persistent_resource(location)
    assert caught.value.field == "location"


TEMPLATED: list[tuple[dict[str, Any], str]] = [
    (worker(machine_type="{{ params.machine }}"), "worker_node_types[0].machine_type"),
    (worker(node_count="{{ params.nodes }}"), "worker_node_types[0].node_count"),
    (worker(custom_image="{{ params.image }}"), "worker_node_types[0].custom_image"),
    (
        worker(boot_disk_type="{{ params.disk }}", boot_disk_size_gb="{{ params.gb }}"),
        "worker_node_types[0].boot_disk_type",
    ),
    (
        worker(accelerator_type="{{ params.gpu }}", accelerator_count="{{ params.gpus }}"),
        "worker_node_types[0].accelerator_type",
    ),
    (worker(accelerator_type="{{ params.gpu }}"), "worker_node_types[0].accelerator_type"),
    (bounds("{{ params.low }}", 4), "worker_node_types[0].autoscaling_spec.min_replica_count"),
    ({"worker_node_types": [{"custom_image": "{{ params.image }}"}]}, "worker_node_types[0].custom_image"),
    ({"worker_node_types": [{"boot_disk_size_gb": "{{ params.gb }}"}]}, "worker_node_types[0].boot_disk_size_gb"),
    ({"head_node_type": {"machine_type": "{{ params.head }}"}}, "head_node_type.machine_type"),
    ({"ray_version": "{{ params.ray }}"}, "ray_version"),
    ({"python_version": "{% if true %}3.11{% endif %}"}, "python_version"),
    ({"network": "projects/{{ var.value.number }}/global/networks/net"}, "network"),
    ({"network": "{{ var.value.net }}", "reserved_ip_ranges": ["{{ var.value.range }}"]}, "network"),
    (
        {"psc_interface_config": {"network_attachment": "{{ var.value.psc }}"}},
        "psc_interface_config.network_attachment",
    ),
    ({"nfs_mounts": [{**NFS, "path": "{{ var.value.path }}"}]}, "nfs_mounts[0].path"),
    ({"labels": {"run": "{{ run_id }}"}}, "labels.run"),
    ({"service_account": "{{ var.value.account }}"}, "service_account"),
    ({"encryption_spec_key_name": "{{ var.value.key }}"}, "encryption_spec_key_name"),
]


@pytest.mark.parametrize(("fields", "field"), TEMPLATED)
def test_a_template_passes_at_parse_and_not_into_a_request(fields: dict[str, Any], field: str) -> None:
    spec = ClusterSpec.from_value(fields)
    spec.warnings()
    assert ClusterSpec.from_value(spec.to_dict()) == spec
    for use in (spec.validate, lambda: spec.to_persistent_resource("us-central1")):
        with pytest.raises(InvalidArgumentError, match="not rendered") as caught:
            use()
        assert caught.value.field == field


def test_a_rendered_template_is_judged() -> None:
    plain = ClusterSpec.from_value(worker(node_count="{{ params.nodes }}")).to_dict()
    plain["worker_node_types"][0]["node_count"] = "0"
    with pytest.raises(InvalidArgumentError, match="of at least 1"):
        ClusterSpec.from_value(plain)


def test_sizes_and_hash_need_rendered_values() -> None:
    spec = ClusterSpec.from_value(worker(node_count="{{ params.nodes }}"))
    for use in (spec.node_count, spec.max_node_count, spec.spec_hash, spec.pools):
        with pytest.raises(InvalidArgumentError, match="not rendered"):
            use()
    assert ClusterSpec(labels={"run": "{{ run_id }}"}).spec_hash() == ClusterSpec().spec_hash()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, []),
        (
            {"head_node_type": {"machine_type": "n1-standard-8"}, "allow_small_head": True},
            ["its dashboard may never answer"],
        ),
        ({"head_node_type": {"machine_type": "x9-standard-16"}}, ["did you mean"]),
        (worker(machine_type="c3-standard-8-lssd"), ["did you mean c3-standard-8?"]),
        (gpu("n1-standard-16", "NVIDIA_X900", 1), ["NVIDIA_X900 is not known"]),
        (gpu("a3-ultragpu-8g", "NVIDIA_H200_141GB", 8), ["hyperdisk-balanced disks only"]),
        ({"ray_version": "2.60", "python_version": "3.12"}, ["does not know an image with Ray 2.60 and Python 3.12"]),
        ({"ray_version": "2.47", "python_version": "3.12"}, ["python_version: this package does not know"]),
        (
            {"worker_node_types": [{"machine_type": "n1-standard-8"}, bounds(1, 3)["worker_node_types"][0]]},
            ["all worker"],
        ),
        (bounds(0, 3), ["head alone"]),
        ({"network": NETWORK, "service_account": "a@b.c"}, ["Ray Client"]),
        ({"service_account": "a@b.c"}, []),
        (bounds(1, 3), []),
        (
            {"worker_node_types": [{"autoscaling_spec": {"min_replica_count": 2, "max_replica_count": 4}}]},
            ["include the head"],
        ),
        ({"worker_node_types": [{"autoscaling_spec": {}}]}, ["head alone", "include the head"]),
        (
            {"worker_node_types": [{"autoscaling_spec": {}}, WORKER]},
            ["all worker pools", "include the head", "replicaCount 0"],
        ),
        ({"worker_node_types": [WORKER, {"autoscaling_spec": {}}]}, ["all worker pools", "include the head"]),
    ],
)
def test_warnings(fields: dict[str, Any], words: list[str]) -> None:
    found = ClusterSpec.from_value(fields).warnings()
    assert len(found) == len(words), found
    for sentence, word in zip(found, words, strict=True):
        assert word in sentence
