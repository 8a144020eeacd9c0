"""Check the code blocks of a Markdown page: each has a language, and each language has a check.

``make docs`` applies these checks to every page; the tests apply them, too, and run the Python blocks. Needs PyYAML and
nothing else of what is installed.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tomllib
import yaml

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
ELSEWHERE = frozenset(
    (
        "airflow",
        "cd",
        "curl",
        "docker",
        "echo",
        "eval",
        "export",
        "gcloud",
        "git",
        "id",
        "mkdir",
        "pip",
        "python",
        "python3.11",
        "source",
        "uv",
    )
)
"""Programs that are not ours, and words of the shell."""

TOOLS = frozenset(("pre-commit", "python", "towncrier", "uv"))
"""Programs of the development environment, as ``.venv/bin/NAME``."""

INSTRUCTIONS = frozenset(("CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "RUN", "USER", "WORKDIR"))


@dataclass(frozen=True)
class Block:
    """A code block.

    :param language: language after the fence; empty if there is none
    :param code: text of the block
    :param line: line of the page on which the block starts, from 1
    """

    language: str
    code: str
    line: int


def blocks(text: str) -> list[Block]:
    """Return the code blocks of a page."""
    found = []
    for match in FENCE.finditer(text):
        indent = match["indent"]
        code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
        found.append(Block(match["language"], code, text.count("\n", 0, match.start()) + 1))
    return found


def problems(text: str) -> list[str]:
    """Return what is wrong with the code blocks of a page, each with its line."""
    found = []
    for block in blocks(text):
        check = CHECKS.get(block.language)
        if check is None:
            named = block.language or "none"
            found.append(
                f"line {block.line}: no check for a code block's language ({named}); use one of {sorted(CHECKS)}"
            )
            continue
        try:
            check(block.code)
        except Exception as error:  # noqa: BLE001 - whatever a parser raises
            found.append(f"line {block.line}: {type(error).__name__}: {error}")
    return found


def commands(code: str) -> Iterator[list[str]]:
    """Yield the commands of a shell block as lists of words, without assignments; those in ``$(…)`` too."""
    for line in re.sub(r"\\\n\s*", " ", code).splitlines():
        for inner in re.findall(r"\$\(([^)]*)\)", line):
            yield from commands(inner)
        reader = shlex.shlex(line, posix=True, punctuation_chars=True)
        reader.wordchars += "{}$:@%+,^"
        words: list[str] = []
        for word in [*reader, ";"]:
            if word and set(word) <= set(";&|"):
                while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL):
                    words.pop(0)
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def _check_bash(code: str) -> None:
    for words in commands(code):
        program = words[0]
        if program.startswith(".venv/bin/"):
            if program.removeprefix(".venv/bin/") not in TOOLS | _scripts():
                raise ValueError(f"{program} is not a program of the development environment")
        elif program not in ELSEWHERE | _scripts() | {"make"}:
            raise ValueError(f"unknown command {program!r}")
        if program == "make":
            named = [word for word in words[1:] if "=" not in word]
            if missing := set(named) - make_targets():
                raise ValueError(f"no make target {sorted(missing)}")
        if "-m" in words[:2] and Path(program).name.startswith("python"):
            _check_module(words[words.index("-m") + 1])


def _check_module(module: str) -> None:
    if module in ("build", "http.server", "pip", "pytest", "venv"):
        return
    place = ROOT.joinpath(*module.split("."))
    if not place.with_suffix(".py").is_file() and not (place / "__main__.py").is_file():
        raise ValueError(f"no module {module}")


@cache
def make_targets() -> frozenset[str]:
    """Return the targets of the Makefile."""
    return frozenset(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def _scripts() -> frozenset[str]:
    """Return the commands that our distributions install."""
    found: set[str] = set()
    for project in (ROOT / "pyproject.toml", ROOT / "emulator" / "pyproject.toml"):
        found |= set(tomllib.loads(project.read_text())["project"].get("scripts", {}))
    return frozenset(found)


def _check_python(code: str) -> None:
    compile(code, "<docs>", "exec")


def _check_dockerfile(code: str) -> None:
    for line in re.sub(r"\\\n\s*", " ", code).splitlines():
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        if words[0] not in INSTRUCTIONS:
            raise ValueError(f"unknown instruction {words[0]!r}")
        if words[0] == "RUN":
            _check_bash(words[1])


CHECKS: dict[str, Callable[[str], object]] = {
    "bash": _check_bash,
    "dockerfile": _check_dockerfile,
    "ini": lambda code: ConfigParser(interpolation=None).read_string(code),
    "json": json.loads,
    "python": _check_python,
    # Output and diagrams: nothing to run.
    "text": lambda code: None,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}
"""The check of each language of a code block."""
