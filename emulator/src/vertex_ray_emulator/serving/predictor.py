"""Predictor process of one deployed model, which acts as a prebuilt serving container with the real framework.

``predictors`` starts it with the framework, the artifact's folder in Cloud Storage and a local folder. It downloads the
artifact, loads the file that Google's containers expect, and prints one JSON line: ``{"port": 1234}`` once it serves
on 127.0.0.1, or ``{"error": "…"}`` before it exits with code 1. ``POST /predict`` takes the body of a predict request.

Sources for the handling of instances and the texts of errors: ``prediction/sklearn`` and ``prediction/xgboost`` of
google-cloud-aiplatform, and reports (googleapis/python-aiplatform#514, #2037).

When stdin is closed, the emulator is gone and the process exits.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import traceback
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from vertex_ray_emulator.access import user_refusal, web_refusal
from vertex_ray_emulator.serving.model_errors import ArtifactError, PredictionError

LOOPBACK = "127.0.0.1"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_SECONDS = 60.0


class Model(Protocol):
    """A loaded model."""

    def predict(self, instances: Any, **parameters: Any) -> Any:
        """Return one prediction for each instance.

        :param instances: instances of the request.
        :param parameters: other fields of the request's body.
        :raises PredictionError: if the instances do not fit the model.
        """
        ...


class SklearnModel:
    """An estimator or a pipeline of scikit-learn.

    :param estimator: object with a ``predict`` method.
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def predict(self, instances: Any, **parameters: Any) -> Any:
        """Predict on a numpy array of the instances."""
        import numpy as np

        try:
            return self._estimator.predict(np.array(instances), **parameters)
        except Exception as error:
            raise PredictionError(f"Prediction failed: Exception during sklearn prediction: {error}") from error


class XgboostModel:
    """A booster; the container treats every XGBoost artifact as one.

    :param booster: booster from a file of XGBoost's own format or from a pickle.
    """

    def __init__(self, booster: Any) -> None:
        self._booster = booster

    def predict(self, instances: Any, **parameters: Any) -> Any:
        """Predict on a matrix of the instances."""
        import numpy as np
        import xgboost

        try:
            # Convert to an array first: XGBoost versions differ in how they read lists.
            matrix = xgboost.DMatrix(np.array(instances))
        except Exception as error:
            raise PredictionError(f"Prediction failed: Could not initialize DMatrix from inputs: {error}") from error
        try:
            return self._booster.predict(matrix, **parameters)
        except Exception as error:
            raise PredictionError(f"Prediction failed: Exception during xgboost prediction: {error}") from error


def load(framework: str, file: Path) -> Model:
    """Load an artifact file.

    :param framework: ``sklearn``, ``xgboost`` or ``pytorch``.
    :param file: file to load.
    """
    if framework == "pytorch":
        from vertex_ray_emulator.serving.torch_archive import TorchArchive

        return TorchArchive(file)
    if file.suffix == ".bst":
        import xgboost

        return XgboostModel(xgboost.Booster(model_file=str(file)))
    if file.suffix == ".joblib":
        import joblib

        found = joblib.load(file)
    else:
        import pickle

        # The container does the same; the artifact is the user's own.
        with file.open("rb") as stream:
            found = pickle.load(stream)  # noqa: S301
    return SklearnModel(found) if framework == "sklearn" else XgboostModel(found)


def download(storage: str, uri: str, folder: Path, wanted: tuple[str, ...]) -> Path:
    """Download an artifact folder and return the path of the file to load.

    :param storage: address of Cloud Storage's JSON API, such as ``http://127.0.0.1:4443``.
    :param uri: ``gs://bucket/path``.
    :param folder: local folder.
    :param wanted: names of files of which one must exist, in order of preference.
    :raises ArtifactError: if none of the files or no such bucket exists.
    """
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    prefix = path.rstrip("/") + "/" if path.strip("/") else ""
    names = _names(storage, bucket, prefix)
    for name in names:
        if name.endswith("/"):
            continue
        target = folder / name.removeprefix(prefix)
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(f"The object {name!r} would be outside the artifact's folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        address = f"{storage}/download/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media"
        with _OPENER.open(address, timeout=_SECONDS) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    return find(folder, wanted, uri)


def find(folder: Path, wanted: tuple[str, ...], uri: str) -> Path:
    """Return the file of a downloaded artifact that is to be loaded.

    :param folder: local folder.
    :param wanted: names of files, in order of preference.
    :param uri: URI of the artifact, for the text of the error.
    :raises ArtifactError: if none of the files exists.
    """
    for name in wanted:
        if (folder / name).is_file():
            return folder / name
    there = sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
    raise ArtifactError(
        f"One of the following model files must be provided: {list(wanted)}. Found in {uri}: {there[:20] or 'nothing'}"
    )


def _names(storage: str, bucket: str, prefix: str) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        query = urllib.parse.urlencode({"prefix": prefix, "pageToken": token} if token else {"prefix": prefix})
        try:
            with _OPENER.open(f"{storage}/storage/v1/b/{bucket}/o?{query}", timeout=_SECONDS) as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ArtifactError(f"Could not list the bucket {bucket!r}: HTTP {error.code}") from error
        except OSError as error:
            raise ArtifactError(f"Cloud Storage does not answer at {storage}: {error}") from error
        found += [item["name"] for item in body.get("items") or []]
        token = body.get("nextPageToken", "")
        if not token:
            return found


def answer(model: Model, body: bytes) -> tuple[int, bytes]:
    """Return the HTTP status and the body for the body of a predict request."""
    try:
        request = json.loads(body)
        instances = request["instances"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 400, _error_body("Invalid request: the body must be a JSON object with instances.")
    extra = {name: value for name, value in request.items() if name != "instances"}
    try:
        found = model.predict(instances, **extra)
        found = found.tolist() if hasattr(found, "tolist") else list(found)
        return 200, json.dumps({"predictions": found}).encode()
    except PredictionError as error:
        return 400, _error_body(str(error))
    except Exception as error:  # noqa: BLE001 - logged
        # Such as a result that JSON cannot hold. Without an answer, the predictor would seem to have died.
        traceback.print_exc()
        return 500, _error_body(f"Prediction failed: {type(error).__name__}: {error}")


def _error_body(text: str) -> bytes:
    # Containers answer errors as a JSON string and a newline, and the service passes that on unchanged.
    return json.dumps(text).encode() + b"\n"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes; without this, the second waits for the peer's delayed acknowledgement.
    disable_nagle_algorithm = True
    model: Model

    def do_POST(self) -> None:
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if refusal := web_refusal(hosts, origins) or user_refusal(self.client_address, self.connection.getsockname()):
            self.send_error(403, f"The predictor refused this request: {refusal}.")
            return
        status, body = answer(self.model, self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing: the emulator has its own log of requests."""


def _exit_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


def main() -> None:
    """Serve until stdin is closed."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    framework, files, uri, storage, place = sys.argv[1:]
    wanted, folder = tuple(files.split(",")), Path(place)
    # Only the one line goes to the original stdout, because unpickling a model may print anything.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        # A predictor that is restarted has already downloaded its artifact.
        file = find(folder, wanted, uri) if folder.is_dir() else download(storage, uri, _created(folder), wanted)
        _Handler.model = load(framework, file)
        server = ThreadingHTTPServer((LOOPBACK, 0), _Handler)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)
        raise
    server.daemon_threads = True
    print(json.dumps({"port": server.server_address[1]}), file=answers, flush=True)
    server.serve_forever()


def _created(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
