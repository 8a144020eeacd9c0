"""Google's prebuilt serving containers, as data, and the file that each of them loads.

Source: https://cloud.google.com/vertex-ai/docs/predictions/pre-built-containers (the images) and
https://cloud.google.com/vertex-ai/docs/training/exporting-model-artifacts (the files), as in the SDK's
``aiplatform/constants/prediction.py`` (google-cloud-aiplatform 2.7.0), read in November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["FRAMEWORKS", "Framework", "serving_container"]


@dataclass(frozen=True)
class Framework:
    """What there is for one framework.

    :param versions: Its versions, as in the images' names.
    :param files: An artifact folder must have one of these.
    :param image: The image's name without device and version.
    :param devices: ``cpu``, and ``gpu`` where there is such an image.
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
"""By the name that ``VertexRayUploadModelOperator`` takes."""

_CONTINENTS = {"europe": "europe", "asia": "asia"}


def serving_container(framework: str, version: str | None, location: str, *, gpu: bool = False) -> str:
    """The image of a framework's prebuilt serving container.

    :param framework: ``sklearn``, ``xgboost``, ``pytorch`` or ``tensorflow``.
    :param version: Its version, such as ``1.6``; None for the newest.
    :param location: The region, whose continent says which registry is near.
    :param gpu: Whether it shall use an accelerator.
    :raises InvalidArgumentError: There is no such container; it names those that there are.
    """
    if framework == "lightgbm":
        raise InvalidArgumentError(
            "framework", framework, "there is no prebuilt container for LightGBM; give serving_container_image_uri"
        )
    if framework not in FRAMEWORKS:
        raise InvalidArgumentError(
            "framework", framework, f"give one of {', '.join(FRAMEWORKS)}, or serving_container_image_uri"
        )
    found = FRAMEWORKS[framework]
    version = version or found.versions[-1]
    if version not in found.versions:
        raise InvalidArgumentError(
            "framework_version", version, f"the prebuilt containers of {framework} are {', '.join(found.versions)}"
        )
    device = "gpu" if gpu else "cpu"
    if device not in found.devices:
        raise InvalidArgumentError(
            "accelerator_type", device, f"the prebuilt containers of {framework} use no accelerator"
        )
    registry = _CONTINENTS.get(location.partition("-")[0], "us")
    image = f"{found.image}-{device}.{version.replace('.', '-')}"
    return f"{registry}-docker.pkg.dev/vertex-ai/prediction/{image}:latest"
