from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any

import pytest
from emulator_support.process import cluster_body
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from vertex_ray_emulator.clusters import rules
from vertex_ray_emulator.wire.errors import ApiError
from vertex_ray_emulator.wire.protos import PersistentResource

Change = Callable[[dict[str, Any]], Any]
OWN_IMAGE = "us-docker.pkg.dev/vertex-ai/training/{}:latest"
ID_CHARACTERS = string.ascii_lowercase + string.digits + "-"


def parse(body: dict[str, Any]) -> Any:
    return json_format.ParseDict(body, PersistentResource())


def refusal(body: dict[str, Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        rules.check_create(parse(body), "us-central1")
    return caught.value


def pool(body: dict[str, Any], i: int = 1) -> dict[str, Any]:
    found = body["resourcePools"][i]
    assert isinstance(found, dict)
    return found


def ray(body: dict[str, Any]) -> dict[str, Any]:
    found = body["resourceRuntimeSpec"]["raySpec"]
    assert isinstance(found, dict)
    return found


@given(
    st.one_of(
        st.text(ID_CHARACTERS, max_size=66),
        st.text(max_size=8),
        st.sampled_from(["a" * 63, "a" * 64, "a-", "-a", "a\n"]),
    )
)
def test_cluster_ids(text: str) -> None:
    allowed = (
        1 <= len(text) <= 63
        and set(text) <= set(ID_CHARACTERS)
        and text[0] in string.ascii_lowercase
        and text[-1] != "-"
    )
    if allowed:
        rules.check_id(text)
    else:
        with pytest.raises(ApiError, match="Invalid persistent_resource_id"):
            rules.check_id(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: None,
        lambda b: b.update(labels={"team": "a_b-1", "größe": "", "日本": "値"}),
        lambda b: b.update(network="projects/123/global/networks/my-vpc", reservedIpRanges=["range"]),
        lambda b: b.update(
            pscInterfaceConfig={"networkAttachment": "projects/p/regions/us-central1/networkAttachments/a"}
        ),
        lambda b: b.update(encryptionSpec={"kmsKeyName": "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"}),
        lambda b: b["resourceRuntimeSpec"].update(
            serviceAccountSpec={"enableCustomServiceAccount": True, "serviceAccount": "a@b.iam.example.com"}
        ),
        lambda b: ray(b).update(headNodeResourcePoolId="worker-pool1"),
        lambda b: ray(b).update(resourcePoolImages={}, imageUri="eu.gcr.io/p/image@sha256:" + "0" * 64),
        lambda b: ray(b).update(resourcePoolImages={}, imageUri=OWN_IMAGE.format("ray-gpu.2-42.py310")),
        lambda b: ray(b).update(resourcePoolImages={}, imageUri=OWN_IMAGE.format("ray-cpu.2-60.py312")),
        lambda b: ray(b).update(nfsMounts=[{"server": "10.0.0.1", "path": "/p", "mountPoint": "mnt"}]),
        lambda b: pool(b).update(diskSpec={"bootDiskType": "pd-standard", "bootDiskSizeGb": 64000}),
        lambda b: pool(b).update(autoscalingSpec={"minReplicaCount": 0, "maxReplicaCount": 2}, replicaCount=0),
        # On the service, a cluster of only a head starts; its jobs hang.
        lambda b: b["resourcePools"].pop() and ray(b)["resourcePoolImages"].pop("worker-pool1"),
        # Not a Ray cluster: no image is required, and no head can be too small.
        lambda b: b.pop("resourceRuntimeSpec") and pool(b, 0)["machineSpec"].update(machineType="n1-standard-4"),
    ],
)
def test_valid_resources_are_accepted(change: Change) -> None:
    body = cluster_body()
    change(body)
    rules.check_create(parse(body), "us-central1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b.update(resourcePools=[]), "resource_pools must contain"),
        (lambda b: pool(b).update(id="head-node"), "Duplicate resource_pools[1].id"),
        (lambda b: pool(b).update(id="Big"), "resource_pools[1].id"),
        (lambda b: pool(b).update(machineSpec={}), "resource_pools[1].machine_spec.machine_type is required"),
        (lambda b: pool(b)["machineSpec"].update(machineType="n1-standard-17"), "'n1-standard-17'"),
        (lambda b: pool(b)["machineSpec"].update(machineType="ct5lp-hightpu-4t"), "TPUs are not supported"),
        (lambda b: pool(b)["machineSpec"].update(acceleratorType="NVIDIA_L4", acceleratorCount=1), "NVIDIA_L4"),
        (lambda b: pool(b)["machineSpec"].update(acceleratorCount=1), "accelerator_type is not set"),
        (lambda b: pool(b)["machineSpec"].update(acceleratorType="NVIDIA_TESLA_T4"), "accelerator_count is 0"),
        (lambda b: pool(b)["diskSpec"].update(bootDiskType="pd-extreme"), "boot_disk_type: 'pd-extreme'"),
        (lambda b: pool(b)["diskSpec"].update(bootDiskSizeGb=99), "boot_disk_size_gb: 99"),
        (lambda b: pool(b)["diskSpec"].update(bootDiskSizeGb=64001), "boot_disk_size_gb: 64001"),
        (lambda b: pool(b).pop("replicaCount"), "resource_pools[1].replica_count must be at least 1"),
        (lambda b: pool(b).update(replicaCount=1001), "must be at most 1000"),
        (lambda b: [pool(b, i).update(replicaCount=1000) for i in (0, 1)] and _third_pool(b), "2001"),
        (
            lambda b: pool(b).update(autoscalingSpec={"minReplicaCount": 3, "maxReplicaCount": 3}),
            "max_replica_count (3) must be greater",
        ),
        (
            lambda b: pool(b).update(autoscalingSpec={"minReplicaCount": -1, "maxReplicaCount": 3}),
            "min_replica_count must be at least 0",
        ),
        (
            lambda b: pool(b).update(autoscalingSpec={"minReplicaCount": 2, "maxReplicaCount": 3}),
            "replica_count (1) must be between",
        ),
        (
            lambda b: pool(b).update(autoscalingSpec={"minReplicaCount": 1, "maxReplicaCount": 1001}),
            "max_replica_count must be at most 1000",
        ),
        (lambda b: b.update(displayName="x" * 129), "display_name"),
        (lambda b: b.update(labels={"Team": "a"}), "'Team' must start with a lowercase letter"),
        (lambda b: b.update(labels={"": "a"}), "must start with a lowercase letter"),
        (lambda b: b.update(labels={"team": "A"}), "the value 'A' can only contain"),
        (lambda b: b.update(labels={"a.b": "a"}), "the key 'a.b' can only contain"),
        (lambda b: b.update(labels={"a": "x" * 65}), "longer than 64"),
        (lambda b: b.update(labels={f"k{i}": "" for i in range(65)}), "at most 64 labels"),
        (lambda b: b.update(network="projects/my-project/global/networks/vpc"), "is a project number"),
        (lambda b: b.update(network="vpc"), "Invalid network: 'vpc'"),
        (
            lambda b: b.update(network="projects/1/global/networks/vpc", pscInterfaceConfig={}),
            "network and psc_interface_config cannot be set together",
        ),
        (
            lambda b: b.update(pscInterfaceConfig={"networkAttachment": "projects/p/attachments/a"}),
            "psc_interface_config.network_attachment",
        ),
        (lambda b: b.update(encryptionSpec={"kmsKeyName": "key"}), "encryption_spec.kms_key_name: 'key'"),
        (
            lambda b: b["resourceRuntimeSpec"].update(serviceAccountSpec={"serviceAccount": "a@b.c"}),
            "requires enable_custom_service_account",
        ),
        (
            lambda b: b["resourceRuntimeSpec"].update(
                serviceAccountSpec={"enableCustomServiceAccount": True, "serviceAccount": "me"}
            ),
            "'me' is not an email address",
        ),
        (lambda b: ray(b).update(resourcePoolImages={}), "either image_uri or resource_pool_images['head-node']"),
        (
            lambda b: ray(b)["resourcePoolImages"].update({"other": "gcr.io/p/i"}),
            "the resource pool 'other' does not exist",
        ),
        (lambda b: ray(b)["resourcePoolImages"].update({"head-node": "an image"}), "'an image' is not an image URI"),
        (lambda b: ray(b).update(headNodeResourcePoolId="other"), "the resource pool 'other' does not exist"),
        (lambda b: pool(b, 0)["machineSpec"].update(machineType="n1-standard-4"), "'n1-standard-4' is not"),
        (lambda b: ray(b).update(nfsMounts=[{"server": "s"}]), "nfs_mounts"),
        (
            lambda b: pool(b, 0).update(autoscalingSpec={"minReplicaCount": 0, "maxReplicaCount": 2}, replicaCount=0),
            "must have at least one replica",
        ),
    ],
)
def test_invalid_resources_are_refused(change: Change, words: str) -> None:
    body = cluster_body()
    change(body)
    error = refusal(body)
    assert error.code == "INVALID_ARGUMENT"
    assert words in error.message


