"""Prebuilt serving containers of Vertex AI, as data, and which of them the emulator can run.

Sources: ``google/cloud/aiplatform/constants/prediction.py`` of google-cloud-aiplatform 2.7.0, read in November 2026,
and for the files the page "Export model artifacts for inference and explanation".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_IMAGE = re.compile(
    r"(?:us|europe|asia)-docker\.pkg\.dev/vertex-ai/prediction/(?P<kind>[a-z0-9]+-[a-z]+)\.(?P<version>[0-9-]+):latest"
)
_PREBUILT = re.compile(r"[a-z0-9-]+\.pkg\.dev/vertex-ai/prediction/.*")

_TF2 = "2-1 2-2 2-3 2-4 2-5 2-6 2-7 2-8 2-9 2-10 2-11 2-12 2-13 2-14 2-15"
_PYTORCH = "1-11 1-12 1-13 2-0 2-1 2-2 2-3 2-4"
_VERSIONS: dict[str, frozenset[str]] = {
    kind: frozenset(versions.split())
    for kind, versions in {
        "sklearn-cpu": "0-20 0-22 0-23 0-24 1-0 1-2 1-3 1-4 1-5 1-6",
        "xgboost-cpu": "0-82 0-90 1-1 1-2 1-3 1-4 1-5 1-6 1-7 2-0 2-1",
        "tf-cpu": "1-15",
        "tf-gpu": "1-15",
        "tf2-cpu": _TF2,
        "tf2-gpu": _TF2,
        "pytorch-cpu": _PYTORCH,
        "pytorch-gpu": _PYTORCH,
    }.items()
}

FILES: dict[str, tuple[str, ...]] = {
    "sklearn": ("model.joblib", "model.pkl"),
    "xgboost": ("model.bst", "model.joblib", "model.pkl"),
    "pytorch": ("model.mar",),
}
"""Model files by framework; an artifact folder must have one of them, and the first that exists is loaded."""


@dataclass(frozen=True)
class Container:
    """A serving container.

    :param image: URI of the image.
    :param framework: ``sklearn``, ``xgboost``, ``tf``, ``tf2`` or ``pytorch``; None for a custom container.
    """

    image: str
    framework: str | None

    @property
    def runs_here(self) -> bool:
        """Whether the emulator has a predictor for the container."""
        return self.framework in FILES


def container(image: str) -> Container | None:
    """Return the container of an image; None for a prebuilt image that Google's repository does not have."""
    if not _PREBUILT.fullmatch(image):
        return Container(image, None)
    match = _IMAGE.fullmatch(image)
    if match is None or match["version"] not in _VERSIONS.get(match["kind"], ()):
        return None
    return Container(image, match["kind"].split("-")[0])
