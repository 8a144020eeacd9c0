"""What the operators of models and endpoints refuse when their DAG is parsed, and how instances are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.serving.containers import FRAMEWORKS, serving_container
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.operators.endpoint import VertexRayDeployModelOperator, VertexRayUndeployModelOperator
from airflow_provider_vertex_ray.operators.model import VertexRayUploadModelOperator
from airflow_provider_vertex_ray.operators.prediction import LARGEST_REQUEST, VertexRayPredictOperator, split_instances
from airflow_provider_vertex_ray.sensors.endpoint import VertexRayEndpointSensor

GOOD: dict[type, dict[str, Any]] = {
    VertexRayUploadModelOperator: {"display_name": "m", "artifact_uri": "gs://b/m", "framework": "sklearn"},
    VertexRayDeployModelOperator: {"model": "123"},
    VertexRayUndeployModelOperator: {"endpoint_id": "123"},
    VertexRayPredictOperator: {"endpoint_id": "123", "instances": [[1]]},
    VertexRayEndpointSensor: {"endpoint_id": "123"},
}


@pytest.mark.parametrize(
    ("kind", "given", "text"),
    [
        (
            VertexRayUploadModelOperator,
            {"framework_version": "1.3"},
            r"framework_version: '1.3'.*\(1.4, 1.5, 1.6\).*no longer available",
        ),
        (
            VertexRayUploadModelOperator,
            {"framework": "lightgbm"},
            "framework: .*LightGBM has no prebuilt container",
        ),
        (
            VertexRayUploadModelOperator,
            {"framework": "keras"},
            "framework: .*sklearn, xgboost, pytorch, tensorflow",
        ),
        (
            VertexRayUploadModelOperator,
            {"framework": None},
            "framework: .*serving_container_image_uri",
        ),
        (VertexRayUploadModelOperator, {"serving_container_image_uri": "i"}, "framework: "),
        (VertexRayUploadModelOperator, {"gpu": True}, "accelerator_type: .*do not use accelerators"),
        (VertexRayUploadModelOperator, {"artifact_uri": "/tmp/m"}, "artifact_uri: "),
        (VertexRayUploadModelOperator, {"parent_model": "1", "model_id": "2"}, "model_id: "),
        (VertexRayUploadModelOperator, {"parent_model": "a/b"}, "parent_model: "),
        (VertexRayDeployModelOperator, {"model": "projects/p/models/1"}, "model: "),
        (VertexRayDeployModelOperator, {"endpoint_id": "1@2"}, "endpoint_id: "),
        (VertexRayDeployModelOperator, {"min_replica_count": 0}, "min_replica_count: "),
        (
            VertexRayDeployModelOperator,
            {"min_replica_count": 3, "max_replica_count": 2},
            "max_replica_count: ",
        ),
        (VertexRayDeployModelOperator, {"traffic_percentage": 101}, "traffic_percentage: "),
        (VertexRayDeployModelOperator, {"traffic_split": {"1": 100}}, "traffic_split: "),
        (VertexRayDeployModelOperator, {"traffic_split": {"0": 50, "1": 49}}, "traffic_split: "),
        (VertexRayDeployModelOperator, {"accelerator_type": "NVIDIA_L4"}, "accelerator_count: "),
        (
            VertexRayDeployModelOperator,
            {"autoscaling_targets": {"memory": 5}},
            "autoscaling_targets: ",
        ),
        (VertexRayDeployModelOperator, {"deploy_timeout": 0}, "deploy_timeout: "),
        (VertexRayUndeployModelOperator, {"delete_endpoint": "yes"}, "delete_endpoint: "),
        (VertexRayPredictOperator, {"instances": None}, "instances: "),
        (VertexRayPredictOperator, {"instances": []}, "instances: "),
        (VertexRayPredictOperator, {"instances_uri": "gs://b/i"}, "instances: "),
        (VertexRayPredictOperator, {"instances_per_request": 0}, "instances_per_request: "),
        (VertexRayEndpointSensor, {"endpoint_id": ""}, "endpoint_id: "),
    ],
)
def test_a_wrong_value_is_named_at_parse(kind: type, given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^Invalid value for {text}"):
        kind(task_id="t", location="us-central1", **{**GOOD[kind], **given})


def test_containers_are_named_by_continent_device_and_version() -> None:
    prefix = "docker.pkg.dev/vertex-ai/prediction"
    assert serving_container("xgboost", "2.1", "europe-west4") == f"europe-{prefix}/xgboost-cpu.2-1:latest"
    assert serving_container("pytorch", "2.4", "asia-east1", gpu=True) == f"asia-{prefix}/pytorch-gpu.2-4:latest"
    assert serving_container("tensorflow", None, "us-central1") == f"us-{prefix}/tf2-cpu.2-15:latest"
    assert all(framework.files for framework in FRAMEWORKS.values())


@given(
    sizes=st.lists(st.integers(1, LARGEST_REQUEST // 3), min_size=1, max_size=12),
    most=st.integers(1, 5),
)
def test_requests_keep_the_order_and_the_limits(sizes: list[int], most: int) -> None:
    instances = ["x" * size for size in sizes]
    chunks = split_instances(instances, most)
    assert [each for chunk in chunks for each in chunk] == instances
    for chunk in chunks:
        assert 1 <= len(chunk) <= most
        assert len(json.dumps({"instances": chunk})) <= LARGEST_REQUEST


def test_an_instance_that_fits_in_no_request_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^Invalid value for instances\[1\]"):
        split_instances(["a", "x" * LARGEST_REQUEST], 10)
