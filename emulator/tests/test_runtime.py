"""The emulator refuses to start real clusters on a Python, a Ray or a system that cannot run them."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path

import pytest
from vertex_ray_emulator import cli, runtime
from vertex_ray_emulator.runtime import RAY_VERSION, UnsupportedRuntimeError, check_runtime


def pretend(monkeypatch: pytest.MonkeyPatch, python: tuple[int, int, int], ray: str | None) -> None:
    monkeypatch.setattr(sys, "version_info", (*python, "final", 0))
    monkeypatch.setattr(platform, "python_version", lambda: ".".join(map(str, python)))
    found = importlib.metadata.version

    def version(name: str) -> str:
        if name != "ray":
            return found(name)
        if ray is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return ray

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize(
    ("python", "ray"),
    [
        ((3, 12, 1), "2.60.0"),
        ((3, 13, 0), RAY_VERSION),
        ((3, 11, 8), "2.58.0"),
        ((3, 11, 8), None),
        ((3, 9, 1), "2.47.1"),
    ],
)
def test_start_refuses_and_names_both(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    python: tuple[int, int, int],
    ray: str | None,
) -> None:
    pretend(monkeypatch, python, ray)
    assert cli.main(["start", "--port", "0", "--state-dir", str(tmp_path / "state")]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert f"Python {'.'.join(map(str, python))}, {f'Ray {ray}' if ray else 'no Ray'}" in told.err
    assert "Ray 2.47.1 on Python 3.10 or 3.11" in told.err
    assert "--backend fake" in told.err
    assert not (tmp_path / "state").exists()
    check_runtime("fake")


@pytest.mark.parametrize("python", [(3, 10, 13), (3, 11, 8)])
def test_versions_of_the_service_are_accepted(monkeypatch: pytest.MonkeyPatch, python: tuple[int, int, int]) -> None:
    pretend(monkeypatch, python, RAY_VERSION)
    check_runtime("ray")


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "Path", lambda _: Path("/nowhere"))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(UnsupportedRuntimeError, match=r"need Linux.*Darwin"):
        check_runtime("ray")
    check_runtime("fake")
