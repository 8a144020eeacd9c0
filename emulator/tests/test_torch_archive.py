"""PyTorch archives: the handler in them is run, with PyTorch itself where it is installed."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.serving import create_endpoint, deploy, upload
from vertex_ray_emulator.serving.model_errors import ArtifactError, PredictionError
from vertex_ray_emulator.serving.predictor import answer, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emulator_support.storage import StorageEmulator

IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/pytorch-cpu.2-4:latest"
HAS_TORCH = importlib.util.find_spec("torch") is not None
WITH_TORCH = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")

CLASS = """
import pathlib

class Summing:
    def initialize(self, context):
        folder = pathlib.Path(context.system_properties["model_dir"])
        self.offset = int((folder / context.manifest["model"]["serializedFile"]).read_text())

    def handle(self, data, context):
        return [sum(row) + self.offset for row in data]
"""
FUNCTION = """
loaded = False

def run(data, context):
    global loaded
    if data is None:
        loaded = True
        return None
    assert loaded
    return [{"length": len(row["image"]), "name": row["name"]} for row in data]
"""
NEEDS_TORCH = "from ts.torch_handler.base_handler import BaseHandler\nimport torch\nclass Own(BaseHandler): pass\n"
MODEL = """
import torch

class Tripled(torch.nn.Module):
    def forward(self, data):
        return data * 3
"""


def archive(handler: str, files: dict[str, bytes | str], **model: str) -> bytes:
    """What torch-model-archiver writes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as found:
        manifest = {"model": {"modelName": "model", "handler": handler, **model}}
        found.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for name, data in files.items():
            found.writestr(name, data)
    return content.getvalue()


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Load an archive as a predictor process does; the modules in it are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def load_archive(content: bytes) -> Any:
        (tmp_path / "model.mar").write_bytes(content)
        return load("pytorch", tmp_path / "model.mar")

    yield load_archive
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("handler", "model_code", "ts"):
            del sys.modules[name]


def test_class_of_the_archive_predicts(loaded: Any) -> None:
    model = loaded(archive("handler.py", {"handler.py": CLASS, "offset.txt": "10"}, serializedFile="offset.txt"))
    assert answer(model, b'{"instances": [[1, 2], [3, 4.5]]}') == (200, b'{"predictions": [13, 17.5]}')
    with pytest.raises(PredictionError, match="TypeError"):
        model.predict(["text"])


def test_function_of_the_archive_gets_bytes(loaded: Any) -> None:
    model = loaded(archive("handler:run", {"handler.py": FUNCTION}))
    rows = [{"image": {"b64": "AAAA"}, "name": "zeros"}]
    assert model.predict(rows) == [{"length": 3, "name": "zeros"}]


@pytest.mark.parametrize(
    ("returned", "text"), [("[1]", "1 predictions for 2 instances"), ("'text'", "returned str for 2 instances")]
)
def test_other_answers_than_one_for_each_instance_are_refused(loaded: Any, returned: str, text: str) -> None:
    model = loaded(archive("handler.py", {"handler.py": f"def handle(data, context): return {returned}"}))
    with pytest.raises(PredictionError, match=text):
        model.predict([1, 2])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"no zip file", "not an archive of torch-model-archiver: BadZipFile"),
        (archive("image_classifier", {}), "no handler 'image_classifier'"),
        (archive("handler.py", {}), "no handler 'handler.py'"),
        (archive("handler.py", {"handler.py": "x = 1"}), "neither a function handle"),
    ],
    ids=["no-zip", "torchserves-own", "missing", "empty"],
)
def test_archives_that_cannot_be_served_are_named(loaded: Any, content: bytes, text: str) -> None:
    with pytest.raises(ArtifactError, match=text):
        loaded(content)


@pytest.mark.skipif(HAS_TORCH, reason="PyTorch is installed")
@pytest.mark.parametrize("handler", ["handler.py", "base_handler"])
def test_missing_pytorch_is_named(loaded: Any, handler: str) -> None:
    with pytest.raises(ArtifactError, match="Install torch in the emulator's environment"):
        loaded(archive(handler, {"handler.py": NEEDS_TORCH, "model.pt": b""}, serializedFile="model.pt"))


@WITH_TORCH
@pytest.mark.parametrize("handler", ["handler.py", "base_handler"])
def test_torchscript_predicts(loaded: Any, handler: str) -> None:
    import torch

    weights = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Flatten()), weights)
    files = {"handler.py": NEEDS_TORCH, "model.pt": weights.getvalue()}
    model = loaded(archive(handler, files, serializedFile="model.pt"))
    assert model.predict([[[1.0], [2.0]]]) == [[1.0, 2.0]]


@WITH_TORCH
def test_class_of_the_model_predicts(loaded: Any) -> None:
    model = loaded(archive("base_handler", {"model_code.py": MODEL}, modelFile="model_code.py"))
    assert model.predict([[1.0], [2.0]]) == [[3.0], [6.0]]


def test_deployed_archive_predicts(tmp_path: Path, storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.put("torch/model.mar", archive("handler.py", {"handler.py": CLASS, "n.txt": "1"}, serializedFile="n.txt"))
    with EmulatorProcess(tmp_path / "state", ["--backend", "fake", "--deploy-seconds", "0"]) as emulator:
        create_endpoint(emulator)
        operation = deploy(emulator, upload(emulator, uri=f"gs://{storage.bucket}/torch", image=IMAGE))
        assert "response" in operation, operation
        answered = emulator.api("POST", "endpoints/e1:predict", {"instances": [[1, 2]]}, version="v1")
        assert (answered[0], answered[1]["predictions"]) == (200, [4])
