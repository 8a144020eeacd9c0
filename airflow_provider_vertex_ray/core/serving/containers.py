"""Google's prebuilt serving containers, as data, and the files that they load.

The versions and the days on which their availability ends are in containers.json beside this file, and in the option
``[vertex_ray] serving_containers``. Sources: https://cloud.google.com/vertex-ai/docs/predictions/pre-built-containers
(versions and ends) and https://cloud.google.com/vertex-ai/docs/training/exporting-model-artifacts (files), in November
2026.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from airflow_provider_vertex_ray.core.checks import is_one_of
from airflow_provider_vertex_ray.core.data_rows import NOTICE_DAYS, added_text, date_in, read_rows, rows_in
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = [
    "FRAMEWORKS",
    "ContainerVersion",
    "Framework",
    "container_for_model",
    "container_versions",
    "container_warning",
    "serving_container",
]

OPTION = "serving_containers"
_FIELDS = {"framework": str, "version": str, "ends": str, "ended": bool}
_FILE = Path(__file__).with_name("containers.json")
_VERSION = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Framework:
    """The prebuilt containers of one framework.

    :param files: file names, one of which an artifact folder must contain
    :param image: name of the image, without device and version
    :param devices: ``cpu``, and ``gpu`` if there are such images
    """

    files: tuple[str, ...]
    image: str
    devices: tuple[str, ...] = ("cpu",)


FRAMEWORKS: dict[str, Framework] = {
    "sklearn": Framework(("model.joblib", "model.pkl"), "sklearn"),
    "xgboost": Framework(("model.bst", "model.joblib", "model.pkl"), "xgboost"),
    "pytorch": Framework(("model.mar",), "pytorch", ("cpu", "gpu")),
    "tensorflow": Framework(("saved_model.pb",), "tf2", ("cpu", "gpu")),
}
"""Frameworks by their name in ``VertexRayUploadModelOperator``."""

_CONTINENTS = {"europe": "europe", "asia": "asia"}


@dataclass(frozen=True)
class ContainerVersion:
    """A version of a framework with a prebuilt container.

    :param version: version in the name of the image, such as ``1.6``
    :param ends: day from which the container is no longer available; None if unknown
    :param ended: whether that day has passed for certain
    """

    version: str
    ends: date | None = None
    ended: bool = False


def container_versions(framework: str) -> dict[str, ContainerVersion]:
    """Return the versions of a framework's containers, the oldest first; those in the option replace our own.

    :param framework: name in ``FRAMEWORKS``
    :raises InvalidArgumentError: the option is malformed
    """
    return _table(added_text(OPTION))[framework]


@functools.lru_cache(maxsize=8)
def _table(added: str) -> dict[str, dict[str, ContainerVersion]]:
    found: dict[str, dict[str, ContainerVersion]] = {name: {} for name in FRAMEWORKS}
    for row in [*read_rows(_FILE), *rows_in(OPTION, added, _FIELDS, ("framework", "version"))]:
        if row["framework"] not in found or not _VERSION.fullmatch(row["version"]):
            raise InvalidArgumentError(
                f"[vertex_ray] {OPTION}", row, f'Use one of {", ".join(FRAMEWORKS)} and a version such as "1.6".'
            )
        version = ContainerVersion(row["version"], date_in(OPTION, row), bool(row.get("ended")))
        found[row["framework"]][version.version] = version
    return {
        name: dict(sorted(versions.items(), key=lambda item: _numbers(item[0]))) for name, versions in found.items()
    }


def serving_container(framework: str, version: str | None, location: str, *, gpu: bool = False) -> str:
    """Return the image of a framework's prebuilt serving container.

    :param framework: ``sklearn``, ``xgboost``, ``pytorch`` or ``tensorflow``
    :param version: version of the framework, such as ``1.6``; None for the newest. An unknown one may exist.
    :param location: region, whose continent determines the registry
    :param gpu: whether the container uses an accelerator
    :raises InvalidArgumentError: the container does not exist or is no longer available; the error lists others
    """
    if framework == "lightgbm":
        raise InvalidArgumentError(
            "framework", framework, "Set serving_container_image_uri; LightGBM has no prebuilt container."
        )
    if not is_one_of(framework, FRAMEWORKS):
        raise InvalidArgumentError(
            "framework", framework, f"Use one of {', '.join(FRAMEWORKS)}, or set serving_container_image_uri."
        )
    found = FRAMEWORKS[framework]
    known = container_versions(framework)
    version = version or _available(framework)[-1]
    if not _VERSION.fullmatch(version) or (version in known and known[version].ended):
        gone = "no longer available" if version in known else "not a version such as 1.6"
        raise InvalidArgumentError(
            "framework_version",
            version,
            f"Use a version of {framework} with a prebuilt container ({', '.join(_available(framework))}), or set "
            f"serving_container_image_uri; this one is {gone}.",
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


def container_warning(framework: str, version: str | None, today: date) -> str | None:
    """Return a warning about a container that is unknown, or whose availability ends soon; None if there is none.

    :param framework: name in ``FRAMEWORKS``
    :param version: version of the framework; None for the newest
    :param today: the current day
    """
    version = version or _available(framework)[-1]
    row = container_versions(framework).get(version)
    if row is None:
        return (
            f"framework_version: this package does not know a prebuilt container of {framework} {version}, and Vertex "
            f"AI may not have it; known are {', '.join(_available(framework))}. The option [vertex_ray] {OPTION} adds "
            "others"
        )
    left = None if row.ends is None else (row.ends - today).days
    if left is None or left > NOTICE_DAYS:
        return None
    when = f"ends on {row.ends}, in {left} days" if left > 0 else f"ended on {row.ends}"
    return (
        f"framework_version: the availability of the prebuilt container of {framework} {version} {when}; use a newer "
        "one, or serving_container_image_uri"
    )


def container_for_model(framework: str, version: str | None, trained: str) -> tuple[str | None, str | None]:
    """Return the version of the container for a model, and a warning if the model may not work in it.

    None of the frameworks loads models of a newer version reliably, and scikit-learn none of another version at all.

    :param framework: name in ``FRAMEWORKS``
    :param version: version that the container must have; None: that of the model, else the newest
    :param trained: version of the framework that made the model, such as ``1.6.1``
    :return: the version (None: the newest), and the warning (None: there is none)
    :raises InvalidArgumentError: the model is newer than the container that was asked for
    """
    match = _VERSION.match(trained)
    if match is None:
        return version, None
    own, available = match.group(), _available(framework)
    if version is None and own in available:
        return own, None
    container = version or available[-1]
    if not _VERSION.fullmatch(container) or _numbers(container) == _numbers(own):
        return version, None
    newer = _numbers(own) > _numbers(container)
    if version is not None and newer:
        raise InvalidArgumentError(
            "framework_version",
            version,
            f"The model was made with {framework} {trained}, which is newer than this container. Train it with "
            f"{framework} {version}, or set serving_container_image_uri.",
        )
    if not newer and framework != "sklearn":
        return version, None
    return version, (
        f"framework_version: the model was made with {framework} {trained}, and the container has {framework} "
        f"{container}: it may fail to load, or predict something else. Train it with one of {', '.join(available)}, "
        "or use serving_container_image_uri"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _available(framework: str) -> list[str]:
    return [row.version for row in container_versions(framework).values() if not row.ended]
