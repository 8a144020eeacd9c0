"""The Python, the Ray and the system that real clusters need."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path

RAY_VERSION = "2.47.1"
"""The version of Ray on the service. ``node_host`` calls internals of exactly this version."""
PYTHON_VERSIONS = ((3, 10), (3, 11))
"""The versions of Python that the service's Ray has."""


class UnsupportedRuntimeError(RuntimeError):
    """This environment cannot run what the settings ask for; the message names its versions and the remedy."""


def describe() -> str:
    """Return the versions of Python and Ray in one line."""
    return f"Python {platform.python_version()}, {_ray_text(_installed_ray())}"


def check_runtime(backend: str) -> None:
    """Raise an error if a backend cannot run in this environment.

    :param backend: ``ray`` or ``fake``; the fake one needs no Ray.
    :raises UnsupportedRuntimeError: if the system, the version of Python or the version of Ray does not fit.
    """
    if backend == "fake":
        return
    fake = "or start it with --backend fake, which has no Ray Client and runs no code on Ray"
    if not Path("/proc/self/stat").exists():
        raise UnsupportedRuntimeError(
            f"Real clusters need Linux (/proc), and this is {platform.system() or 'another system'}. "
            f"Run the emulator in a Linux container, {fake}."
        )
    ray = _installed_ray()
    if sys.version_info[:2] in PYTHON_VERSIONS and ray == RAY_VERSION:
        return
    supported = " or ".join(".".join(map(str, version)) for version in PYTHON_VERSIONS)
    raise UnsupportedRuntimeError(
        f"Real clusters need Ray {RAY_VERSION} on Python {supported}, as on the service. This is {describe()} "
        f"({sys.executable}). Install vertex-ray-emulator in an environment with Python 3.11, {fake}."
    )


def _installed_ray() -> str | None:
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return None


def _ray_text(version: str | None) -> str:
    return f"Ray {version}" if version else "no Ray"
