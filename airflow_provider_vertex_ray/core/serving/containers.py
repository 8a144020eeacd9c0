"""Google's prebuilt serving containers and the files that they load.

Source: https://cloud.google.com/vertex-ai/docs/predictions/pre-built-containers (images) and
https://cloud.google.com/vertex-ai/docs/training/exporting-model-artifacts (files), as in the SDK's
``aiplatform/constants/prediction.py`` (google-cloud-aiplatform 2.7.0), in November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["FRAMEWORKS", "Framework", "serving_container"]


@dataclass(frozen=True)
class Framework:
    """The prebuilt containers of one framework.

    :param versions: versions of the framework, as in the names of the images
    :param files: file names, one of which an artifact folder must contain
    :param image: name of the image, without device and version
    :param devices: ``cpu``, and ``gpu`` if there are such images
    """

    versions: tuple[str, ...]
    files: tuple[str, ...]
    image: str
    devices: tuple[str, ...] = ("cpu",)


FRAMEWORKS: dict[str, Framework] = {
    "sklearn": Framework(
        ("0.20", "0.22", "0.23", "0.24", "1.0", "1.2", "1.3", "1.4", "1.5", "1.6"),
        ("model.joblib", "model.pkl"),
        "sklearn",
    ),
    "xgboost": Framework(
        ("0.82", "0.90", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7", "2.0", "2.1"),
        ("model.bst", "model.joblib", "model.pkl"),
        "xgboost",
    ),
    "pytorch": Framework(
        ("1.11", "1.12", "1.13", "2.0", "2.1", "2.2", "2.3", "2.4"), ("model.mar",), "pytorch", ("cpu", "gpu")
    ),
    "tensorflow": Framework(tuple(f"2.{minor}" for minor in range(1, 16)), ("saved_model.pb",), "tf2", ("cpu", "gpu")),
}
"""Frameworks by their name in ``VertexRayUploadModelOperator``."""

_CONTINENTS = {"europe": "europe", "asia": "asia"}


def serving_container(framework: str, version: str | None, location: str, *, gpu: bool = False) -> str:
    """Return the image of a framework's prebuilt serving container.

    :param framework: ``sklearn``, ``xgboost``, ``pytorch`` or ``tensorflow``
    :param version: version of the framework, such as ``1.6``; None for the newest
    :param location: region, whose continent determines the registry
    :param gpu: whether the container uses an accelerator
    :raises InvalidArgumentError: the container does not exist; the error lists the existing ones
    """
    if framework == "lightgbm":
        raise InvalidArgumentError(
            "framework", framework, "Set serving_container_image_uri; LightGBM has no prebuilt container."
        )
    if framework not in FRAMEWORKS:
        raise InvalidArgumentError(
            "framework", framework, f"Use one of {', '.join(FRAMEWORKS)}, or set serving_container_image_uri."
        )
    found = FRAMEWORKS[framework]
    version = version or found.versions[-1]
    if version not in found.versions:
        raise InvalidArgumentError(
            "framework_version",
            version,
            f"Use a version of {framework} with a prebuilt container: {', '.join(found.versions)}.",
        )
    device = "gpu" if gpu else "cpu"
    if device not in found.devices:
        raise InvalidArgumentError(
            "accelerator_type",
            device,
            f"Leave it unset; the prebuilt containers of {framework} do not use accelerators.",
        )
    registry = _CONTINENTS.get(location.partition("-")[0], "us")
    image = f"{found.image}-{device}.{version.replace('.', '-')}"
    return f"{registry}-docker.pkg.dev/vertex-ai/prediction/{image}:latest"
