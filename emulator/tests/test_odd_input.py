"""Odd input is answered with an error as JSON; it neither ends a connection nor looks as if a server had died."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from emulator_support.process import PATIENCE, EmulatorProcess
from vertex_ray_emulator.faults import Faults
from vertex_ray_emulator.request_log import RequestLog
from vertex_ray_emulator.serving import predictor
from vertex_ray_emulator.surfaces.request_pipeline import RequestPipeline
from vertex_ray_emulator.surfaces.tokens import Tokens
from vertex_ray_emulator.wire.errors import ApiError

LOCATION = "/v1/projects/demo-project/locations/us-central1"
DEEP = "[" * 200_000
ODD_TYPE = '{"error": {"details": [{"@type": 5}]}}'
PARENTHESES = quote("(" * 600 + "labels.a=b" + ")" * 600)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{LOCATION}/persistentResources?persistentResourceId=c1", DEEP),
        ("POST", f"{LOCATION}/persistentResources?persistentResourceId=c1", ODD_TYPE),
        ("POST", f"{LOCATION}/models:upload", '{"model": {"metadata": ' + "[" * 500 + "]" * 500 + "}}"),
        ("POST", f"{LOCATION}/endpoints", '{"encryptionSpec": [{"@type": 5}]}'),
        ("GET", f"{LOCATION}/models?filter={PARENTHESES}", None),
        ("POST", "/v2/entries:list", DEEP),
        ("POST", "/emulator/faults", DEEP),
        ("POST", "/emulator/tokens/settings", '{"seconds": NaN}'),
        ("POST", "/emulator/tokens/settings", '{"seconds": 1e400}'),
        ("POST", "/emulator/clusters/c1/state", '{"state": "ERROR", "error": {"code": [1]}}'),
    ],
)
def test_odd_requests_are_invalid(emulator: EmulatorProcess, method: str, path: str, body: str | None) -> None:
    if "/c1/" in path:
        emulator.create("c1")
    headers = {"Authorization": f"Bearer {emulator.token()}", "Content-Type": "application/json"}
    data = body.encode() if body is not None else None
    request = urllib.request.Request(f"http://{emulator.host}{path}", data, headers, method=method)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE)
    with caught.value as answer:
        error = json.loads(answer.read())["error"]
    assert (caught.value.code, error["status"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(("problem", "code"), [(KeyError("x"), "INTERNAL"), (RecursionError(), "INVALID_ARGUMENT")])
async def test_unexpected_errors_are_logged_and_answered(
    problem: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokens, requests = Tokens(), RequestLog()

    async def work() -> Any:
        raise problem

    pipeline = RequestPipeline(tokens, Faults(), requests)
    with pytest.raises(ApiError) as caught:
        await pipeline.run("rest", "GetModel", "m", f"Bearer {tokens.mint()[0]}", work)
    assert caught.value.code == code
    assert [each["status"] for each in requests.listing()] == [caught.value.http_status]
    assert ("unexpected error" in caplog.text) is (code == "INTERNAL")


class Returns:
    """A model that returns always the same."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def predict(self, instances: Any, **parameters: Any) -> Any:
        return self._found


@pytest.mark.parametrize(
    ("found", "more", "words"),
    [
        ([np.float32(1)], {}, "float32 is not JSON serializable"),
        ([b"x"], {}, "bytes is not JSON serializable"),
        (5, {}, "not iterable"),
        ([1], {"self": 1}, "'self'"),
    ],
)
def test_result_that_is_no_json_is_the_containers_error(found: Any, more: dict[str, Any], words: str) -> None:
    status, body = predictor.answer(Returns(found), json.dumps({"instances": [1], **more}).encode())
    assert status == 500
    assert json.loads(body).startswith("Prediction failed: TypeError")
    assert words in json.loads(body)
