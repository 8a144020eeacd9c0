"""NaN and infinities in predictions, which ``google.protobuf.Value`` does not represent."""

from __future__ import annotations

import io
import math
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
from emulator_support.process import PATIENCE, EmulatorProcess
from emulator_support.serving import begin_deploy, create_endpoint, deploy, refusal, upload
from google.protobuf.struct_pb2 import Value
from sklearn.dummy import DummyRegressor
from vertex_ray_emulator.google.cloud_api import json_body
from vertex_ray_emulator.serving.prediction import _plain
from vertex_ray_emulator.wire.errors import ApiError

if TYPE_CHECKING:
    from emulator_support.storage import StorageEmulator

ARGUMENTS = ["--backend", "fake", "--deploy-seconds", "0"]


def post(emulator: EmulatorProcess, text: str) -> tuple[int, str]:
    path = f"/v1/projects/{emulator.project}/locations/us-central1/endpoints/e1:predict"
    headers = {"Authorization": f"Bearer {emulator.token()}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{emulator.host}{path}", text.encode(), headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_neither_requests_nor_answers_may_have_them(tmp_path: Path, storage: StorageEmulator) -> None:
    model, file = DummyRegressor(strategy="constant", constant=0.0), io.BytesIO()
    model.fit(np.zeros((2, 2)), np.zeros(2))
    model.constant_ = np.array([[math.nan]])
    joblib.dump(model, file)
    storage.put("numbers/model.joblib", file.getvalue())
    with EmulatorProcess(tmp_path / "state", ARGUMENTS) as emulator:
        create_endpoint(emulator)
        deploy(emulator, upload(emulator, uri=f"gs://{storage.bucket}/numbers"))
        for text in ('{"instances": [[1, NaN]]}', '{"instances": [[1, -Infinity]]}', '{"instances": [[1, 1e999]]}'):
            status, answer = post(emulator, text)
            assert status == 400
            assert "Invalid JSON payload received" in answer
        status, answer = post(emulator, '{"instances": [[1, 2]]}')
        assert status == 500
        assert "does not represent NaN" in answer


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_messages_with_them_are_refused(number: float) -> None:
    with pytest.raises(ApiError) as refused:
        _plain(Value(number_value=number))
    assert refused.value.code == "INVALID_ARGUMENT"


def test_finite_numbers_pass() -> None:
    assert json_body(b'{"a": [1e308, -0.5, 12345678901234567890]}') == {"a": [1e308, -0.5, 12345678901234567890]}


@pytest.mark.parametrize(("count", "accepted"), [(1, True), (7, True), (8, True), (9, False), (0, False)])
def test_deployed_model_may_use_fewer_accelerators(emulator: EmulatorProcess, count: int, accepted: bool) -> None:
    create_endpoint(emulator)
    spec: dict[str, Any] = {"machineType": "a3-highgpu-8g", "acceleratorType": "NVIDIA_H100_80GB"}
    resources = {"machineSpec": {**spec, "acceleratorCount": count}, "minReplicaCount": 1}
    answer = begin_deploy(emulator, upload(emulator), dedicatedResources=resources)
    if accepted:
        assert answer[0] == 200
    else:
        assert refusal(answer)[:2] == (400, "INVALID_ARGUMENT")
