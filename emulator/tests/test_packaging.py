"""The distribution: small, typed, and independent of Airflow and of the provider."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import vertex_ray_emulator
from emulator_support.process import PATIENCE
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
ROOT = Path(vertex_ray_emulator.__file__).parent
MOST_PACKAGES = 100


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=PATIENCE)
    (found,) = folder.glob("*.whl")
    return found


def needed(name: str, extras: frozenset[str], found: dict[str, set[str]]) -> None:
    """Collect what a distribution needs, as installed here, into ``found``: name to extras."""
    seen = found.setdefault(canonicalize_name(name), set())
    fresh = (extras | {""}) - seen
    if not fresh:
        return
    seen |= fresh
    try:
        requirements = distribution(name).requires or []
    except PackageNotFoundError:
        raise AssertionError(f"{name} is needed, but not installed") from None
    for line in requirements:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in fresh):
            needed(requirement.name, frozenset(requirement.extras), found)


def test_it_needs_few_packages_and_no_airflow() -> None:
    found: dict[str, set[str]] = {}
    needed("vertex-ray-emulator", frozenset(), found)
    assert {"ray", "google-cloud-aiplatform"} <= found.keys()
    assert len(found) <= MOST_PACKAGES
    assert [name for name in found if "airflow" in name] == []


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    on_disk = {f"vertex_ray_emulator/{file.relative_to(ROOT).as_posix()}" for file in ROOT.rglob("*.py")}
    assert names == on_disk | {
        "vertex_ray_emulator/py.typed",
        "vertex_ray_emulator/companions/bigquery_requirements.txt",
    }


def test_the_wheel_has_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "vertex-ray-emulator = vertex_ray_emulator.cli:main" in archive.read(entry_points).decode()