@pytest.mark.parametrize(
    "name",
    ["ray-cpu.2-33.py310", "ray-cpu.2-9.py310", "ray-gpu.2-47.py310", "ray-cpu.2-45.py311", "ray-tpu.2-47.py311"],
)
@pytest.mark.parametrize("field", ["imageUri", "resourcePoolImages"])
def test_images_that_the_service_does_not_have_are_refused(name: str, field: str) -> None:
    body = cluster_body()
    image = OWN_IMAGE.format(name)
    ray(body).update({field: image} if field == "imageUri" else {field: {"head-node": image, "worker-pool1": image}})
    error = refusal(body)
    assert error.code == "INVALID_ARGUMENT"
    assert f"{image!r}. The image does not exist" in error.message


def _third_pool(body: dict[str, Any]) -> None:
    body["resourcePools"].append({**pool(body), "id": "worker-pool2", "replicaCount": 1})
    ray(body)["resourcePoolImages"]["worker-pool2"] = "gcr.io/p/i"


def test_pools_without_ray_cannot_scale_to_zero() -> None:
    body = cluster_body()
    del body["resourceRuntimeSpec"]
    pool(body).update(autoscalingSpec={"minReplicaCount": 0, "maxReplicaCount": 2}, replicaCount=0)
    assert "min_replica_count must be at least 1" in refusal(body).message


