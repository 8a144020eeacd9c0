"""The emulator's container file and the recipes for it, as far as they can be read without a container engine."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from vertex_ray_emulator import cli
from vertex_ray_emulator.runtime import PYTHON_VERSIONS

PROJECT = Path(__file__).parents[1] / "emulator"
CONTAINERFILE = PROJECT / "Containerfile"
PAGE = PROJECT.parent / "docs" / "emulator.md"
KNOWN = {"ARG", "FROM", "COPY", "RUN", "ENV", "WORKDIR", "USER", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", CONTAINERFILE.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def only(name: str) -> str:
    (found,) = (rest for each, rest in instructions() if each == name)
    return found


def accepts(command: list[str]) -> bool:
    """Tell whether the command line parses; argparse exits otherwise."""
    assert command[0] == "vertex-ray-emulator"
    try:
        cli._parser().parse_args(command[1:])
    except SystemExit:
        return False
    return True


def test_container_file_has_known_instructions_only() -> None:
    assert {name for name, _ in instructions()} <= KNOWN
    assert instructions()[0][0] == "ARG"


def test_container_has_a_python_that_real_clusters_run_on() -> None:
    python = only("ARG").removeprefix("PYTHON=")
    assert only("FROM") == "python:${PYTHON}-slim"
    assert tuple(map(int, python.split("."))) in PYTHON_VERSIONS
    ray = next(line for line in (PROJECT / "pyproject.toml").read_text().splitlines() if '"ray[' in line)
    marker = Requirement(ray.strip().strip('",')).marker
    assert marker is not None
    assert marker.evaluate({"python_version": python})


def test_container_copies_what_the_build_needs() -> None:
    copied = [path for name, rest in instructions() if name == "COPY" for path in rest.split()[:-1]]
    assert all((PROJECT / path).exists() for path in copied)
    project = (PROJECT / "pyproject.toml").read_text()
    named = re.findall(r'^(?:readme = |license-files = \[)"(\S+)"', project, re.MULTILINE)
    assert len(named) == 2
    assert {"pyproject.toml", "src", *named} <= set(copied)


def test_container_starts_the_emulator_and_not_as_root() -> None:
    entry, command = json.loads(only("ENTRYPOINT")), json.loads(only("CMD"))
    assert accepts([*entry, *command])
    assert accepts(json.loads(only("HEALTHCHECK").partition("CMD ")[2]))
    assert only("USER") not in ("root", "0")
    assert only("STOPSIGNAL") == "SIGTERM"


def test_container_keeps_its_state_where_any_user_may_write() -> None:
    variables = dict(each.split("=", 1) for each in only("ENV").split())
    folder = only("WORKDIR")
    assert variables["HOME"] == variables["XDG_STATE_HOME"] == variables["XDG_CACHE_HOME"] == folder
    assert any(f"install -d -m 1777 {folder}" in rest for name, rest in instructions() if name == "RUN")


def recipes(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("recipe", recipes("yaml"))
def test_workflows_are_valid_and_their_commands_exist(recipe: str) -> None:
    workflow = yaml.safe_load(recipe)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    (python,) = (step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))
    assert tuple(map(int, python.split("."))) in PYTHON_VERSIONS
    lines = [line for step in steps for line in step.get("run", "").splitlines()]
    used = (re.search(r"vertex-ray-emulator (start|stop|status|env)[^>|&;]*", line) for line in lines)
    commands = [found[0] for found in used if found]
    assert commands
    assert all(accepts(shlex.split(command)) for command in commands)


def test_there_is_a_recipe_for_workflows() -> None:
    assert recipes("yaml")
    assert "Containerfile" in PAGE.read_text()
