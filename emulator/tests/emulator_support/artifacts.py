"""Small real models, as training jobs would write them to Cloud Storage."""

from __future__ import annotations

import io
import pickle
import tempfile
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emulator_support.storage import StorageEmulator

SKLEARN_IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"
XGBOOST_IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-1:latest"


@cache
def iris() -> tuple[Any, Any]:
    """Return the features and the classes of a data set that comes with scikit-learn."""
    from sklearn.datasets import load_iris

    return load_iris(return_X_y=True)  # type: ignore[no-any-return]


@cache
def sklearn_model() -> Any:
    """Return a fitted pipeline."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(*iris())


@cache
def booster() -> Any:
    """Return a trained XGBoost booster, which predicts three probabilities."""
    import xgboost

    features, classes = iris()
    settings = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    return xgboost.train(settings, xgboost.DMatrix(features, classes), 3)


def put_sklearn(storage: StorageEmulator, folder: str, file: str = "model.joblib") -> str:
    """Write the pipeline as an artifact and return the folder's URI."""
    import joblib

    data = io.BytesIO()
    if file.endswith(".pkl"):
        pickle.dump(sklearn_model(), data)
    else:
        joblib.dump(sklearn_model(), data)
    storage.put(f"{folder}/{file}", data.getvalue())
    return f"gs://{storage.bucket}/{folder}"


def put_quick(storage: StorageEmulator, folder: str) -> str:
    """Write an artifact that a predictor loads without scikit-learn, which takes seconds, and return the folder's URI.

    It predicts the place of the largest value of each instance. For tests of what is around a predictor.
    """
    import numpy as np

    storage.put(f"{folder}/model.pkl", pickle.dumps(SimpleNamespace(predict=partial(np.argmax, axis=1))))
    return f"gs://{storage.bucket}/{folder}"


def put_xgboost(storage: StorageEmulator, folder: str) -> str:
    """Write the booster as an artifact and return the folder's URI."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "model.ubj"
        booster().save_model(file)
        storage.put(f"{folder}/model.bst", file.read_bytes())
    return f"gs://{storage.bucket}/{folder}"