@given(st.text(max_size=70), st.text(max_size=70))
def test_labels_have_only_allowed_characters_or_are_refused_by_name(key: str, value: str) -> None:
    body = parse(cluster_body(labels={key: value}))
    wrong = any(c.isupper() or c.isspace() or c in "/.:@" for c in key + value)
    if not key or max(len(key), len(value)) > 64 or wrong:
        with pytest.raises(ApiError, match=r"^labels:"):
            rules.check_create(body, "us-central1")
    elif re.fullmatch("[a-z][a-z0-9_-]*", key) and re.fullmatch("[a-z0-9_-]*", value):
        rules.check_create(body, "us-central1")


@pytest.mark.parametrize(
    "path", ["resource_pools.replica_count", "resourcePools.replicaCount", "resourcePools.replica_count"]
)
def test_replica_count_mask_is_accepted_in_both_spellings(path: str) -> None:
    rules.check_mask([path])


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "update_mask is required"),
        (["labels"], "'labels'"),
        (["resourcePools"], "'resourcePools'"),
        (["resource_pools.replica_count", "resourcePools.autoscalingSpec"], "'resourcePools.autoscalingSpec'"),
        (["*"], "'*'"),
    ],
)
def test_other_masks_are_refused_by_name(paths: list[str], words: str) -> None:
    with pytest.raises(ApiError) as caught:
        rules.check_mask(paths)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert words in caught.value.message


def test_wanted_counts() -> None:
    current = parse(cluster_body(2))
    assert rules.wanted_counts(current, parse(cluster_body(5))) == {"head-node": 1, "worker-pool1": 5}


def _add(body: dict[str, Any]) -> None:
    body["resourcePools"].append({**pool(body), "id": "more"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_add, "adding the resource pool 'more'"),
        (lambda b: b["resourcePools"].pop(), "removing the resource pool 'worker-pool1'"),
        (lambda b: b["resourcePools"].append(pool(b)), "ids must be unique"),
        (lambda b: pool(b).update(replicaCount=0), "resource_pools[1].replica_count must be at least 1"),
        (lambda b: pool(b).update(replicaCount=1001), "must be at most 1000"),
    ],
)
def test_invalid_updates_are_refused(change: Change, words: str) -> None:
    body = cluster_body(2)
    change(body)
    with pytest.raises(ApiError) as caught:
        rules.wanted_counts(parse(cluster_body(2)), parse(body))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert words in caught.value.message


@given(st.integers(min_value=1, max_value=12))
def test_autoscaling_pool_is_resized_within_its_bounds(count: int) -> None:
    body = cluster_body(4)
    pool(body)["autoscalingSpec"] = {"minReplicaCount": 2, "maxReplicaCount": 6}
    wanted = cluster_body(count)
    if 2 <= count <= 6:
        assert rules.wanted_counts(parse(body), parse(wanted))["worker-pool1"] == count
    else:
        with pytest.raises(ApiError, match="must be between"):
            rules.wanted_counts(parse(body), parse(wanted))


def test_autoscaling_pool_of_the_head_keeps_one_node() -> None:
    body = cluster_body(1)
    for i in (0, 1):
        pool(body, i)["autoscalingSpec"] = {"minReplicaCount": 0, "maxReplicaCount": 3}
    current = parse(body)
    pool(body).update(replicaCount=0)
    assert rules.wanted_counts(current, parse(body)) == {"head-node": 1, "worker-pool1": 0}
    pool(body, 0).update(replicaCount=0)
    with pytest.raises(ApiError, match="'head-node' has the head node"):
        rules.wanted_counts(current, parse(body))
